"""A folder with finished jobs, shared by the tests of several modules, which must not change it."""

import fcntl
import os
from contextlib import nullcontext

import pytest
from bench_runs import COMMAND, TINY, in_process

from sb3_mirl.bench.jobs import Job
from sb3_mirl.bench.run import run
from sb3_mirl.cli.main import main


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """
    The command has run one seed in processes of their own, and this process another one.

    One folder for all workers of pytest-xdist, whose temporary folders have the same parent.
    """
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    folder, whole = root / "finished" / "classic", root / "finished" / "whole"
    whole.parent.mkdir(exist_ok=True)
    with open(root / "finished" / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not whole.exists():
            jobs = [Job(name, "CartPole-v1", 1) for name in ("dqn", "mirl")]
            assert main([*COMMAND, "--seeds", "1", "--out", str(folder)]) == 0
            assert run(TINY, jobs, folder, engine=nullcontext(in_process)) == []
            whole.touch()
    return folder
