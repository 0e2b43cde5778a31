"""Shared set-up: one thread per test process, and the environments' ids."""

import os

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("MPLBACKEND", "Agg")

import gymnasium as gym
import pytest
import torch as th

try:
    import ale_py
except ImportError:  # an installation without extras
    pass
else:
    gym.register_envs(ale_py)


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    th.set_num_threads(1)
