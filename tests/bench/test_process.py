"""The process of a pack: its command line, and its end."""

import subprocess
import sys
from pathlib import Path

import pytest
from bench_runs import CARTPOLE, TINY, fresh

from sb3_mirl.bench import process
from sb3_mirl.bench.jobs import Job
from sb3_mirl.bench.local_engine import process_command


@pytest.mark.parametrize("pack", [(CARTPOLE,), (CARTPOLE, Job("sql_m", "MinAtar/Asterix-v1", 12))], ids=len)
def test_command_line_round_trip(pack):
    command = process_command(pack, Path("-x"), {"save_freq": 250, "device": None})
    assert command[:3] == [sys.executable, "-m", process.__name__]
    assert vars(process.parse(command[3:])) == {"folder": Path("-x"), "jobs": [*pack], "save_freq": 250, "device": "auto"}


def test_process_ends_when_its_standard_input_is_closed(tmp_path):
    folder = fresh(tmp_path / "out", TINY, CARTPOLE)
    running = subprocess.Popen(process_command((CARTPOLE,), folder, {}), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    running.stdin.close()
    assert running.wait(60) == 1 and CARTPOLE.state(folder) == "missing"
