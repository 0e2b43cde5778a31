"""Small jobs that are really run, and engines, for the tests of ``sb3-mirl bench``."""

import errno
import os
from dataclasses import replace

from sb3_mirl.bench.jobs import Job, open_folder
from sb3_mirl.bench.packs import run_pack
from sb3_mirl.bench.suites import SUITES

CARTPOLE = Job("mirl", "CartPole-v1", 0)
TINY = replace(SUITES["classic"], steps=dict.fromkeys(SUITES["classic"].steps, 600))
COMMAND = ["bench", "run", "classic", "--envs", "CartPole-v1", "--steps", "600", "--algos", "dqn", "mirl", "--jobs", "2"]
#: Learns from the beginning, in few steps
EARLY = {"learning_starts": 100, "train_freq": 16, "gradient_steps": 4}


def without_time(job, folder):
    """The parts of a result that must not depend on how the job was run."""
    return {key: value for key, value in job.result(folder).items() if key != "time"}


def in_process(packs, folder, workers, **options):
    """An engine that runs jobs in this process."""
    for pack in packs:
        run_pack(pack, folder, **options)
        yield from pack


def fresh(folder, suite, *jobs):
    """A folder in which nothing has run."""
    open_folder(folder, suite, jobs)
    return folder


def disk_is_full(*_):
    """In place of a function that writes."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
