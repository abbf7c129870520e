"""Configs to objects: what every command that needs a model or data shares."""
