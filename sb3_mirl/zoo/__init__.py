"""Our algorithms in rl-zoo3: registration, commands, hyper-parameter files and run folders."""

from sb3_mirl.zoo.register import register

__all__ = ["register"]
