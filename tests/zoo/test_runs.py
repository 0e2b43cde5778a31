"""``sb3-mirl train --resume``: an interrupted run that is resumed ends with the same content as an uninterrupted one."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch as th
import yaml
from resuming import copy
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sb3_mirl import MIRL, SQL
from sb3_mirl.common.dqn import DQNMSE
from sb3_mirl.common.resume.state import capture, restore
from sb3_mirl.zoo.command import main

ENV = "CartPole-v1"
PARAMS = ["learning_starts:100", "train_freq:16", "gradient_steps:2", "batch_size:16", "policy_kwargs:dict(net_arch=[16])"]
TRAIN = ["train", "--env", ENV, "-n", "1200", "-f", "logs", "--eval-freq", "250", "--save-freq", "300", "--verbose", "0"]
TRAIN += ["--num-threads", "1", "--eval-episodes", "2"]
RUN = Path("logs", "mirl", f"{ENV}_1")
TB = ["-tb", "tb"]


class Interrupt(Exception):
    """Ends the command like a killed process."""


def command(*arguments, algo="mirl", params=()):
    return [*TRAIN, "--algo", algo, *arguments, "-params", *PARAMS, *params]


def interrupted(line, calls, monkeypatch, error=Interrupt):
    """Run the command until the evaluation callback has been called that often."""
    on_step, count = EvalCallback._on_step, 0

    def stop(self):
        nonlocal count
        count += 1
        if count == calls:
            raise error
        return on_step(self)

    with monkeypatch.context() as patch:
        patch.setattr(EvalCallback, "_on_step", stop)
        if error is KeyboardInterrupt:
            assert main(line) == 0
        else:
            with pytest.raises(error):
                main(line)


def content(folder, algorithm=MIRL):
    """The content of a run folder that must not depend on interruptions."""
    model = algorithm.load(folder / f"{ENV}.zip")
    evaluations = np.load(folder / "evaluations.npz")
    monitors = sorted(folder.glob("*.monitor.csv"))
    settings = folder / ENV
    return {
        "weights": {name: value.tolist() for name, value in model.policy.state_dict().items()},
        "optimizer": th.utils._pytree.tree_map_only(th.Tensor, th.Tensor.tolist, model.policy.optimizer.state_dict()),
        "prior": model.prior.tolist(),
        "beta": model.beta,
        "counters": [model.num_timesteps, model._n_updates, model._n_calls, model._episode_num],
        "evaluations": {name: evaluations[name].tolist() for name in evaluations},
        "monitors": [[line.split(",")[:2] for line in path.read_text().splitlines()[1:]] for path in monitors],
        "best": algorithm.load(folder / "best_model.zip").num_timesteps,
        "statistics": {path.name: path.read_bytes() for path in settings.glob("*.pkl")},
        "config": (settings / "config.yml").read_text(),
        "checkpoints": sorted(path.name for path in folder.glob("rl_model*")),
    }


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with a run that was not interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(command("--seed", "1", *TB)) == 0
    return folder


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """A folder with the same run, which was interrupted."""
    folder = tmp_path_factory.mktemp("half")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        interrupted(command("--seed", "1", *TB), 777, patch)
    return folder


@pytest.fixture
def in_half(half, here):
    return copy(half / "logs", here / "logs") and copy(half / "tb", here / "tb")


def same(expected, found):
    assert expected.keys() == found.keys()
    for name in expected:
        assert expected[name] == found[name], name


@pytest.mark.parametrize("form", ["", str(RUN)])
def test_a_resumed_run_equals_the_uninterrupted_one(form, whole, in_half, capsys):
    settings = {path.name: path.read_bytes() for path in (RUN / ENV).iterdir()}
    assert not (RUN / f"{ENV}.zip").exists()
    assert main(command("--seed", "1", *TB, *["--resume", form][: 2 if form else 1])) == 0
    assert f"Resuming {RUN} at step " in capsys.readouterr().out
    same(content(whole / RUN), content(RUN))
    assert {path.name: path.read_bytes() for path in (RUN / ENV).iterdir()} == settings
    assert [path.name for path in Path("logs", "mirl").iterdir()] == [RUN.name]


def test_tensorboard_logs_continue_in_the_same_folder(whole, in_half):
    assert main(command("--resume", *TB)) == 0
    for name in ("rollout/ep_rew_mean", "eval/mean_reward", "train/loss"):
        logged = []
        for root in (whole, Path()):
            (folder,) = (root / "tb" / ENV).iterdir()
            events = EventAccumulator(str(folder))
            events.Reload()
            logged.append([(event.step, event.value) for event in events.Scalars(name)])
        assert logged[0] == logged[1]


def test_resume_needs_only_the_run_folder(whole, in_half):
    assert main(["train", "--resume", str(RUN)]) == 0
    same(content(whole / RUN), content(RUN))


def test_dqn_mse_is_resumed(here, monkeypatch):
    line = command("--seed", "1", "-n", "700", algo="dqn_mse")
    folder = Path("logs", "dqn_mse", f"{ENV}_1")
    assert main(line) == 0
    shutil.move("logs", "whole")
    interrupted(line, 500, monkeypatch)
    assert not (folder / f"{ENV}.zip").exists()
    assert main([*line, "--resume"]) == 0
    whole, resumed = (DQNMSE.load(path / f"{ENV}.zip") for path in (Path("whole", *folder.parts[1:]), folder))
    assert resumed.num_timesteps == whole.num_timesteps and resumed._n_updates == whole._n_updates
    for expected, found in zip(whole.policy.parameters(), resumed.policy.parameters(), strict=True):
        assert th.equal(expected, found)


@pytest.mark.filterwarnings("ignore:rich is experimental")  # of -P
def test_several_interruptions_with_normalization_and_two_environments(here, monkeypatch):
    line = command(params=["n_envs:2", "normalize:dict(norm_reward=True)"])
    assert main([*line, "--seed", "2"]) == 0
    shutil.move("logs", "whole")
    interrupted([*line, "--seed", "2"], 390, monkeypatch)
    interrupted([*line, "--resume"], 60, monkeypatch)
    assert main([*line, "--resume", "-P", "--verbose", "1", "--device", "cpu"]) == 0
    found = content(RUN)
    assert found["statistics"].keys() == {"vecnormalize.pkl"} and len(found["monitors"]) == 2
    same(content(Path("whole", *RUN.parts[1:])), found)


@pytest.mark.slow
def test_a_killed_process_without_a_seed_is_resumed(here):
    line = command("-n", "1500", "--save-freq", "512", "--eval-freq", "400", "--resume")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-m", "sb3_mirl", *line], stdout=subprocess.DEVNULL, env=environment)
    while not list(RUN.glob("*_steps.json")) and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (RUN / f"{ENV}.zip").exists()
    assert main(line) == 0
    shutil.move("logs", "resumed")
    resumed = Path("resumed", *RUN.parts[1:])
    seed = yaml.load((resumed / ENV / "args.yml").read_text(), Loader=yaml.UnsafeLoader)["seed"]
    assert main([*line, "--seed", str(seed)]) == 0
    same(content(RUN), content(resumed))


def test_worker_processes_that_were_reset_are_not_seeded_again():
    """As those of the evaluation, which nothing resets between making and restoring them."""
    envs = [make_vec_env(ENV, seed=3, vec_env_cls=SubprocVecEnv, vec_env_kwargs={"start_method": "fork"}) for _ in range(2)]
    envs[0].reset()
    restore(envs[1], capture(envs[0]))
    assert envs[0].reset().tolist() == envs[1].reset().tolist()
    for env in envs:
        env.close()


# ---- which run is resumed, and with which settings ------------------------------------------------------------------


@pytest.fixture
def run(capsys):
    """Exit status, and what is printed without a traceback."""

    def call(*line):
        capsys.readouterr()
        try:
            status = main(list(line))
        except SystemExit as stop:
            status = stop.code
        printed = capsys.readouterr()
        return status, printed.err if status else printed.out

    return call


def test_a_finished_run_is_not_changed(whole, here, run):
    copy(whole / "logs", here / "logs")
    before = {path: path.stat().st_mtime_ns for path in here.rglob("*")}
    for folder in ([], [str(RUN)]):
        assert run(*command("--seed", "1", *TB, "--resume", *folder)) == (0, f"{RUN} is finished: nothing to resume\n")
    assert {path: path.stat().st_mtime_ns for path in here.rglob("*")} == before


def test_a_finished_run_continues_to_more_steps(whole, here, run, monkeypatch):
    copy(whole / "logs", here / "logs")
    line = command("--resume", "-n", "1700")
    interrupted(line, 1450 - 1200, monkeypatch)
    # As any interrupted run; what began it is a contradiction now
    assert run(*command("--resume"))[1].endswith(
        "Options that are left out keep the run's values. Without --resume a new run begins.\n"
    )
    assert run(*line)[0] == 0
    model = MIRL.load(RUN / f"{ENV}.zip")
    assert model.num_timesteps >= 1700 and model._total_timesteps == 1700
    assert np.load(RUN / "evaluations.npz")["timesteps"].tolist() == [250, 500, 750, 1000, 1250, 1500]
    assert run(*line) == (0, f"{RUN} is finished: nothing to resume\n")
    assert run("train", "--resume", str(RUN)) == (0, f"{RUN} is finished: nothing to resume\n")
    assert [path.name for path in Path("logs", "mirl").iterdir()] == [RUN.name]


def test_a_finished_run_without_checkpoints_is_refused(whole, here, run):
    copy(whole / "logs", here / "logs")
    for path in RUN.glob("*_steps.json"):
        path.unlink()
    status, printed = run(*command("--resume", "-n", "1700"))
    remedy = f"{RUN} has no checkpoint (--save-freq) to continue from: -i {RUN / ENV}.zip begins a new run with its model"
    assert (status, printed) == (2, f"sb3-mirl train: {remedy}\n")
    assert run("train", "--resume", str(RUN)) == (0, f"{RUN} is finished: nothing to resume\n")


def test_a_run_with_an_incomplete_final_model_is_resumed(whole, here):
    copy(whole / "logs", here / "logs")
    (RUN / f"{ENV}.zip").write_bytes((RUN / f"{ENV}.zip").read_bytes()[:1000])
    assert main(command("--resume")) == 0
    same(content(whole / RUN), content(RUN))


def test_ctrl_c_saves_a_model_of_an_unfinished_run(whole, here, monkeypatch):
    line = command("--seed", "1", *TB)
    interrupted(line, 777, monkeypatch, KeyboardInterrupt)
    assert MIRL.load(RUN / f"{ENV}.zip").num_timesteps == 777
    assert main([*line, "--resume"]) == 0
    same(content(whole / RUN), content(RUN))


def test_an_interrupted_gradient_step_is_not_saved(here, monkeypatch):
    def train(self, gradient_steps, batch_size):
        if self.num_timesteps > 350:
            raise KeyboardInterrupt

    monkeypatch.setattr(MIRL, "train", train)
    assert main(command("--eval-freq", "-1")) == 0
    assert [path.name for path in RUN.glob("*.json")] == ["rl_model_304_steps.json"]


def test_a_new_run_begins_if_there_is_none_to_resume(here, run, in_half):
    status, printed = run(*command("--resume", "--seed", "5", "-n", "50"))
    assert status == 0 and f"There is no run of mirl on {ENV} with seed 5: a new one begins\n" in printed
    shutil.rmtree("logs/mirl/CartPole-v1_2/replay", ignore_errors=True)
    for path in Path("logs/mirl/CartPole-v1_2").glob("*_steps.*"):
        path.unlink()
    Path(f"logs/mirl/{ENV}_2/{ENV}.zip").unlink()
    status, printed = run(*command("--resume", "-n", "50", "--save-freq", "-1"))
    folder = Path(f"logs/mirl/{ENV}_2")
    assert f"{folder}, the newest run of mirl on {ENV}, has no checkpoint: a new one begins, which cannot be" in printed
    assert {path.name for path in Path("logs/mirl").iterdir()} == {f"{ENV}_{number}" for number in (1, 2, 3)}


def test_a_run_that_cannot_be_read_is_left_out(in_half, here, run):
    copy(RUN, RUN.with_name(f"{ENV}_2"))
    broken = RUN.with_name(f"{ENV}_2") / ENV / "args.yml"
    broken.write_text("")
    unreadable = f"{broken} must hold settings, got None"
    status, printed = run(*command("--resume", "--seed", "1", *TB))
    assert status == 2 and unreadable in printed
    # As of a run that was killed while it began
    for file in RUN.with_name(f"{ENV}_2").glob("rl_model_*"):
        file.unlink()
    status, printed = run(*command("--resume", "--seed", "1", *TB))
    assert status == 0 and f"Left out: {unreadable}" in printed and f"Resuming {RUN} at" in printed


def test_seed_selects_the_newest_run_of_that_seed(in_half, here, run):
    copy(RUN, RUN.with_name(f"{ENV}_2"))
    arguments = RUN.with_name(f"{ENV}_2") / ENV / "args.yml"
    arguments.write_text(arguments.read_text().replace("- seed\n    - 1\n", "- seed\n    - 2\n"))
    status, printed = run(*command("--resume", "--seed", "1", *TB))
    assert status == 0 and f"Resuming {RUN} at" in printed and not RUN.with_name(f"{ENV}_3").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--seed", "2"], "--seed is 1 there, got 2"),
        (["-n", "1500"], "--n-timesteps is 1200 there, got 1500"),
        (["--eval-freq", "25000"], "--eval-freq is 250 there, got 25000"),
        (["--vec-env", "subproc"], "--vec-env is 'dummy' there, got 'subproc'"),
        (["-tb", "elsewhere"], "--tensorboard-log is 'tb' there, got 'elsewhere'"),
        (["--env-kwargs", "sutton_barto_reward:True"], "--env-kwargs is None there, got {'sutton_barto_reward': True}"),
        (["-params", "batch_size:8", "tau:0.5"], "batch_size is 16 there, got 8; tau is not given there, got 0.5"),
        (["-conf", "my.yml"], "gamma is 0.995 there, got 0.75"),
        (["--algo", "sql"], "--algo is 'mirl' there, got 'sql'"),
        (["--env", "Acrobot-v1"], f"--env is '{ENV}' there, got 'Acrobot-v1'"),
    ],
)
def test_contradictions_are_refused(arguments, message, in_half, run):
    Path("my.yml").write_text(f"{ENV}:\n  n_timesteps: 50000\n  policy: MlpPolicy\n  gamma: 0.75\n")
    before = {path: path.stat().st_mtime_ns for path in Path("logs").rglob("*")}
    status, printed = run("train", "--resume", str(RUN), *arguments)
    start = f"sb3-mirl train: {RUN} goes on with its own settings, and the command line contradicts them: "
    assert status == 2 and printed.startswith(start) and printed.count("\n") == 1 and message in printed
    assert {path: path.stat().st_mtime_ns for path in Path("logs").rglob("*")} == before


def test_the_same_hyperparameter_file_is_accepted(here, run, monkeypatch):
    settings = {"n_timesteps": 400, "policy": "MlpPolicy", "beta_init": 1, "normalize": {"norm_obs": True}}
    Path("my.yml").write_text(yaml.dump({ENV: {**settings, "learning_rate": "lin_0.001", "train_freq": [1, "step"]}}))
    line = ["train", "--algo", "mirl", "--env", ENV, "-conf", "my.yml", "-f", "logs", "--save-freq", "100", "--resume"]
    interrupted([*line, "--eval-freq", "50"], 250, monkeypatch)
    assert run(*line)[0] == 0
    assert run(*line) == (0, f"{RUN} is finished: nothing to resume\n")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["--algo", "dqn", "--resume"],
            "--resume is for --algo mirl or sql or sql_decoupled or sql_m or dqn_mse or mdqn, got dqn",
        ),
        (
            ["--algo", "dqn", "--keep-checkpoints", "2"],
            "--keep-checkpoints is for --algo mirl or sql or sql_decoupled or sql_m or dqn_mse or mdqn, got dqn",
        ),
        (["--algo", "mirl", "--resume", "-optimize"], "--resume continues a training, not a search (--optimize-h"),
        (["--resume", "nowhere"], "--resume must be followed by a run folder, got 'nowhere', which does not exist"),
        (["--resume", "logs"], "--resume must be followed by a run folder, such as logs/mirl/CartPole-v1_1, got 'logs', whic"),
        (["--resume", str(RUN)], f"--resume must be followed by a run folder with a checkpoint, got '{RUN}'"),
    ],
)
def test_mistakes_are_reported_in_one_line(arguments, message, in_half, run):
    for path in RUN.glob("*.json"):
        path.unlink()
    status, printed = run("train", *arguments)
    assert status == 2 and printed.startswith(f"sb3-mirl train: {message}") and printed.count("\n") == 1


def test_damaged_checkpoints_are_refused_or_skipped(whole, in_half, run):
    manifests = sorted(RUN.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    manifests[-1].write_text("{}")
    copy(RUN, Path("copy"))
    monitor = Path("copy", "0.monitor.csv").read_bytes()
    for manifest in Path("copy").glob("*.json"):
        manifest.with_suffix(".zip").write_bytes(b"")
    status, printed = run("train", "--resume", "copy")
    assert status == 2 and printed.startswith("sb3-mirl train: copy cannot be resumed: folder must hold an undamaged")
    assert printed.count("\n") == 1 and Path("copy", "0.monitor.csv").read_bytes() == monitor
    with pytest.warns(UserWarning, match=rf"{manifests[-1].name} is not what was written.*going on with"):
        assert main(command("--resume")) == 0
    same(content(whole / RUN), content(RUN))


def test_settings_that_do_not_fit_the_checkpoint_are_refused(in_half, run):
    with (RUN / ENV / "config.yml").open("a") as file:
        file.write("  - - frame_stack\n    - 2\n")
    status, printed = run("train", "--resume", str(RUN))
    assert status == 2 and printed.startswith(f"sb3-mirl train: {RUN} cannot be resumed: Observation spaces do not match")
    (RUN / ENV / "config.yml").write_text("- 1\n")
    status, printed = run("train", "--resume", str(RUN))
    assert (status, printed) == (2, f"sb3-mirl train: {RUN / ENV / 'config.yml'} must hold settings, got [1]\n")
    (RUN / ENV / "config.yml").write_text("[" * 20_000)
    status, printed = run("train", "--resume", str(RUN))
    place = f"{RUN / ENV / 'config.yml'}:1"
    assert (status, printed) == (2, f"sb3-mirl train: {place}: must not be nested deeper than 50 levels\n")
    (RUN / ENV / "config.yml").write_text('"\\e[2J": 1')
    status, printed = run("train", "--resume", str(RUN), "-params", "tau:1")
    assert status == 2 and "\x1b" not in printed and printed.count("\n") == 1


def test_code_in_the_settings_of_a_resumed_run_is_evaluated_once(here, run, monkeypatch):
    code = "[open('{}', 'a').write('x'), {}][1]"
    Path("my.yml").write_text(
        f'{ENV}:\n  n_timesteps: 400\n  policy: MlpPolicy\n  policy_kwargs: "{code.format("file", "dict(net_arch=[16])")}"\n'
    )
    line = ["train", "--algo", "mirl", "--env", ENV, "-conf", "my.yml", "-f", "logs", "--save-freq", "100", "--resume"]
    line += ["-params", f"tau:{code.format('given', 0.5)}"]
    interrupted([*line, "--eval-freq", "50"], 250, monkeypatch)
    assert Path("file").read_text() == Path("given").read_text() == "x"
    assert run(*line)[0] == 0
    assert Path("file").read_text() == Path("given").read_text() == "xx"


def test_help_names_our_options(run):
    status, printed = run("train", "--help")
    assert status == 0 and "--resume [FOLDER]" in printed and "--keep-checkpoints K" in printed


def test_keep_checkpoints(here, run):
    assert main(command("--keep-checkpoints", "1", "--eval-freq", "-1", "-n", "700", algo="sql")) == 0
    (model,) = Path("logs", "sql", f"{ENV}_1").glob("rl_model_*_steps.zip")
    assert SQL.load(model).num_timesteps == 704
    enjoy = ["enjoy", "--algo", "sql", "--env", ENV, "-f", "logs", "--no-render", "-n", "20"]
    assert main([*enjoy, "--load-checkpoint", "704"]) == 0 and main([*enjoy, "--load-last-checkpoint"]) == 0
    status, printed = run(*command("--keep-checkpoints", "0"))
    assert status == 2 and "argument --keep-checkpoints: must be a positive integer, got 0" in printed


def test_other_algorithms_use_the_checkpoints_of_sb3(here):
    assert main(command("--eval-freq", "-1", algo="dqn")) == 0
    folder = Path("logs", "dqn", f"{ENV}_1")
    assert not list(folder.glob("*.json")) and len(list(folder.glob("rl_model_*_steps.zip"))) == 4
    assert "keep_checkpoints" not in (folder / ENV / "args.yml").read_text()
