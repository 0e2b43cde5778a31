"""Every command of ``sb3-mirl`` that rl-zoo3 has, for our algorithms and for the zoo's own."""

import os
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import pytest
import rl_zoo3
from zoo_train import ENV, shipped_configurations, train

from sb3_mirl import MIRL
from sb3_mirl.bench.suites import MINATAR_IDS
from sb3_mirl.cli.commands import OUR_COMMANDS, ZOO_COMMANDS
from sb3_mirl.cli.main import main as sb3_mirl
from sb3_mirl.zoo.command import COMMANDS, main
from sb3_mirl.zoo.register import ALGORITHMS, hyperparams_file

OURS = sorted(ALGORITHMS)


@pytest.mark.parametrize("env", ["MIRLCorridor-v0", "MIRLWideCorridor-v0", "MIRLSquare-v0"])
def test_grid_worlds_train(env, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(env=env, steps=200)
    (config,) = Path("logs").glob(f"mirl/{env}_1/{env}/config.yml")
    assert "policy" in config.read_text()


def test_help_version_and_unknown_commands(capsys):
    assert sb3_mirl(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in (*COMMANDS, *OUR_COMMANDS))
    assert tuple(COMMANDS) == tuple(ZOO_COMMANDS)
    assert sb3_mirl([]) == 2
    assert sb3_mirl(["--version"]) == 0 and f"rl-zoo3 {rl_zoo3.__version__}" in capsys.readouterr().out
    assert sb3_mirl(["fly"]) == 2
    assert "unknown command 'fly', choose one of train, enjoy" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        sb3_mirl(["plot_train", "--help"])


def test_control_characters_of_errors_are_escaped(monkeypatch, capsys):
    def fail(*args):
        raise RuntimeError("an environment's \x1b]0;title\x07 text")

    monkeypatch.setattr("sb3_mirl.zoo.command._run", fail)
    assert sb3_mirl(["train"]) == 1
    printed = capsys.readouterr().err
    assert "RuntimeError: an environment's \\x1b]0;title\\x07 text\n" in printed and "\x1b" not in printed


def test_ctrl_c_prints_no_traceback(monkeypatch, capsys):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("sb3_mirl.zoo.command._run", stop)
    assert sb3_mirl(["train"]) == 130
    assert capsys.readouterr().err == "\nInterrupted\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: sb3-mirl {command} ")


def test_module_and_console_script_print_the_same():
    printed = [
        subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for command in (
            [sys.executable, "-m", "sb3_mirl", "--version"],
            [str(Path(sys.executable).parent / "sb3-mirl"), "--version"],
        )
    ]
    assert printed[0] == printed[1]


@pytest.mark.parametrize("algo", [*OURS, "dqn"])
def test_train_writes_a_run_folder(algo, in_runs):
    run = in_runs / "logs" / algo / f"{ENV}_1"
    assert {f"{ENV}.zip", "best_model.zip", "evaluations.npz", "rl_model_150_steps.zip"} <= {
        file.name for file in run.iterdir()
    }
    assert rl_zoo3.ALGOS[algo].load(run / f"{ENV}.zip").num_timesteps >= 300


def test_train_takes_our_file_unless_another_is_given(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train(algo="sql", steps=60)
    assert f"Loading hyperparameters from: {hyperparams_file('sql')}" in capsys.readouterr().out
    Path("mine.yml").write_text(f"{ENV}:\n  policy: MlpPolicy\n  n_timesteps: 100\n  buffer_size: 123\n")
    for flag in (["--conf-file", "mine.yml"], ["-conf", "mine.yml"], ["--conf-file=mine.yml"]):
        train(*flag, steps=60)
        assert "Loading hyperparameters from: mine.yml" in capsys.readouterr().out
    train(algo="dqn", steps=60)
    assert str(Path("rl_zoo3", "hyperparams", "dqn.yml")) in capsys.readouterr().out


def test_trained_agent_is_trained_further(in_runs):
    trained = in_runs / "logs" / "mirl" / f"{ENV}_1" / f"{ENV}.zip"
    train("-i", str(trained), "-f", "continued")
    before, after = MIRL.load(trained), MIRL.load(in_runs / "continued" / "mirl" / f"{ENV}_1" / f"{ENV}.zip")
    assert after._n_updates > before._n_updates and (after.prior != before.prior).any()


@pytest.mark.parametrize("algo", [*OURS, "dqn"])
@pytest.mark.parametrize("which", ["", "--load-best", "--load-checkpoint 150", "--load-last-checkpoint", "--stochastic"])
def test_enjoy(algo, which, in_runs, capsys):
    assert main(["enjoy", "--algo", algo, "--env", ENV, "-f", "logs", "--no-render", "-n", "600", *which.split()]) == 0
    assert "Mean reward" in capsys.readouterr().out


@pytest.mark.parametrize("algo", ["mirl", "dqn"])
def test_record_video(algo, in_runs, tmp_path):
    command = ["record-video", "--algo", algo, "--env", ENV, "-f", "logs", "-n", "20", "-o", str(tmp_path)]
    assert main(command) == 0
    (video,) = tmp_path.glob("*.mp4")
    assert video.name.startswith(f"final-model-{algo}") and video.stat().st_size > 1000


def test_a_diverging_trial_is_pruned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def fail(self, *args, **kwargs):
        raise ValueError("The mse loss was nan")

    monkeypatch.setattr(MIRL, "train", fail)
    with pytest.raises(ValueError, match="No trials are completed"):
        train("-optimize", "--n-trials", "1", "--n-evaluations", "1", "--no-optim-plots")


def different_configurations():
    """
    Without repetitions, such as MinAtar's games of the same algorithm. Only the slow tests train those of algorithms but
    MIRL, except for their defaults.
    """
    different = {}
    for algo, name, hyperparams in shipped_configurations():
        different.setdefault((algo, str(hyperparams)), (algo, name))
    return [
        pytest.param(algo, name, marks=[pytest.mark.slow] * (algo != "mirl" and name != "default"))
        for algo, name in different.values()
    ]


@pytest.mark.parametrize("algo, name", different_configurations())
def test_every_shipped_configuration_trains(algo, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = {"default": "CliffWalking-v1", "atari": "BreakoutNoFrameskip-v4"}.get(name, name)
    steps = 320 if name not in ("atari", *MINATAR_IDS) else 80
    train("--eval-freq", "-1", "-params", "buffer_size:2000", "learning_starts:50", algo=algo, env=env, steps=steps)


@pytest.mark.parametrize("arguments", [["--env=MinAtar/Freeway-v1"], ["--env", "MinAtar/Freeway-v1"]])
def test_minatar_needs_no_gym_packages(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "sb3_mirl.envs.minatar", raising=False)
    for name in [name for name in gym.registry if name.startswith("MinAtar/")]:
        monkeypatch.delitem(gym.registry, name)
    assert main(["train", "--algo", "mirl", *arguments, "-conf", "missing.yml"]) == 2
    assert set(MINATAR_IDS) <= set(gym.registry)


def test_environments_with_useless_actions_train_and_play_without_gym_packages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train("--eval-freq", "-1", "-params", "buffer_size:200", "learning_starts:50", env="Useless15/CartPole-v1", steps=80)
    assert (tmp_path / "logs/mirl/Useless15-CartPole-v1_1/Useless15-CartPole-v1.zip").exists()
    for name in [name for name in gym.registry if name.startswith("Useless")]:
        monkeypatch.delitem(gym.registry, name)
    monkeypatch.delitem(sys.modules, "sb3_mirl.envs.useless_actions")
    assert main(["enjoy", "--algo", "mirl", "--env", "Useless15/CartPole-v1", "-f", "logs", "--no-render", "-n", "20"]) == 0


@pytest.mark.parametrize("command", ["enjoy", "record-video", "record-training"])
def test_a_missing_agent_is_reported_in_a_line(command, tmp_path, capsys):
    (tmp_path / "mirl").mkdir()
    assert main([command, "--algo", "mirl", "--env", ENV, "-f", str(tmp_path)]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"sb3-mirl {command}: No model found for mirl on {ENV}, path: ") and printed.count("\n") == 1


@pytest.mark.slow
def test_track_sends_rho_and_beta_to_weights_and_biases(tmp_path):
    pytest.importorskip("wandb")
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_CONFIG_DIR": str(tmp_path), "WANDB_CACHE_DIR": str(tmp_path)}
    arguments = ["train", "--algo", "mirl", "--env", ENV, "-n", "300", "--eval-freq", "-1", "--track", "--num-threads", "1"]
    arguments += ["-params", "learning_starts:50", "train_freq:50", "gradient_steps:2"]
    # A process of its own: wandb changes TensorBoard's writer for good
    command = [sys.executable, "-m", "sb3_mirl", *arguments]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    content = file.read_bytes()
    assert all(name in content for name in (b"prior/action_0", b"train/beta", b"train/kl", b"beta_schedule"))
