"""Fetches archives from the first working address, checks them and puts them in place at once."""
