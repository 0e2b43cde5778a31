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
        short = [(algo, 300) for algo in ("mirl", "sql", "sql_decoupled", "sql_m", "dqn_mse", "mdqn", "dqn")]
        for algo, steps in (("mirl", 450), *short):
            train("--save-freq", "150", algo=algo, steps=steps)
    return folder


@pytest.fixture
def in_runs(runs, monkeypatch):
    monkeypatch.chdir(runs)
    return runs
