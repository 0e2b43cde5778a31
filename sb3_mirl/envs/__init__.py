"""Environments: grid worlds, Atari and MinAtar."""
