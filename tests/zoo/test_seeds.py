"""``sb3-mirl train --seeds``: each seed ends with the run folder of the command with ``--seed``, up to rounding."""

import argparse
import io
import pickle
import re
import shutil
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from resuming import copy
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.vec_env import DummyVecEnv
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sb3_mirl.zoo.command import main
from sb3_mirl.zoo.register import ALGORITHMS
from sb3_mirl.zoo.runs import Run
from sb3_mirl.zoo.seeds import LabelledOutput, parse_seeds

ENV = "CartPole-v1"
SEEDS = (3, 5, 6)
PARAMS = ["learning_starts:100", "train_freq:16", "gradient_steps:2", "batch_size:16", "policy_kwargs:dict(net_arch=[16])"]
TRAIN = ["train", "-n", "600", "-f", "logs", "--eval-freq", "200", "--verbose", "0", "--num-threads", "1"]
TRAIN += ["--eval-episodes", "2"]


def command(*arguments, algo="mirl", env=ENV, params=()):
    return [*TRAIN, "--algo", algo, "--env", env, *arguments, "-params", *PARAMS, *params]


def run_folder(number, algo="mirl", env=ENV):
    return Path("logs", algo, f"{env}_{number}")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def solo(tmp_path_factory):
    """A folder with the runs of one command for each seed."""
    folder = tmp_path_factory.mktemp("solo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for seed in SEEDS:
            assert main(command("--seed", str(seed), "--save-freq", "250", "-tb", "tb")) == 0
    return folder


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
    """A folder with the runs of one command for all seeds. Tests must not change it."""
    folder = tmp_path_factory.mktemp("joint")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(command("--seeds", "3,5-6", "--save-freq", "250", "-tb", "tb")) == 0
    return folder


def files(folder):
    """The files of a run, without the random parts of their names."""
    return sorted(re.sub(r"rl_model_[0-9a-f]{8}_", "rl_model_", str(path.relative_to(folder))) for path in folder.rglob("*"))


def settings(folder):
    return {path.name: path.read_text() for path in folder.glob("*/*.yml")}


def check_same_run(expected, found, algo="mirl", env=ENV):
    """What a run folder holds must not depend on how the run was trained, except for rounding."""
    assert files(found) == files(expected)
    assert settings(found) == settings(expected) and settings(found).keys() == {"args.yml", "config.yml"}
    check_same_content(expected, found, algo, env)


def check_same_content(expected, found, algo="mirl", env=ENV):
    evaluations = [np.load(folder / "evaluations.npz") for folder in (expected, found)]
    assert {name: array.tolist() for name, array in evaluations[0].items()} == {
        name: array.tolist() for name, array in evaluations[1].items()
    }
    for path in expected.glob("*.monitor.csv"):
        lines = [(folder / path.name).read_text().splitlines()[1:] for folder in (expected, found)]
        assert [line.split(",")[:2] for line in lines[0]] == [line.split(",")[:2] for line in lines[1]] and len(lines[0]) > 5
    for name in (f"{env}.zip", "best_model.zip"):
        one, other = (ALGORITHMS[algo].load(folder / name) for folder in (expected, found))
        for attribute in ("seed", "num_timesteps", "_n_updates", "_n_calls", "_episode_num", "_total_timesteps"):
            assert getattr(one, attribute) == getattr(other, attribute), attribute
        for key, weights in one.policy.state_dict().items():
            th.testing.assert_close(other.policy.state_dict()[key], weights, rtol=1e-4, atol=1e-6)
        assert other.policy.state_dict().keys() == one.policy.state_dict().keys()
        np.testing.assert_allclose(other.prior, one.prior, rtol=1e-5)
        np.testing.assert_allclose(other.beta, one.beta, rtol=1e-4)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_each_seed_gets_the_run_of_its_own_command(number, solo, joint):
    check_same_run(solo / run_folder(number), joint / run_folder(number))
    assert Run(joint / run_folder(number)).args["seed"] == SEEDS[number - 1]


def test_tensorboard_has_a_folder_for_each_run(solo, joint):
    for number in (1, 2, 3):
        logged = []
        for root in (solo, joint):
            events = EventAccumulator(str(root / "tb" / ENV / f"MIRL_{number}"))
            events.Reload()
            logged.append([(event.step, event.value) for event in events.Scalars("eval/mean_reward")])
        assert logged[0] == logged[1] and len(logged[0]) == 3
    assert len(list((joint / "tb" / ENV).iterdir())) == 3


def test_normalized_parallel_environments_and_replay_buffer(here):
    options = {"algo": "sql_m", "params": ("n_envs:2", "normalize:True")}
    for seed in ("1", "2"):
        assert main(command("--seed", seed, "--save-replay-buffer", **options)) == 0
    Path("logs").rename("solo")
    assert main(command("--seeds", "1-2", "--save-replay-buffer", **options)) == 0
    shutil.move("logs", "joint")
    for number in (1, 2):
        # args.yml holds the name of the log folder
        expected, found = (Path(root, "sql_m", f"{ENV}_{number}") for root in ("solo", "joint"))
        check_same_run(expected, found, algo="sql_m")
        one, other = (pickle.loads((folder / ENV / "vecnormalize.pkl").read_bytes()) for folder in (expected, found))
        assert one.obs_rms.mean.tolist() == other.obs_rms.mean.tolist() and one.ret_rms.var == other.ret_rms.var
        one, other = (pickle.loads((folder / "replay_buffer.pkl").read_bytes()) for folder in (expected, found))
        assert one.pos == other.pos == 304
        assert all((getattr(one, name) == getattr(other, name)).all() for name in ("observations", "actions", "rewards"))


def test_one_seed_on_a_grid_world(here):
    env = "MIRLCorridor-v0"
    assert main(command("--seed", "7", env=env)) == 0
    shutil.move("logs", "solo")
    assert main(command("--seeds", "7", env=env)) == 0
    expected = Path("solo", "mirl", f"{env}_1")
    assert files(run_folder(1, env=env)) == files(expected) and settings(run_folder(1, env=env)) == settings(expected)
    assert [path.name for path in Path("logs", "mirl").iterdir()] == [f"{env}_1"]


def test_a_trained_agent_is_trained_further_with_each_seed(joint, here):
    agent = joint / run_folder(2) / f"{ENV}.zip"
    assert main(command("-i", str(agent), "--seed", "8")) == 0
    shutil.move("logs", "solo")
    assert main(command("-i", str(agent), "--seeds", "9,8")) == 0
    check_same_run(Path("solo", "mirl", f"{ENV}_1"), run_folder(2))


def test_the_other_commands_work_on_the_runs(joint, here, capsys):
    copy(joint / "logs", here / "logs")
    for number in ("1", "3"):
        line = ["enjoy", "--algo", "mirl", "--env", ENV, "-f", "logs", "--exp-id", number, "--no-render", "-n", "200"]
        assert main(line) == 0 and main([*line, "--load-best"]) == 0 and main([*line, "--load-last-checkpoint"]) == 0
    assert capsys.readouterr().out.count("Mean reward") == 6
    assert main(["plot-train", "-a", "mirl", "-e", ENV, "-f", "logs", "-w", "2"]) == 0
    assert main(["all-plots", "-a", "mirl", "-e", ENV, "-f", "logs", "-o", "table"]) == 0
    assert "nothing to draw" not in capsys.readouterr().out
    assert {path.suffix for path in here.glob("*.*")} == {".png", ".pkl"}


class Interrupt:
    """Ctrl-C in the evaluation callback, when it has been called so often by all runs."""

    def __init__(self, monkeypatch, calls):
        on_step, self.count = EvalCallback._on_step, 0

        def stop(callback):
            self.count += 1
            if self.count == calls:
                raise KeyboardInterrupt
            return on_step(callback)

        monkeypatch.setattr(EvalCallback, "_on_step", stop)


@pytest.fixture
def interrupted(here, monkeypatch, solo):
    with monkeypatch.context() as patch:
        Interrupt(patch, 3 * 400 + 2)
        assert main(command("--seeds", "3,5,6", "--save-freq", "250")) == 0
    return here


def test_ctrl_c_saves_all_models(interrupted, solo):
    for number in (1, 2, 3):
        model = ALGORITHMS["mirl"].load(run_folder(number) / f"{ENV}.zip")
        assert model.num_timesteps == 401
        assert np.load(run_folder(number) / "evaluations.npz")["timesteps"].tolist() == [200, 400]
        assert [path.name for path in run_folder(number).glob("rl_model*.json")] == ["rl_model_256_steps.json"]
        assert all(weights.isfinite().all() for weights in model.policy.state_dict().values())


def test_one_run_is_resumed_alone(interrupted, solo, capsys):
    untouched = [(path, path.stat().st_mtime_ns) for path in run_folder(3).rglob("*")]
    assert main(["train", "--resume", str(run_folder(2))]) == 0
    assert f"Resuming {run_folder(2)} at step 256" in capsys.readouterr().out
    check_same_content(solo / run_folder(2), run_folder(2))
    assert [(path, path.stat().st_mtime_ns) for path in run_folder(3).rglob("*")] == untouched


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--seed", "1"], "--seeds names all seeds: leave out --seed"),
        (["-optimize"], "--seeds is for trainings, not for a search (--optimize-hyperparameters)"),
        (["--track"], "--seeds cannot be combined with --track: Weights & Biases records one run of a process"),
        (
            ["--resume"],
            "--seeds begins new runs: continue each run by its own folder, with --resume FOLDER and without --seeds",
        ),
        (["--algo", "ppo"], f"--seeds is for --algo {' or '.join(ALGORITHMS)}, got ppo"),
        (["--algo", "dqn"], f"--seeds is for --algo {' or '.join(ALGORITHMS)}, got dqn"),
    ],
)
def test_options_that_cannot_be_combined_are_refused(arguments, message, here, capsys):
    assert main(["train", "--algo", "mirl", "--env", ENV, "--seeds", "0-9", *arguments]) == 2
    assert capsys.readouterr().err == f"sb3-mirl train: {message}\n"
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    "parameter, message",
    [
        ("train_freq:(1,'episode')", "train_freq must count steps in joint training"),
        ("policy_kwargs:dict(optimizer_class=th.optim.Adagrad)", "one of torch's optimisers Adam, AdamW"),
    ],
)
def test_settings_that_cannot_be_trained_jointly_are_refused(parameter, message, here, capsys):
    assert main(["train", "--algo", "mirl", "--env", ENV, "--seeds", "0-9", "-n", "100", "-params", parameter]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("sb3-mirl train: --seeds cannot train these settings jointly: ") and message in printed
    assert not list(Path("logs", "mirl").iterdir())


def test_a_folder_of_another_run_stays(here, capsys, monkeypatch):
    # Two commands that begin together get the same number
    run = Path("logs", "mirl", f"{ENV}_1")
    run.mkdir(parents=True)
    (run / "notes.txt").write_text("of another run")
    monkeypatch.setattr("rl_zoo3.exp_manager.get_latest_run_id", lambda *_: 0)
    parameter = "train_freq:(1,'episode')"
    assert main(["train", "--algo", "mirl", "--env", ENV, "--seeds", "0-9", "-n", "100", "-params", parameter]) == 2
    assert "--seeds cannot train these settings jointly" in capsys.readouterr().err
    assert (run / "notes.txt").read_text() == "of another run"


def test_mistakes_in_hyperparameters_are_reported_once(here, capsys):
    assert main(command("--seeds", "0-9", params=["tau:2"])) == 2
    assert capsys.readouterr().err.count("tau") == 1
    assert not list(Path().glob("logs/mirl/*"))


@pytest.mark.parametrize("text, seeds", [("7", [7]), ("0-9", [*range(10)]), ("3,5,8", [3, 5, 8]), ("0-2,10", [0, 1, 2, 10])])
def test_seeds_and_ranges(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    "text, message",
    [
        *((text, "must be seeds such as") for text in ("", "a", "1,", ",1", "1-", "1--2", "1.5", "0:9", "1 2", "٣")),
        ("5-3", "must have ranges that ascend, such as 0-9, got 5-3"),
        ("1,2,1", "must name each seed once, got 1 twice"),
        ("0-4,3-6", "must name each seed once, got 3, 4 twice"),
        ("4294967296", "must be at most 4294967295, got 4294967296"),
        ("0-1000", "must be at most 1000 seeds, got 1001"),
        ("0-4294967295", "must be at most 1000 seeds, got 4294967296"),
    ],
)
def test_malformed_seeds_are_refused(text, message, here, capsys):
    with pytest.raises(argparse.ArgumentTypeError, match=re.escape(message)):
        parse_seeds(text)
    with pytest.raises(SystemExit) as stop:
        main(["train", "--algo", "mirl", "--env", ENV, "--seeds", text])
    assert stop.value.code == 2 and f"argument --seeds: {message}" in capsys.readouterr().err
    assert not list(here.iterdir())


class FailingReward(gym.Wrapper):
    """CartPole whose rewards have a value if the seed is 5, after some steps."""

    def __init__(self, value, after=300):
        super().__init__(gym.make(ENV).unwrapped)
        self.value, self.after, self.fails, self.steps = value, after, False, 0

    def reset(self, *, seed=None, options=None):
        self.fails |= seed == 5
        return super().reset(seed=seed, options=options)

    def step(self, action):
        observation, reward, *rest = super().step(action)
        self.steps += 1
        return observation, self.value if self.fails and self.steps > self.after else reward, *rest


@pytest.fixture
def failing(here):
    """A command line whose seed 5 fails after 300 steps, by a reward or by the loss."""
    gym.register("FailingReward-v0", lambda **arguments: FailingReward(**arguments), max_episode_steps=100)
    yield lambda *arguments, value: command(
        "--seeds",
        "3,5,6",
        "--env-kwargs",
        f"value:float('{value}')",
        *arguments,
        env="FailingReward-v0",
        params=["loss:'mse'"],
    )
    del gym.registry["FailingReward-v0"]


@pytest.mark.parametrize("value, reason", [("nan", "reward"), ("1.8e19", "loss was (nan|inf)")])
def test_a_run_that_fails_is_reported_and_the_others_go_on(value, reason, failing, capsys):
    env = "FailingReward-v0"
    assert main(failing("--eval-freq", "-1", value=value)) == 1
    printed = capsys.readouterr().err
    assert re.match(rf"seed 5 ended at step 3\d\d, the others go on: .*{reason}", printed)
    assert re.search(
        rf"^sb3-mirl train: 1 of 3 runs failed and have no final model:\nseed 5 \(logs/mirl/{env}_2\): .*{reason}",
        printed,
        re.M,
    )
    finished = [run_folder(number, env=env) / f"{env}.zip" for number in (1, 2, 3)]
    assert [path.exists() for path in finished] == [True, False, True]
    assert ALGORITHMS["mirl"].load(finished[2]).num_timesteps == 608


def test_ctrl_c_does_not_save_the_model_of_a_failed_run(failing, monkeypatch, capsys):
    env = "FailingReward-v0"
    Interrupt(monkeypatch, 3 * 400)
    assert main(failing(value="1.8e19")) == 1
    assert f"seed 5 (logs/mirl/{env}_2): The mse loss was " in capsys.readouterr().err
    assert [(run_folder(number, env=env) / f"{env}.zip").exists() for number in (1, 2, 3)] == [True, False, True]


def test_environments_are_closed_after_errors(here, monkeypatch):
    closed = []
    close = DummyVecEnv.close
    monkeypatch.setattr(DummyVecEnv, "close", lambda self: (closed.append(self), close(self)))
    monkeypatch.setattr(EvalCallback, "_on_training_start", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(command("--seeds", "1-2"))
    assert len(set(closed)) == 2


def test_the_output_names_the_seeds(here, capfd):
    assert main(command("--seeds", "1-2", "-P", "--verbose", "1", "--log-interval", "5", "--uuid")) == 0
    printed = capfd.readouterr().out
    for seed in (1, 2):
        assert f"Seed: {seed}\n" in printed and f"seed {seed}: Eval num_timesteps=200" in printed
        folder = Path(re.search(rf"Seed: {seed}\n[^§]*?Log path: (\S+)", printed)[1])
        assert re.fullmatch(rf"{ENV}_\d_[-0-9a-f]{{36}}", folder.name)
        (monitor,) = folder.glob("*.monitor.csv")
        episodes = len(monitor.read_text().splitlines()) - 2
        assert printed.count(f"seed {seed}: |    ep_rew_mean ") == episodes // 5
    assert printed.count("Loading hyperparameters from") == 1
    assert "608/600" in printed and len(re.findall(r"608/600", printed)) == 1


def test_logs_are_not_written_with_log_interval_minus_2(here, capsys):
    assert main(command("--seeds", "1-2", "--verbose", "1", "--log-interval", "-2")) == 0
    printed = capsys.readouterr().out
    assert "ep_rew_mean" not in printed and "seed 2: |    mean_reward" in printed


def test_lines_have_one_label_each(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    output = LabelledOutput("seed 4: ")
    print("one\ntwo", "words", file=output)
    print("a line ", end="", file=output)
    print("in parts\n", file=output)
    assert stream.getvalue() == "seed 4: one\nseed 4: two words\nseed 4: a line in parts\nseed 4: \n"
