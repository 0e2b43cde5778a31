"""Running the jobs that are not finished, the progress, and the status of a folder."""

import io
import shutil
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from bench_results import write_text
from bench_runs import CARTPOLE, COMMAND, TINY, disk_is_full, fresh, in_process, without_time

from sb3_mirl import MIRL
from sb3_mirl.bench import local_engine
from sb3_mirl.bench import run as bench
from sb3_mirl.bench.jobs import Job, write_progress
from sb3_mirl.cli.main import main
from sb3_mirl.common.files import locked


def test_finished_suite_is_not_run_again_and_needs_no_torch(finished):
    before = {file: file.stat().st_mtime_ns for file in (finished / "results").iterdir()}
    arguments = [*COMMAND, "--seeds", "2", "--out", str(finished)]
    code = f"import sys; from sb3_mirl.cli.main import main; assert main({arguments}) == 0; assert 'torch' not in sys.modules"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "all 4 jobs are finished, nothing to do" in output
    assert {file: file.stat().st_mtime_ns for file in (finished / "results").iterdir()} == before


def test_finished_suite_works_without_write_permission(finished, tmp_path, monkeypatch, capsys):
    def write(*_):
        raise PermissionError

    monkeypatch.setattr("sb3_mirl.common.files.write_whole", write)
    assert bench.run(TINY, [CARTPOLE], finished) == [] and "nothing to do" in capsys.readouterr().out


def test_algorithms_and_seeds_can_be_added_later(finished, tmp_path, capsys):
    folder = tmp_path / "out"
    shutil.copytree(finished, folder)
    more = [Job("sql", "CartPole-v1", 0), Job("a2c", "CartPole-v1", 0)]
    assert bench.run(TINY, more, folder, engine=nullcontext(in_process)) == []
    assert without_time(more[1], folder)["evaluation"]["random actions from"] == "the policy, which has no epsilon"
    assert main(["bench", "status", str(folder)]) == 0
    assert "classic: 6 jobs, 6 done, 0 running, 0 failed, 0 missing" in capsys.readouterr().out


def test_job_of_another_process_is_not_run(tmp_path, capsys):
    folder = fresh(tmp_path / "busy", TINY, CARTPOLE)
    CARTPOLE.run_folder(folder).mkdir(parents=True)
    with locked(CARTPOLE.lock_file(folder)):
        assert bench.run(TINY, [CARTPOLE], folder, engine=nullcontext(in_process)) == [CARTPOLE]
        assert CARTPOLE.state(folder) == "running"
        assert "1 running" in bench.status(folder)[0]
    assert "another process runs it" in capsys.readouterr().out


def test_failure_is_recorded_and_other_jobs_continue(tmp_path, monkeypatch, capsys):
    def fail(self, gradient_steps, batch_size=100):
        raise ValueError("the mse loss was nan")

    suite = replace(TINY, hyperparams={"learning_starts": 100})
    jobs = [CARTPOLE, Job("dqn", "CartPole-v1", 0)]
    with monkeypatch.context() as patch:
        patch.setattr(MIRL, "train", fail)
        assert bench.run(suite, jobs, tmp_path / "out", engine=nullcontext(in_process)) == [CARTPOLE]
    assert "in fail" in CARTPOLE.failure_file(tmp_path / "out").read_text()
    lines = bench.status(tmp_path / "out")
    assert lines[0] == "classic: 2 jobs, 1 done, 0 running, 1 failed, 0 missing"
    assert lines[1] == "failed   mirl CartPole-v1 seed 0: ValueError: the mse loss was nan"
    assert bench.run(suite, jobs, tmp_path / "out", engine=nullcontext(in_process)) == []
    assert bench.status(tmp_path / "out") == ["classic: 2 jobs, 2 done, 0 running, 0 failed, 0 missing"]


def test_damaged_result_is_computed_again(finished, tmp_path, capsys):
    folder = tmp_path / "out"
    shutil.copytree(finished, folder)
    right = without_time(CARTPOLE, folder)
    CARTPOLE.result_file(folder).write_text("{")
    assert bench.run(TINY, [CARTPOLE], folder, engine=nullcontext(in_process)) == []
    assert f"{CARTPOLE} is run again: " in capsys.readouterr().out
    assert without_time(CARTPOLE, folder) == right


def test_checkpoints_of_finished_jobs_are_removed(finished, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(finished, folder)
    left = CARTPOLE.checkpoints(folder)
    write_text(left / "rl_model_500_steps.json", "{}")
    assert bench.run(TINY, [CARTPOLE], folder) == [] and not left.exists()


def test_full_disk_is_reported(tmp_path, capsys, monkeypatch):
    """Nothing can be written but empty files; then, nothing at all."""
    folder = fresh(tmp_path / "out", TINY, CARTPOLE)

    def process(pack, folder, options):
        (job,) = pack
        job.run_folder(folder).mkdir(exist_ok=True)
        return subprocess.Popen([sys.executable, "-S", "-c", "import sys; sys.exit(1)"], stdin=subprocess.PIPE)

    monkeypatch.setattr(local_engine, "_start", process)
    for touch, state in ((Path.touch, "failed"), (disk_is_full, "missing")):
        CARTPOLE.failure_file(folder).unlink(missing_ok=True)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "touch", touch)
            patch.setattr("sb3_mirl.bench.jobs.open_folder", lambda *_: None)
            patch.setattr(bench, "open_folder", lambda *_: None)
            patch.setattr("sb3_mirl.common.files.write_whole", disk_is_full)
            assert bench.run(TINY, [CARTPOLE], folder) == [CARTPOLE]
        output = capsys.readouterr()
        assert "The reason cannot be written to its file ([Errno 28] No space left on device)" in output.err
        assert f"[1/1] {CARTPOLE}: {state}: " in output.out and "disk was full" in output.out
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=4096))
            lines = bench.status(folder)
        assert lines[1].startswith(f"{state:<8} {CARTPOLE}: ") and "disk was full" in lines[1]
        assert lines[2] == f"the disk of {folder} is full: jobs cannot write results, nor why they failed"


# ---- progress ---------------------------------------------------------------------------------------------------------


def half_way(packs, folder, workers, **options):
    """An engine whose jobs are half done and then fail."""
    jobs = [job for pack in packs for job in pack]
    for job in jobs:
        job.run_folder(folder).mkdir()
        write_progress(job.progress_file(folder), 300)
    yield None
    for job in jobs:
        job.record_failure(folder, "it was not to be")
        yield job


def waiting(packs, folder, workers, **options):
    """An engine whose jobs do not begin."""
    yield None


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_lines_without_terminal(tmp_path, capsys, monkeypatch):
    jobs = [CARTPOLE, *(Job("dqn", "CartPole-v1", seed) for seed in range(2))]
    for name in ("FIRST_LINE_S", "LINE_PERIOD_S"):
        monkeypatch.setattr(bench, name, 0.0)
    assert bench.run(TINY, jobs, tmp_path / "out", engine=nullcontext(half_way)) == jobs
    lines = capsys.readouterr().err.splitlines()
    each = [f"{job} 50%" for job in jobs]
    assert lines[:2] == [
        f"[0/3] 50% of 1,800 steps: {', '.join(each)}",
        f"[1/3] 67% of 1,800 steps: {', '.join(each[1:])}",
    ]
    # Progress of the earlier call is removed
    assert bench.run(TINY, jobs[:1], tmp_path / "out", engine=nullcontext(waiting)) == jobs[:1]
    assert capsys.readouterr().err.splitlines() == ["[0/1] 0% of 600 steps: jobs are being set up"]


def test_progress_bar_on_a_terminal(tmp_path, capsys, monkeypatch):
    jobs = [Job("dqn", "CartPole-v1", seed) for seed in range(4)]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Terminal())
        patch.setenv("COLUMNS", "200")
        assert bench.run(TINY, jobs, tmp_path / "out", engine=nullcontext(half_way)) == jobs
        bar = sys.stderr.getvalue()
    assert "1.20k/2.40k" in bar and f"{jobs[0]} 50%, {jobs[1]} 50%, and 2 more" in bar
    assert "[4/4] dqn CartPole-v1 seed 3: failed: it was not to be" in capsys.readouterr().out
