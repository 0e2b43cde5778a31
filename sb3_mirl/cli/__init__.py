"""The command sb3-mirl."""
