"""A folder with finished jobs, shared by the tests of several modules, which must not change it."""

from contextlib import nullcontext

import pytest
from bench_runs import COMMAND, TINY, in_process

from sb3_mirl.bench.jobs import Job
from sb3_mirl.bench.run import run
from sb3_mirl.cli.main import main


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The command has run one seed in processes of their own, and this process another one."""
    folder = tmp_path_factory.mktemp("bench") / "classic"
    assert main([*COMMAND, "--seeds", "1", "--out", str(folder)]) == 0
    assert run(TINY, [Job(name, "CartPole-v1", 1) for name in ("dqn", "mirl")], folder, engine=nullcontext(in_process)) == []
    return folder
