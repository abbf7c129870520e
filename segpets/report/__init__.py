"""Results to figures and tables; pure functions."""
