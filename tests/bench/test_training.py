"""Jobs: their results depend on the job alone, and interruptions and failures lose nothing."""

import json
import signal
import subprocess
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from bench_results import write_text
from bench_runs import CARTPOLE, EARLY, TINY, disk_is_full, fresh, without_time
from masked import MaskedProbe
from stable_baselines3.common.env_util import make_vec_env

from sb3_mirl import DQNMSE, MIRL, ActionMaskInfo
from sb3_mirl.bench import training
from sb3_mirl.bench.experiment import check
from sb3_mirl.bench.jobs import Job, read_folder
from sb3_mirl.bench.local_engine import process_command
from sb3_mirl.bench.run import status
from sb3_mirl.bench.suites import Suite
from sb3_mirl.bench.training import EVALUATION_SEED, History, run_job
from sb3_mirl.zoo.register import hyperparams_file

# Box2D's
pytestmark = pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute:DeprecationWarning")


def test_result_has_all_keys(finished):
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


def test_results_are_strict_json(finished):
    for file in (finished / "results").glob("*.json"):
        assert json.loads(file.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_auto_learning_rates_are_recorded_as_numbers():
    model = SimpleNamespace(prior_lr="auto", resolved_prior_lr=2e-6, beta_lr=1e-3, resolved_beta_lr=None)
    assert training._learning_rates(model) == {"prior_lr": 2e-6, "beta_lr": 1e-3}


def test_curve_equals_the_monitor_file(finished):
    (file,) = CARTPOLE.run_folder(finished).glob("mirl/*/0.monitor.csv")
    returns, lengths, _ = np.loadtxt(file, delimiter=",", skiprows=2, unpack=True)
    parts = np.minimum((np.cumsum(lengths) - 1) * 200 // 600, 199)
    curve = CARTPOLE.result(finished)["curve"]
    assert curve["step"] == [3 * (part + 1) for part in np.unique(parts)]
    assert curve["return"] == pytest.approx([returns[parts == part].mean() for part in np.unique(parts)])
    assert sum(curve["episodes"]) == len(returns)


# ---- interruptions ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_job_resumes_to_the_same_result(tmp_path):
    suite = replace(TINY, steps={"CartPole-v1": 1200}, hyperparams=EARLY, episodes=3)
    folder = fresh(tmp_path / "killed", suite, CARTPOLE)
    process = subprocess.Popen(process_command((CARTPOLE,), folder, {"save_freq": 250}), stdin=subprocess.PIPE)
    checkpoints = CARTPOLE.checkpoints(folder)
    deadline = time.monotonic() + 60
    while not list(checkpoints.glob("rl_model_*_steps.json")):  # one that is whole: others are hidden files
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    assert CARTPOLE.state(folder) == "running"
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert CARTPOLE.state(folder) == "missing"
    line = status(folder)[1]
    assert line.startswith(f"missing  {CARTPOLE}: begun, and ended after ") and CARTPOLE.progress(folder) > 250

    assert run_job(CARTPOLE, folder)
    assert 0 < CARTPOLE.result(folder)["time"]["resumed_at"] < 1200
    assert not checkpoints.exists()
    other = fresh(tmp_path / "whole", suite, CARTPOLE)
    assert run_job(CARTPOLE, other)
    assert without_time(CARTPOLE, folder) == without_time(CARTPOLE, other)


@pytest.mark.parametrize(
    "algorithm, env, resumes",
    [("mirl", "MinAtar/Seaquest-v1", True), pytest.param("sql_m", "LunarLander-v3", False, marks=pytest.mark.slow)],
)
def test_interrupted_job_has_the_result_of_an_uninterrupted_one(algorithm, env, resumes, tmp_path, monkeypatch):
    job = Job(algorithm, env, 3)
    suite = Suite("small", {env: 600}, epsilon=0.3, episodes=3, packages=("sb3_mirl.envs.minatar",), hyperparams=EARLY)
    interrupted, whole = fresh(tmp_path / "interrupted", suite, job), fresh(tmp_path / "whole", suite, job)
    assert run_job(job, whole, save_freq=250)
    with monkeypatch.context() as patch:
        step = History._on_step
        patch.setattr(History, "_on_step", lambda self: step(self) if self.num_timesteps < 450 else 1 / 0)
        assert not run_job(job, interrupted, save_freq=250)
    assert job.state(interrupted) == "failed" and job.failure(interrupted) == "ZeroDivisionError: division by zero"
    assert run_job(job, interrupted, save_freq=250)
    # Box2D does not show its state: there the run begins again
    assert job.result(interrupted)["time"]["resumed_at"] == (256 if resumes else 0)
    assert without_time(job, interrupted) == without_time(job, whole)
    assert job.state(interrupted) == "done" and not job.failure_file(interrupted).exists()


def test_job_with_damaged_checkpoints_starts_again(finished, tmp_path):
    folder = fresh(tmp_path / "damaged", TINY, CARTPOLE)
    write_text(CARTPOLE.checkpoints(folder) / "rl_model_500_steps.json", "{")
    assert run_job(CARTPOLE, folder)
    assert without_time(CARTPOLE, folder) == without_time(CARTPOLE, finished)


def test_checkpoints_of_other_hyperparameters_are_discarded(tmp_path, monkeypatch):
    before, now = (replace(TINY, hyperparams=EARLY | {"gamma": gamma}) for gamma in (0.5, 0.9))
    folder = fresh(tmp_path / "changed", before, CARTPOLE)
    with monkeypatch.context() as patch:
        step = History._on_step
        patch.setattr(History, "_on_step", lambda self: step(self) if self.num_timesteps < 500 else 1 / 0)
        assert not run_job(CARTPOLE, folder, save_freq=200)
    assert CARTPOLE.checkpoints(folder).exists()
    # As if the file of hyper-parameters had been edited: what belongs to a suite itself cannot change within a folder
    text = (folder / "suite.json").read_text()
    write_text(folder / "suite.json", text.replace('"gamma": 0.5', '"gamma": 0.9'))
    other = fresh(tmp_path / "whole", now, CARTPOLE)
    assert run_job(CARTPOLE, folder, save_freq=200) and run_job(CARTPOLE, other, save_freq=200)
    assert CARTPOLE.result(folder)["hyperparameters"]["gamma"] == 0.9
    assert without_time(CARTPOLE, folder) == without_time(CARTPOLE, other)
    # Finished, it is one that other hyper-parameters cannot be mixed with
    write_text(folder / "suite.json", text.replace('"gamma": 0.5', '"gamma": 0.7'))
    with pytest.raises(
        ValueError, match=r"holds a result of mirl CartPole-v1 seed 0 with other .*: gamma 0.9 instead of 0.7\."
    ):
        check(read_folder(folder)[0], [Job("mirl", "CartPole-v1", 1)], folder)


def test_keyboard_interrupt_is_neither_failure_nor_result(tmp_path, monkeypatch):
    folder = fresh(tmp_path / "stopped", TINY, CARTPOLE)

    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(History, "_on_step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_job(CARTPOLE, folder)
    assert CARTPOLE.state(folder) == "missing"


def test_default_checkpoint_interval_is_a_tenth_of_the_training(tmp_path, monkeypatch):
    def made(freq, folder):
        raise ValueError(f"every {freq} steps")  # so that nothing is trained

    monkeypatch.setattr(training, "CheckpointCallback", made)
    for given, expected in ((None, 60), (250, 250)):
        folder = fresh(tmp_path / f"{given}", TINY, CARTPOLE)
        assert not run_job(CARTPOLE, folder, save_freq=given)
        assert CARTPOLE.failure(folder) == f"ValueError: every {expected} steps"
    assert process_command((CARTPOLE,), tmp_path, {"save_freq": None, "device": "cpu"})[3:5] == ["--device", "cpu"]


@pytest.mark.parametrize("algorithm", [MIRL, DQNMSE])
def test_evaluation_uses_action_masks(algorithm):
    env = make_vec_env(MaskedProbe, 1, wrapper_class=ActionMaskInfo)
    model = algorithm("MlpPolicy", env, learning_starts=10, buffer_size=100, seed=0).learn(20)
    # An invalid action is an error of the environment
    scores = training.evaluate(model, env, 20, epsilon=0.5, seed=1)
    assert len(scores) == 20 and scores == training.evaluate(model, env, 20, epsilon=0.5, seed=1)


# ---- failures and progress --------------------------------------------------------------------------------------------


def test_invalid_result_is_a_failure(tmp_path, monkeypatch):
    folder = fresh(tmp_path / "out", TINY, CARTPOLE)
    monkeypatch.setattr(training, "evaluate", lambda *_: [float("nan")] * 30)
    assert not run_job(CARTPOLE, folder)
    assert CARTPOLE.failure(folder).startswith("ValueError: scores must be finite numbers, got [nan, nan")


def test_failure_on_a_full_disk_leaves_an_empty_file(tmp_path, monkeypatch):
    folder = fresh(tmp_path / "out", TINY, CARTPOLE)

    monkeypatch.setattr(training, "_train_and_evaluate", lambda *_: {})
    monkeypatch.setattr("sb3_mirl.common.files.write_whole", disk_is_full)
    monkeypatch.setattr(training, "write_whole", disk_is_full)
    with pytest.raises(OSError, match="No space left"):
        run_job(CARTPOLE, folder)
    assert CARTPOLE.state(folder) == "failed"
    assert CARTPOLE.failure(folder) == "its disk was full: no reason could be written"


def test_job_writes_its_progress(tmp_path, monkeypatch):
    folder = fresh(tmp_path / "out", TINY, CARTPOLE)
    progress, step = [], History._on_step

    def record_progress(self):
        progress.append(CARTPOLE.progress(folder))
        return step(self)

    monkeypatch.setattr(History, "_on_step", record_progress)
    assert run_job(CARTPOLE, folder)
    # Parts of 600 / 200 steps
    assert progress[0] == 0 and all(0 <= step - steps <= 4 for step, steps in enumerate(progress[:600]))


def test_progress_is_written_every_few_seconds(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(training, "write_progress", lambda file, steps: written.append(steps))
    history = History(10**9, tmp_path / "steps.txt")
    history.model, history.locals = SimpleNamespace(num_timesteps=0), {"infos": []}
    for seconds in range(12):
        monkeypatch.setattr(training.time, "monotonic", lambda seconds=seconds: 1000.0 + seconds)
        history.model.num_timesteps = history.num_timesteps = 1 + seconds
        history._on_step()
    assert written == [1, 6, 11]
