"""The local engine: processes that die, cannot start, or end with the engine."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from bench_results import write_text
from bench_runs import CARTPOLE, TINY, fresh, in_process, without_time

from sb3_mirl.bench import local_engine
from sb3_mirl.bench.jobs import Job
from sb3_mirl.bench.run import run


def test_result_is_the_same_in_another_process(finished, tmp_path):
    jobs = [Job(algorithm, "CartPole-v1", 0) for algorithm in ("mirl", "dqn")]
    assert run(TINY, jobs, tmp_path / "here", engine=nullcontext(in_process)) == []
    for job in jobs:
        assert without_time(job, tmp_path / "here") == without_time(job, finished)
    assert without_time(CARTPOLE, finished)["scores"] != without_time(replace(CARTPOLE, seed=1), finished)["scores"]


@pytest.mark.parametrize(
    "ending, reason",
    [("os.kill(os.getpid(), 9)", "was ended by signal 9 (SIGKILL)"), ("sys.exit(7)", "ended with exit status 7")],
)
def test_process_that_dies_is_recorded_as_failure(ending, reason, tmp_path, monkeypatch, capsys):
    def start(pack, folder, options):
        return subprocess.Popen([sys.executable, "-S", "-c", f"import os, sys; {ending}"], stdin=subprocess.PIPE)

    monkeypatch.setattr(local_engine, "_start", start)
    assert run(TINY, [CARTPOLE], tmp_path / "out") == [CARTPOLE]
    assert reason in CARTPOLE.failure(tmp_path / "out")
    assert f"[1/1] {CARTPOLE}: failed: " in capsys.readouterr().out


def test_process_that_dies_is_the_failure_of_its_unfinished_jobs(finished, tmp_path, monkeypatch):
    def start(pack, folder, options):
        shutil.copy(CARTPOLE.result_file(finished), folder / "results")
        return subprocess.Popen([sys.executable, "-S", "-c", "import os; os.kill(os.getpid(), 9)"], stdin=subprocess.PIPE)

    pack = tuple(replace(CARTPOLE, seed=seed) for seed in range(3))
    folder = fresh(tmp_path / "out", TINY, *pack)
    monkeypatch.setattr(local_engine, "_start", start)
    assert [job for job in local_engine.run_locally([pack], folder, 1) if job] == [*pack]
    assert [job.state(folder) for job in pack] == ["done", "failed", "failed"]
    assert "was ended by signal 9 (SIGKILL)" in pack[2].failure(folder)


def test_closing_the_engine_kills_its_processes(tmp_path, monkeypatch):
    started = []

    def start(pack, folder, options):
        started.append(subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"], stdin=subprocess.PIPE))
        return started[-1]

    monkeypatch.setattr(local_engine, "_start", start)
    packs = [(CARTPOLE,), (Job("dqn", "CartPole-v1", 0),), (Job("sql", "CartPole-v1", 0),)]
    engine = local_engine.run_locally(packs, tmp_path, 2)
    assert next(engine) is None
    engine.close()
    assert [process.returncode for process in started] == [-signal.SIGKILL] * 2


def test_job_whose_process_cannot_start_is_recorded_as_failure(tmp_path, monkeypatch):
    jobs = [CARTPOLE, *(Job("dqn", "CartPole-v1", seed) for seed in range(2))]
    folder = fresh(tmp_path / "out", TINY, *jobs)
    write_text(jobs[0].run_folder(folder), "a file where a folder belongs")
    jobs[1].run_folder(folder).mkdir()
    os.mkfifo(jobs[1].run_folder(folder) / "log.txt")
    monkeypatch.setattr(local_engine, "process_command", lambda *_: [sys.executable, "-S", "-c", "print('started')"])
    assert run(TINY, jobs, folder) == jobs
    assert all("could not be started: " in job.failure(folder) for job in jobs[:2])
    assert jobs[2].state(folder) == "missing" and (jobs[2].run_folder(folder) / "log.txt").read_text() == "started\n"


def test_folder_name_may_begin_with_a_dash():
    command = local_engine.process_command((CARTPOLE,), Path("-x"), {"device": "cpu"})
    assert command[-5:] == ["--", "-x", "mirl", "CartPole-v1", "0"] and command[-7:-5] == ["--device", "cpu"]
