"""``sb3-mirl bench``: results depend on the job alone, interruptions and failures lose nothing, and bad input is refused."""

import errno
import fcntl
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

import sb3_mirl.envs.minatar
from sb3_mirl import MIRL
from sb3_mirl.bench import run as bench
from sb3_mirl.bench import training
from sb3_mirl.bench.jobs import FolderError, Job, is_locked, locked, open_folder, read_folder, write_whole
from sb3_mirl.bench.suites import MINATAR_IDS, SUITES, Suite
from sb3_mirl.bench.training import EVALUATION_SEED, History, check, run_job
from sb3_mirl.cli.main import main
from sb3_mirl.zoo.command import ALGORITHMS, hyperparams_file

# Box2D's
pytestmark = pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute:DeprecationWarning")

CARTPOLE = Job("mirl", "CartPole-v1", 0)
TINY = replace(SUITES["classic"], steps=dict.fromkeys(SUITES["classic"].steps, 600))
COMMAND = ["bench", "run", "classic", "--envs", "CartPole-v1", "--steps", "600", "--algos", "dqn", "mirl", "--jobs", "2"]
#: Learns from the beginning, in few steps
EARLY = {"learning_starts": 100, "train_freq": 16, "gradient_steps": 4}


def result(job, folder):
    """All that must not depend on how the job was run."""
    return {key: value for key, value in job.result(folder).items() if key != "time"}


def in_process(jobs, folder, workers, **options):
    """An engine."""
    for job in jobs:
        run_job(job, folder, **options)
        yield job


def fresh(folder, suite, *jobs):
    open_folder(folder, suite, jobs)
    return folder


def blocked(folder):
    """A file where an empty folder was."""
    folder.rmdir()
    folder.touch()


def damaged_suite(folder, change):
    file = fresh(folder, TINY) / "suite.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder that the command has filled for one seed, in processes, and this process for another."""
    folder = tmp_path_factory.mktemp("bench") / "classic"
    assert main([*COMMAND, "--seeds", "1", "--out", str(folder)]) == 0
    assert (
        bench.run(TINY, [Job(name, "CartPole-v1", 1) for name in ("dqn", "mirl")], folder, engine=nullcontext(in_process))
        == []
    )
    return folder


# ---- results ----------------------------------------------------------------------------------------------------------


def test_what_a_result_holds(finished):
    assert len(list((finished / "results").iterdir())) == 4
    of_mirl = CARTPOLE.result(finished)
    assert (of_mirl["suite"], of_mirl["algorithm"], of_mirl["environment"], of_mirl["seed"]) == (
        "classic",
        *vars(CARTPOLE).values(),
    )
    assert of_mirl["steps"] == 768  # three times 256, the first number above 600
    assert len(of_mirl["scores"]) == 30 and min(of_mirl["scores"]) >= 8
    assert of_mirl["evaluation"] == {
        "episodes": 30,
        "epsilon": 0.0,
        "random actions from": "the learned prior",
        "seed": EVALUATION_SEED,
    }
    shipped = yaml.safe_load(hyperparams_file("mirl").read_text())["CartPole-v1"]
    assert of_mirl["hyperparameters"] == {**shipped, "n_timesteps": 600}
    assert (of_mirl["prior_lr"], of_mirl["beta_lr"]) == (shipped["prior_lr"], shipped["beta_lr"])
    assert of_mirl["hyperparameters_file"] == "sb3_mirl/hyperparams/mirl.yml"
    assert sum(of_mirl["prior"]) == pytest.approx(1.0)
    # β = 0.1 + 4e-4 i
    history = of_mirl["history"]
    assert history["beta"] == pytest.approx(0.1 + 4e-4 * np.array(history["step"])) and of_mirl["beta"] == pytest.approx(
        0.4072
    )
    assert {"torch", "stable_baselines3", "sb3_mirl", "rl_zoo3"} <= of_mirl["versions"].keys()
    of_dqn = Job("dqn", "CartPole-v1", 0).result(finished)
    assert "prior" not in of_dqn and of_dqn["history"] is None
    assert of_dqn["hyperparameters_file"] == "rl_zoo3/hyperparams/dqn.yml"
    assert of_dqn["evaluation"]["random actions from"] == "the uniform distribution"


def test_learning_rates_that_were_words_are_recorded_as_numbers():
    model = SimpleNamespace(prior_lr="auto", resolved_prior_lr=2e-6, beta_lr=1e-3, resolved_beta_lr=None)
    assert training._resolved(model) == {"prior_lr": 2e-6, "beta_lr": 1e-3}


def test_the_curve_is_that_of_the_monitor_file(finished):
    (file,) = CARTPOLE.run_folder(finished).glob("mirl/*/0.monitor.csv")
    returns, lengths, _ = np.loadtxt(file, delimiter=",", skiprows=2, unpack=True)
    parts = np.minimum((np.cumsum(lengths) - 1) * 200 // 600, 199)
    curve = CARTPOLE.result(finished)["curve"]
    assert curve["step"] == [3 * (part + 1) for part in np.unique(parts)]
    assert curve["return"] == pytest.approx([returns[parts == part].mean() for part in np.unique(parts)])
    assert sum(curve["episodes"]) == len(returns)


def test_a_process_gives_what_this_one_gives(finished, tmp_path):
    jobs = [Job(algorithm, "CartPole-v1", 0) for algorithm in ("mirl", "dqn")]
    assert bench.run(TINY, jobs, tmp_path / "here", engine=nullcontext(in_process)) == []
    for job in jobs:
        assert result(job, tmp_path / "here") == result(job, finished)
    assert result(CARTPOLE, finished)["scores"] != result(replace(CARTPOLE, seed=1), finished)["scores"]


def test_a_finished_suite_is_left_alone_and_at_once(finished):
    before = {file: file.stat().st_mtime_ns for file in (finished / "results").iterdir()}
    arguments = [*COMMAND, "--seeds", "2", "--out", str(finished)]
    code = f"import sys; from sb3_mirl.cli.main import main; assert main({arguments}) == 0; assert 'torch' not in sys.modules"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "all 4 jobs are finished, nothing to do" in output
    assert {file: file.stat().st_mtime_ns for file in (finished / "results").iterdir()} == before


def test_more_algorithms_and_seeds_may_be_added(finished, capsys):
    more = [Job("sql", "CartPole-v1", 0), Job("a2c", "CartPole-v1", 0)]
    assert bench.run(TINY, more, finished, engine=nullcontext(in_process)) == []
    assert result(more[1], finished)["evaluation"]["random actions from"] == "the policy, which has no epsilon"
    assert main(["bench", "status", str(finished)]) == 0
    assert "classic: 6 jobs, 6 done, 0 running, 0 failed, 0 missing" in capsys.readouterr().out


# ---- interruptions ----------------------------------------------------------------------------------------------------


def test_a_killed_job_goes_on_to_the_same_result(tmp_path):
    suite = replace(TINY, steps={"CartPole-v1": 1800}, hyperparams={"learning_starts": 100})
    folder = fresh(tmp_path / "killed", suite, CARTPOLE)
    process = subprocess.Popen(bench.process_command(CARTPOLE, folder, {"save_freq": 250}), stdin=subprocess.PIPE)
    checkpoints = CARTPOLE.run_folder(folder) / "checkpoints"
    deadline = time.monotonic() + 60
    while not list(checkpoints.glob("rl_model_*_steps.json")):  # one that is whole: others are hidden files
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    assert CARTPOLE.state(folder) == "running"
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert CARTPOLE.state(folder) == "missing"
    line = bench.status(folder)[1]
    assert line.startswith(f"missing  {CARTPOLE}: begun, and ended after ") and CARTPOLE.progress(folder) > 250

    assert run_job(CARTPOLE, folder)
    assert 0 < CARTPOLE.result(folder)["time"]["resumed_at"] < 1800
    assert not checkpoints.exists()
    other = fresh(tmp_path / "whole", suite, CARTPOLE)
    assert run_job(CARTPOLE, other)
    assert result(CARTPOLE, folder) == result(CARTPOLE, other)


@pytest.mark.parametrize(
    "algorithm, env, resumes", [("mirl", "MinAtar/Seaquest-v1", True), ("sql_m", "LunarLander-v3", False)]
)
def test_an_interrupted_job_ends_as_a_whole_one(algorithm, env, resumes, tmp_path, monkeypatch):
    job = Job(algorithm, env, 3)
    suite = Suite("small", {env: 900}, epsilon=0.3, episodes=3, packages=("sb3_mirl.envs.minatar",), hyperparams=EARLY)
    interrupted, whole = fresh(tmp_path / "interrupted", suite, job), fresh(tmp_path / "whole", suite, job)
    assert run_job(job, whole, save_freq=250)
    with monkeypatch.context() as patch:
        step = History._on_step
        patch.setattr(History, "_on_step", lambda self: step(self) if self.num_timesteps < 700 else 1 / 0)
        assert not run_job(job, interrupted, save_freq=250)
    assert job.state(interrupted) == "failed" and job.failure(interrupted) == "ZeroDivisionError: division by zero"
    assert run_job(job, interrupted, save_freq=250)
    # Box2D does not show its state: there the run begins again
    assert job.result(interrupted)["time"]["resumed_at"] == (512 if resumes else 0)
    assert result(job, interrupted) == result(job, whole)
    assert job.state(interrupted) == "done" and not job.failure_file(interrupted).exists()


def test_damaged_checkpoints_are_no_obstacle(finished, tmp_path):
    folder = fresh(tmp_path / "damaged", TINY, CARTPOLE)
    write_whole(CARTPOLE.run_folder(folder) / "checkpoints" / "rl_model_500_steps.json", "{")
    assert run_job(CARTPOLE, folder)
    assert result(CARTPOLE, folder) == result(CARTPOLE, finished)


def test_checkpoints_of_other_hyperparameters_are_not_gone_on_with(tmp_path, monkeypatch):
    before, now = (replace(TINY, hyperparams=EARLY | {"gamma": gamma}) for gamma in (0.5, 0.9))
    folder = fresh(tmp_path / "changed", before, CARTPOLE)
    with monkeypatch.context() as patch:
        step = History._on_step
        patch.setattr(History, "_on_step", lambda self: step(self) if self.num_timesteps < 500 else 1 / 0)
        assert not run_job(CARTPOLE, folder, save_freq=200)
    assert (CARTPOLE.run_folder(folder) / "checkpoints").exists()
    # As if the file of hyper-parameters had been edited: what belongs to a suite itself cannot change within a folder
    text = (folder / "suite.json").read_text()
    write_whole(folder / "suite.json", text.replace('"gamma": 0.5', '"gamma": 0.9'))
    other = fresh(tmp_path / "whole", now, CARTPOLE)
    assert run_job(CARTPOLE, folder, save_freq=200) and run_job(CARTPOLE, other, save_freq=200)
    assert CARTPOLE.result(folder)["hyperparameters"]["gamma"] == 0.9
    assert result(CARTPOLE, folder) == result(CARTPOLE, other)
    # Finished, it is one that other hyper-parameters cannot be mixed with
    write_whole(folder / "suite.json", text.replace('"gamma": 0.5', '"gamma": 0.7'))
    with pytest.raises(
        ValueError, match=r"holds a result of mirl CartPole-v1 seed 0 with other .*: gamma 0.9 instead of 0.7\."
    ):
        check(read_folder(folder)[0], [Job("mirl", "CartPole-v1", 1)], folder)


def test_ctrl_c_is_no_failure_and_no_result(tmp_path, monkeypatch):
    folder = fresh(tmp_path / "stopped", TINY, CARTPOLE)

    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(History, "_on_step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_job(CARTPOLE, folder)
    assert CARTPOLE.state(folder) == "missing"


def test_one_job_is_run_once_at_a_time(tmp_path, capsys):
    folder = fresh(tmp_path / "busy", TINY, CARTPOLE)
    CARTPOLE.run_folder(folder).mkdir(parents=True)
    with locked(CARTPOLE.run_folder(folder) / "lock"):
        assert bench.run(TINY, [CARTPOLE], folder, engine=nullcontext(in_process)) == [CARTPOLE]
        assert CARTPOLE.state(folder) == "running"
        assert "1 running" in bench.status(folder)[0]
    assert "another process is at it" in capsys.readouterr().out


# ---- failures ---------------------------------------------------------------------------------------------------------


def test_a_failure_is_recorded_and_stops_no_other(tmp_path, monkeypatch, capsys):
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


@pytest.mark.parametrize(
    "ending, reason",
    [("os.kill(os.getpid(), 9)", "was ended by signal 9 (SIGKILL)"), ("sys.exit(7)", "ended with exit status 7")],
)
def test_a_dead_process_is_a_failure(ending, reason, tmp_path, monkeypatch, capsys):
    def start(job, folder, options):
        return subprocess.Popen([sys.executable, "-S", "-c", f"import os, sys; {ending}"], stdin=subprocess.PIPE)

    monkeypatch.setattr(bench, "_start", start)
    assert bench.run(TINY, [CARTPOLE], tmp_path / "out") == [CARTPOLE]
    assert reason in CARTPOLE.failure(tmp_path / "out")
    assert f"[1/1] {CARTPOLE}: failed: " in capsys.readouterr().out


def test_processes_end_with_the_engine(tmp_path, monkeypatch):
    started = []

    def start(job, folder, options):
        started.append(subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"], stdin=subprocess.PIPE))
        return started[-1]

    monkeypatch.setattr(bench, "_start", start)
    engine = bench.run_locally([CARTPOLE, Job("dqn", "CartPole-v1", 0), Job("sql", "CartPole-v1", 0)], tmp_path, 2)
    assert next(engine) is None
    engine.close()
    assert [process.returncode for process in started] == [-signal.SIGKILL] * 2


@pytest.mark.parametrize(
    "damage, reason",
    [
        (lambda text: "", "Expecting value"),
        (lambda text: text[:500], "mirl_CartPole-v1_0.json: "),
        (lambda text: "[]", "a dict was expected, got list"),
        (lambda text: text.replace('"curve"', '"curves"'), "it has no curve"),
        (lambda text: text.replace('"scores": [', '"scores": [NaN, '), "scores must be finite numbers"),
        (lambda text: text.replace('"scores": [', f'"scores": [{10**400}, '), "scores must be finite numbers"),
        (lambda text: text.replace('"mirl"', '"dqn"'), "it is the result of dqn CartPole-v1 seed 0"),
    ],
)
def test_a_damaged_result_is_named(finished, damage, reason, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("runs"))
    file = CARTPOLE.result_file(folder)
    file.write_text(damage(file.read_text()))
    lines = bench.status(folder)
    assert " 0 running, 1 unreadable, 0 failed" in lines[0] and reason in lines[1]
    # The results of other jobs are not needed
    check(TINY, [Job("mirl", "CartPole-v1", 5)], folder)


def test_a_damaged_result_is_computed_again(finished, tmp_path, capsys):
    folder = tmp_path / "out"
    shutil.copytree(finished, folder)
    right = result(CARTPOLE, folder)
    CARTPOLE.result_file(folder).write_text("{")
    assert bench.run(TINY, [CARTPOLE], folder, engine=nullcontext(in_process)) == []
    assert f"{CARTPOLE} is run again: " in capsys.readouterr().out
    assert result(CARTPOLE, folder) == right


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"suite": "gridworld"}, "it is a result of suite gridworld, not classic"),
        ({"scores": [9999.0]}, "it is a result of an evaluation with episodes 1, not 30"),
        ({"evaluation": {"epsilon": 0.5, "random actions from": "x"}}, "of an evaluation with epsilon 0.5, not 0.0"),
        ({"steps": 5}, "it is a result of 5 steps, not 600"),
    ],
)
def test_a_result_from_elsewhere_must_be_of_the_suite(finished, change, reason, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(finished, folder)
    file = CARTPOLE.result_file(folder)
    file.write_text(json.dumps(CARTPOLE.result(folder) | change))
    lines = bench.status(folder)
    assert " 0 running, 1 unreadable, 0 failed" in lines[0] and reason in lines[1]
    with pytest.raises(FolderError, match=reason):
        bench.run(TINY, [CARTPOLE], folder)


def test_folders_without_rights(finished, tmp_path, capsys):
    folder = tmp_path / "out"
    shutil.copytree(finished, folder)
    CARTPOLE.result_file(folder).chmod(0)
    if os.access(CARTPOLE.result_file(folder), os.R_OK):
        pytest.skip("root reads and writes everything")
    CARTPOLE.result_file(folder).chmod(0o444)
    for path in (folder / "results", folder / "runs", folder):
        path.chmod(0o555)
    assert bench.run(TINY, [CARTPOLE], folder) == [] and "nothing to do" in capsys.readouterr().out
    CARTPOLE.result_file(folder).chmod(0)
    for command in (["status", str(folder)], ["report", str(folder), "--out", str(tmp_path / "report")]):
        assert main(["bench", *command]) == 0
    assert f"unreadable {CARTPOLE}: [Errno 13] Permission denied" in capsys.readouterr().out
    assert CARTPOLE.state(folder) == "unreadable"
    assert main([*COMMAND, "--seeds", "2", "--out", str(folder)]) == 2 and "Permission denied" in capsys.readouterr().err


def test_a_finished_suite_needs_no_right_to_write(finished, tmp_path, monkeypatch, capsys):
    def write(*_):
        raise PermissionError

    monkeypatch.setattr("sb3_mirl.common.files.write_whole", write)
    assert bench.run(TINY, [CARTPOLE], finished) == [] and "nothing to do" in capsys.readouterr().out


def test_who_looks_is_not_taken_for_who_runs(tmp_path):
    file = tmp_path / "lock"
    with open(file, "w") as other:
        fcntl.flock(other, fcntl.LOCK_SH)  # as is_locked does for a moment
        assert not is_locked(file)


def test_checkpoints_are_a_tenth_of_the_training_apart(tmp_path, monkeypatch):
    def made(freq, folder):
        raise ValueError(f"every {freq} steps")  # so that nothing is trained

    monkeypatch.setattr(training, "CheckpointCallback", made)
    for given, expected in ((None, 60), (250, 250)):
        folder = fresh(tmp_path / f"{given}", TINY, CARTPOLE)
        assert not run_job(CARTPOLE, folder, save_freq=given)
        assert CARTPOLE.failure(folder) == f"ValueError: every {expected} steps"
    assert bench.process_command(CARTPOLE, tmp_path, {"save_freq": None, "device": "cpu"})[3:5] == ["--device", "cpu"]


def test_other_kinds_of_algorithms_keep_the_zoos_settings():
    suite = replace(SUITES["atari19-100k"], steps={"BoxingNoFrameskip-v4": 100})
    settings = {
        algorithm: training._check_pair(suite, algorithm, "BoxingNoFrameskip-v4")
        for algorithm in ("ppo", "qrdqn", "sql", "mirl")
    }
    assert "buffer_size" not in settings["ppo"] and settings["ppo"]["n_steps"] == 128
    assert {settings[name]["buffer_size"] for name in ("qrdqn", "sql", "mirl")} == {100_000}
    assert "prior_lr" not in settings["sql"] and settings["mirl"]["prior_lr"] == 2e-4


# ---- progress ---------------------------------------------------------------------------------------------------------


def half_way(jobs, folder, workers, **options):
    """An engine whose jobs are half done, and then fail."""
    for job in jobs:
        job.run_folder(folder).mkdir()
        job.record_progress(folder, 300)
    yield None
    for job in jobs:
        job.record_failure(folder, "it was not to be")
        yield job


def waiting(jobs, folder, workers, **options):
    """An engine whose jobs do not begin."""
    yield None


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_how_far_running_jobs_are_is_shown(tmp_path, capsys, monkeypatch):
    jobs = [CARTPOLE, *(Job("dqn", "CartPole-v1", seed) for seed in range(2))]
    for name in ("FIRST_LINE", "LINE_PERIOD"):
        monkeypatch.setattr(bench, name, 0.0)
    assert bench.run(TINY, jobs, tmp_path / "out", engine=nullcontext(half_way)) == jobs
    lines = capsys.readouterr().err.splitlines()
    each = [f"{job} 50%" for job in jobs]
    assert lines[:2] == [
        f"[0/3] 50% of 1,800 steps: {', '.join(each)}",
        f"[1/3] 67% of 1,800 steps: {', '.join(each[1:])}",
    ]
    # What an earlier call has left is not what jobs do now
    assert bench.run(TINY, jobs[:1], tmp_path / "out", engine=nullcontext(waiting)) == jobs[:1]
    assert capsys.readouterr().err.splitlines() == ["[0/1] 0% of 600 steps: jobs are being set up"]


def test_a_terminal_has_a_bar(tmp_path, capsys, monkeypatch):
    jobs = [Job("dqn", "CartPole-v1", seed) for seed in range(4)]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Terminal())
        patch.setenv("COLUMNS", "200")
        assert bench.run(TINY, jobs, tmp_path / "out", engine=nullcontext(half_way)) == jobs
        bar = sys.stderr.getvalue()
    assert "1.20k/2.40k" in bar and f"{jobs[0]} 50%, {jobs[1]} 50%, and 2 more" in bar
    assert "[4/4] dqn CartPole-v1 seed 3: failed: it was not to be" in capsys.readouterr().out


def test_a_job_says_how_far_it_is(tmp_path, monkeypatch):
    folder = fresh(tmp_path / "out", TINY, CARTPOLE)
    seen, step = [], History._on_step

    def look(self):
        seen.append(CARTPOLE.progress(folder))
        return step(self)

    monkeypatch.setattr(History, "_on_step", look)
    assert run_job(CARTPOLE, folder)
    # Parts of 600 / 200 steps
    assert seen[0] == 0 and all(0 <= step - steps <= 4 for step, steps in enumerate(seen[:600]))


def test_progress_is_written_from_time_to_time_in_long_parts(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(training, "write_progress", lambda file, steps: written.append(steps))
    history = History(10**9, tmp_path / "steps.txt")
    history.model, history.locals = SimpleNamespace(num_timesteps=0), {"infos": []}
    for seconds in range(12):
        monkeypatch.setattr(training.time, "monotonic", lambda seconds=seconds: 1000.0 + seconds)
        history.model.num_timesteps = history.num_timesteps = 1 + seconds
        history._on_step()
    assert written == [1, 6, 11]


# ---- disks ------------------------------------------------------------------------------------------------------------


def test_a_full_disk_is_shown(tmp_path, capsys, monkeypatch):
    """Nothing can be written but empty files; then, nothing at all."""
    folder = fresh(tmp_path / "out", TINY, CARTPOLE)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def process(job, folder, options):
        job.run_folder(folder).mkdir(exist_ok=True)
        return subprocess.Popen([sys.executable, "-S", "-c", "import sys; sys.exit(1)"], stdin=subprocess.PIPE)

    monkeypatch.setattr(bench, "_start", process)
    for touch, state in ((Path.touch, "failed"), (full, "missing")):
        CARTPOLE.failure_file(folder).unlink(missing_ok=True)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "touch", touch)
            patch.setattr("sb3_mirl.bench.jobs.open_folder", lambda *_: None)
            patch.setattr(bench, "open_folder", lambda *_: None)
            patch.setattr("sb3_mirl.common.files.write_whole", full)
            assert bench.run(TINY, [CARTPOLE], folder) == [CARTPOLE]
        output = capsys.readouterr()
        assert "That cannot be written down ([Errno 28] No space left on device)" in output.err
        assert f"[1/1] {CARTPOLE}: {state}: " in output.out and "disk was full" in output.out
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=4096))
            lines = bench.status(folder)
        assert lines[1].startswith(f"{state:<8} {CARTPOLE}: ") and "disk was full" in lines[1]
        assert lines[2] == f"the disk of {folder} is full: jobs cannot write results, nor why they failed"


def test_a_job_on_a_full_disk_leaves_a_mark(tmp_path, monkeypatch):
    folder = fresh(tmp_path / "out", TINY, CARTPOLE)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(training, "_train_and_evaluate", lambda *_: {})
    monkeypatch.setattr("sb3_mirl.common.files.write_whole", full)
    with pytest.raises(OSError, match="No space left"):
        run_job(CARTPOLE, folder)
    assert CARTPOLE.state(folder) == "failed"
    assert CARTPOLE.failure(folder) == "its disk was full: no reason could be written"


def test_a_result_that_nobody_could_read_is_a_failure(tmp_path, monkeypatch):
    folder = fresh(tmp_path / "out", TINY, CARTPOLE)
    monkeypatch.setattr(training, "evaluate", lambda *_: [float("nan")] * 30)
    assert not run_job(CARTPOLE, folder)
    assert CARTPOLE.failure(folder).startswith("ValueError: scores must be finite numbers, got [nan, nan")


def test_what_a_killed_process_left_beside_its_result_is_removed(finished, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(finished, folder)
    left = CARTPOLE.run_folder(folder) / "checkpoints"
    write_whole(left / "rl_model_500_steps.json", "{}")
    assert bench.run(TINY, [CARTPOLE], folder) == [] and not left.exists()


def test_jobs_whose_process_cannot_start_stop_no_other(tmp_path, monkeypatch):
    jobs = [CARTPOLE, *(Job("dqn", "CartPole-v1", seed) for seed in range(2))]
    folder = fresh(tmp_path / "out", TINY, *jobs)
    write_whole(jobs[0].run_folder(folder), "a file where a folder belongs")
    jobs[1].run_folder(folder).mkdir()
    os.mkfifo(jobs[1].run_folder(folder) / "log.txt")
    monkeypatch.setattr(bench, "process_command", lambda *_: [sys.executable, "-S", "-c", "print('started')"])
    assert bench.run(TINY, jobs, folder) == jobs
    assert all("could not be started: " in job.failure(folder) for job in jobs[:2])
    assert jobs[2].state(folder) == "missing" and (jobs[2].run_folder(folder) / "log.txt").read_text() == "started\n"


def test_a_folder_may_look_like_an_option():
    command = bench.process_command(CARTPOLE, Path("-x"), {"device": "cpu"})
    assert command[-5:] == ["--", "-x", "mirl", "CartPole-v1", "0"] and command[-7:-5] == ["--device", "cpu"]


def test_who_only_looks_needs_no_right_to_write(tmp_path):
    file = tmp_path / "lock"
    assert not is_locked(file) and not file.exists()
    with locked(file):
        file.chmod(0o444)
        assert is_locked(file)
    assert not is_locked(file)


# ---- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["run", "clasic"], "argument SUITE: invalid choice: 'clasic'"),
        (["run", "classic", "--envs", "Pong-v4"], "'Pong-v4' is not in suite classic, choose among CartPole-v1, "),
        (["run", "classic", "--seeds", "0"], "argument --seeds: '0' is not a whole number from 1 to"),
        (["run", "classic", "--steps", "1e6"], "argument --steps: '1e6' is not a whole number from 1 to"),
        (["run", "classic", "--steps", "9" * 20], "is not a whole number from 1 to 1000000000000"),
        (["run", "classic", "--engine", "cloud"], "argument --engine: invalid choice: 'cloud'"),
    ],
)
def test_a_command_that_is_wrong(arguments, message, capsys):
    with pytest.raises(SystemExit) as error:
        main(["bench", *arguments])
    assert error.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "prepare, changed, message",
    [
        (lambda out: None, ["--algos", "mirl", "dqm"], "unknown algorithm 'dqm', choose among a2c, "),
        (
            lambda out: None,
            ["--algos", "sac"],
            "sac cannot be trained on CartPole-v1 in suite classic: The algorithm only supports",
        ),
        (lambda out: None, ["--device", "abacus"], "device must be auto, cpu, or one that PyTorch has here, got 'abacus'"),
        (lambda out: write_whole(out, "a file"), [], "is not a folder"),
        (lambda out: blocked(fresh(out, TINY) / "runs"), [], "cannot be written (File exists)"),
        (lambda out: write_whole(out.parent / "file", ""), ["--out", "{tmp}/file/out"], "cannot be written (Not a directory)"),
        (lambda out: write_whole(out / "thesis.tex", ""), [], "is not empty, and has no suite.json"),
        (
            lambda out: write_whole(out / "suite.json", "{}"),
            [],
            "is not what `sb3-mirl bench run` writes (format None instead of 1)",
        ),
        (lambda out: fresh(out, SUITES["classic"]), [], "holds other results: 50000 steps of CartPole-v1 instead of 600"),
        (lambda out: fresh(out, SUITES["minatar"]), [], "holds other results: name 'minatar' instead of 'classic'"),
        (lambda out: fresh(out, replace(TINY, epsilon=0.5)), [], "holds other results: epsilon 0.5 instead of 0.0"),
        (lambda out: None, ["--out", "a" * 300], "File name too long"),
        (
            lambda out: damaged_suite(out, lambda content: content["suite"].update(steps=["CartPole-v1"])),
            [],
            "steps must be numbers by environment, got ['CartPole-v1']",
        ),
        (
            lambda out: damaged_suite(out, lambda content: content["jobs"].append([1, 2, 3])),
            [],
            "jobs must be [algorithm, environment, seed], got [1, 2, 3]",
        ),
        # Where it cannot be said whether a job is finished, it is not done twice
        (lambda out: CARTPOLE.result_file(fresh(out, TINY)).mkdir(), [], "Is a directory"),
    ],
)
def test_what_cannot_be_run_is_refused_before_a_job_starts(prepare, changed, message, tmp_path, capsys, monkeypatch):
    def start(*_):
        raise AssertionError("a job was started")

    monkeypatch.setattr(bench, "_start", start)
    out = tmp_path / "out"
    prepare(out)
    assert main([*COMMAND, "--out", str(out), *(one.replace("{tmp}", str(tmp_path)) for one in changed)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("sb3-mirl bench run: error: ") and message in line


def test_status_of_another_folder(tmp_path, capsys):
    assert main(["bench", "status", str(tmp_path)]) == 2
    assert "is not the folder of a benchmark" in capsys.readouterr().err


def test_an_environment_that_is_not_installed_is_refused():
    suite = Suite("mine", {"Nowhere-v0": 10}, epsilon=0.0)
    with pytest.raises(ValueError, match=r"Nowhere-v0 cannot be made: .*doesn't exist"):
        check(suite, [Job("dqn", "Nowhere-v0", 0)])


@pytest.mark.parametrize(
    "suite, missing, ours, message",
    [
        ("classic", "Box2D", "gymnasium.envs.box2d", "LunarLander-v3 cannot be made: "),
        ("minatar-200k", "minatar", "sb3_mirl.envs.minatar", "sb3_mirl.envs.minatar cannot be imported: "),
        ("atari19", "ale_py", "ale_py", "ale_py cannot be imported: "),
    ],
)
def test_a_suite_whose_environments_are_not_installed_is_refused(suite, missing, ours, message, tmp_path, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.startswith((missing, ours))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    assert main(["bench", "run", suite, "--algos", "dqn", "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line and line.endswith(f"pip install 'sb3-mirl[zoo,bench,{SUITES[suite].extra}]'")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "command, missing, ours",
    [
        ("run", "rl_zoo3", "sb3_mirl.bench.training"),
        ("report", "scipy.stats", "sb3_mirl.bench.report.tables"),
        ("report", "matplotlib", "sb3_mirl.bench.report.figures"),
    ],
)
def test_packages_that_are_not_installed_are_named_with_their_extra(
    command, missing, ours, finished, tmp_path, capsys, monkeypatch
):
    monkeypatch.delitem(sys.modules, ours, raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    assert main(["bench", "status", str(finished)]) == 0
    capsys.readouterr()
    arguments = [*COMMAND, "--out", str(tmp_path / "out")] if command == "run" else ["bench", "report", str(finished)]
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"sb3-mirl bench {command}: error: ") and missing in line
    assert line.endswith("pip install 'sb3-mirl[zoo,bench]'") and not (tmp_path / "out").exists()


def test_hyperparameters_with_mistakes_are_refused():
    suite = replace(TINY, own_hyperparams={"mirl": {"prior_lrr": 1.0}})
    with pytest.raises(ValueError, match="did you mean prior_lr"):
        check(suite, [CARTPOLE])


# ---- suites -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", SUITES.values(), ids=list(SUITES))
def test_every_suite_can_be_run(suite):
    # Atari's games have one section
    envs = list(suite.steps)[-1:] if suite.extra == "atari" else list(suite.steps)[-2:]
    check(suite, [Job(algorithm, env, 0) for algorithm in (*suite.algorithms, "qrdqn") for env in envs])


@pytest.mark.parametrize("suite", SUITES.values(), ids=list(SUITES))
def test_a_folder_remembers_its_suite(suite, tmp_path):
    jobs = [Job("mirl", env, 1) for env in suite.steps]
    open_folder(tmp_path / "out", suite, jobs)
    assert read_folder(tmp_path / "out") == (suite, jobs)
    assert open_folder(tmp_path / "out", suite, jobs[:1]) == jobs


def test_processes_that_begin_at_once_plan_the_jobs_of_all(tmp_path):
    jobs = [Job("mirl", "CartPole-v1", seed) for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda job: open_folder(tmp_path / "out", TINY, [job]), jobs))
    assert sorted(read_folder(tmp_path / "out")[1]) == jobs


def test_the_algorithms_share_their_settings():
    own = {"loss", "prior_lr", "beta_schedule", "beta_init", "beta_lr", "beta_max"}
    files = {name: yaml.safe_load(hyperparams_file(name).read_text()) for name in (*ALGORITHMS, "dqn", "qrdqn")}
    for section in ("atari", *SUITES["gridworld"].steps, *MINATAR_IDS):
        shared = {key: value for key, value in files["mirl"][section].items() if key not in own}
        for name in ("sql", "sql_m"):
            assert {key: value for key, value in files[name][section].items() if key not in own} == shared
        assert files["dqn"][section] == shared
        # SB3's default for the others, but not for QR-DQN
        quantiles = {key: value for key, value in files["qrdqn"][section].items() if key != "policy_kwargs"}
        assert quantiles == {"max_grad_norm": 10} | {key: value for key, value in shared.items() if key != "policy_kwargs"}


@pytest.mark.parametrize("algorithm", ["dqn", "qrdqn"])
@pytest.mark.parametrize("env", ["MIRLSquare-v0", "MinAtar/Freeway-v1", "BoxingNoFrameskip-v4"])
def test_the_files_of_other_algorithms_train(algorithm, env, tmp_path):
    command = ["train", "--algo", algorithm, "--env", env, "-n", "120", "-f", str(tmp_path), "--eval-freq", "-1"]
    command += ["--conf-file", str(hyperparams_file(algorithm)), "--gym-packages", "sb3_mirl.envs.minatar"]
    assert main([*command, "-params", "buffer_size:500", "learning_starts:50"]) == 0
    assert len(list(tmp_path.glob(f"{algorithm}/*/*.zip"))) == 1


def test_minatar_names_its_actions():
    import gymnasium as gym

    names = {env: sb3_mirl.envs.minatar.MinAtarWrapper(gym.make(env)).get_action_meanings() for env in MINATAR_IDS}
    assert names["MinAtar/Breakout-v1"] == ["NOOP", "LEFT", "RIGHT"]
    assert names["MinAtar/Freeway-v1"] == ["NOOP", "UP", "DOWN"]
    assert names["MinAtar/Seaquest-v1"] == ["NOOP", "LEFT", "UP", "RIGHT", "DOWN", "FIRE"]


def test_minatars_network_has_the_papers_size():
    import gymnasium as gym

    extractor = {"features_extractor_class": sb3_mirl.envs.minatar.MinAtarCNN, "net_arch": [128]}
    model = MIRL("MlpPolicy", gym.make("MinAtar/Breakout-v1"), policy_kwargs=extractor, buffer_size=10)
    sizes = [tuple(parameter.shape) for parameter in model.q_net.parameters()]
    assert sizes == [(16, 4, 3, 3), (16,), (128, 1024), (128,), (3, 128), (3,)]


def test_results_are_json_that_others_read(finished):
    for file in (finished / "results").glob("*.json"):
        assert json.loads(file.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
