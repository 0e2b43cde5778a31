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


@pytest.fixture(scope="session")
def trained():
    """A small model after some gradient steps, with names of actions."""
    from exports import FAST
    from probes import NamedActions

    from sb3_mirl import MIRL

    return MIRL("MlpPolicy", NamedActions(), prior_lr=0.1, **FAST).learn(60)


@pytest.fixture
def exported(trained, tmp_path):
    """An export of :func:`trained`."""
    return trained.export(tmp_path / "model")


@pytest.fixture(scope="session")
def bytes_of_export(trained, tmp_path_factory):
    return trained.export(tmp_path_factory.mktemp("export") / "model").read_bytes()


@pytest.fixture
def saved(trained, tmp_path):
    """The same as a zip of SB3's ``save``."""
    trained.save(tmp_path / "saved.zip")
    return tmp_path / "saved.zip"
