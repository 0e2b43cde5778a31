"""What is sent to a tracker of experiments."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from models import FAST
from probes import TwoArms
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import ConvertCallback
from stable_baselines3.common.logger import Logger

from sb3_mirl import MIRL, CheckpointCallback, TrackingCallback, train_jointly


@pytest.fixture
def tracker(monkeypatch):
    """A module in wandb's place, which keeps what is sent: ``runs`` has the arguments and the lines of each run."""
    runs = []

    def init(**settings):
        run = SimpleNamespace(settings=settings, lines=[], finished=False)
        run.log = lambda numbers, step: run.lines.append((step, numbers))
        run.finish = lambda: setattr(run, "finished", True)
        runs.append(run)
        return run

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    return runs


def test_a_run_has_the_numbers_of_the_logger_and_the_arguments_of_the_model(tracker):
    model = MIRL("MlpPolicy", TwoArms(), beta_scale=7.0, **FAST)
    callback = TrackingCallback("project", name="first", config={"note": "x"}, group="g")
    model.learn(200, callback=callback, log_interval=1)
    (run,) = tracker
    settings = {name: value for name, value in run.settings.items() if name != "config"}
    assert settings == {"project": "project", "name": "first", "group": "g", "reinit": "create_new"}
    config = run.settings["config"]
    assert (config["algorithm"], config["beta_scale"], config["seed"], config["note"]) == ("MIRL", 7.0, 0, "x")
    steps = [step for step, _ in run.lines]
    assert steps == sorted(steps) and 0 < steps[-1] <= 200
    last = {name: value for _, numbers in run.lines for name, value in numbers.items()}
    assert {"train/beta", "train/kl", "rollout/prior_entropy"} <= last.keys()
    assert sum(value for name, value in last.items() if name.startswith("prior/")) == pytest.approx(1.0)
    json.dumps(run.lines)
    # The run and the output end with the training
    assert run.finished and len(model.logger.output_formats) == 0
    model.learn(100, callback=callback)
    assert len(tracker) == 2


def test_the_end_of_a_training_may_be_announced_twice(tracker):
    # As rl-zoo3 does
    callback = TrackingCallback("project")
    MIRL("MlpPolicy", TwoArms(), **FAST).learn(50, callback=callback)
    callback.on_training_end()
    assert [run.finished for run in tracker] == [True]


def test_a_finished_run_that_is_continued_is_a_new_run(tracker, tmp_path):
    def callbacks():
        return [TrackingCallback("project"), CheckpointCallback(50, tmp_path)]

    MIRL("MlpPolicy", TwoArms(), **FAST).learn(100, callback=callbacks())
    model = MIRL.resume(tmp_path, env=TwoArms())
    model.learn(100, callback=callbacks(), reset_num_timesteps=False, log_interval=1)
    assert [run.finished for run in tracker] == [True, True] and tracker[1].lines


def test_an_interrupted_training_leaves_no_run_open(tracker):
    def stop(*_):
        raise KeyboardInterrupt

    model, callback = MIRL("MlpPolicy", TwoArms(), **FAST), TrackingCallback("p")
    with pytest.raises(KeyboardInterrupt):
        model.learn(200, callback=[callback, ConvertCallback(stop)])
    model.learn(100, callback=callback, log_interval=1)
    assert [run.finished for run in tracker] == [True, True] and tracker[1].lines
    assert len(model.logger.output_formats) == 0


def test_folders_of_this_machine_are_not_sent(tracker, tmp_path):
    MIRL("MlpPolicy", TwoArms(), tensorboard_log=str(tmp_path), **FAST).learn(30, callback=TrackingCallback("p"))
    assert str(tmp_path) not in str(tracker[0].settings)


def test_it_works_with_algorithms_of_sb3(tracker):
    DQN("MlpPolicy", TwoArms(), learning_starts=10, buffer_size=100).learn(50, callback=TrackingCallback("p"), log_interval=1)
    assert tracker[0].settings["config"]["algorithm"] == "DQN" and tracker[0].lines


def test_text_and_what_is_not_for_tensorboard_is_left_out(tracker):
    model = DQN("MlpPolicy", TwoArms(), learning_starts=10, buffer_size=100)
    model.set_logger(Logger(None, []))
    callback = TrackingCallback("p")
    callback.init_callback(model)
    callback.on_training_start({}, {})
    model.logger.record("a", np.float32(0.5))
    model.logger.record("b", "text")
    model.logger.record("c", 1, exclude="tensorboard")
    model.logger.record("d", np.zeros(3))
    model.logger.dump(7)
    assert tracker[0].lines == [(7, {"a": 0.5})]


def test_other_trackers_are_refused_and_missing_ones_named(monkeypatch):
    with pytest.raises(ValueError, match="tracker must be one of wandb, trackio, got 'mlflow'"):
        TrackingCallback("p", tracker="mlflow")
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(ImportError, match="pip install trackio"):
        TrackingCallback("p", tracker="trackio")


@pytest.fixture
def wandb_offline(tmp_path, monkeypatch):
    """wandb itself, which writes below ``tmp_path``."""
    pytest.importorskip("wandb")
    for name, value in {"MODE": "offline", "SILENT": "true", "CONFIG_DIR": str(tmp_path), "CACHE_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)


def test_wandb_writes_offline(wandb_offline, tmp_path):
    callback = TrackingCallback("project", dir=str(tmp_path))
    MIRL("MlpPolicy", TwoArms(), **FAST).learn(200, callback=callback, log_interval=1)
    (file,) = Path(tmp_path, "wandb").glob("offline-run-*/run-*.wandb")
    content = file.read_bytes()
    assert b"prior/action_1" in content and b"train/beta" in content and b"beta_scale" in content


def test_models_that_are_trained_jointly_have_a_run_each(wandb_offline, tmp_path):
    models = [MIRL("MlpPolicy", TwoArms(), **{**FAST, "seed": seed}) for seed in (3, 4)]
    callbacks = [TrackingCallback("project", name=f"seed{model.seed}", dir=str(tmp_path)) for model in models]
    train_jointly(models, 200, callback=callbacks, log_interval=1)
    files = sorted(file.read_bytes() for file in Path(tmp_path, "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2 and all(b"train/beta" in content for content in files)
    assert sorted((b"seed3" in content, b"seed4" in content) for content in files) == [(False, True), (True, False)]


def test_trackio_keeps_a_run_on_this_machine(tmp_path):
    pytest.importorskip("trackio")
    # It reads the variable when it is imported
    code = """
from sb3_mirl import MIRL, TrackingCallback
model = MIRL("MlpPolicy", "CartPole-v1", learning_starts=20, buffer_size=100, policy_kwargs={"net_arch": [4]})
model.learn(100, callback=TrackingCallback("project", tracker="trackio"), log_interval=1)
"""
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
    assert any(b"prior/action_1" in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
