"""Environments: grid worlds, Atari, MinAtar, and actions that do nothing."""
