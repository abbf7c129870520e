"""The run directory: how an experiment is written down, found again and trusted."""
