"""Trained agents for the zoo's commands."""

import pytest
from zoo_train import train


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """A folder with trained agents of ours and of DQN. Tests must not change it."""
    folder = tmp_path_factory.mktemp("zoo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        # Two of mirl, of which the first is longer
        for algo, steps in (("mirl", 450), ("mirl", 300), ("sql", 300), ("sql_m", 300), ("dqn_mse", 300), ("dqn", 300)):
            train("--save-freq", "150", algo=algo, steps=steps)
    return folder


@pytest.fixture
def in_runs(runs, monkeypatch):
    monkeypatch.chdir(runs)
    return runs
