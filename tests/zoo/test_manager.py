"""The search of hyper-parameters, and training with what it found."""

from pathlib import Path

import gymnasium as gym
import optuna
import pytest
import torch as th
import yaml
from rl_zoo3.hyperparams_opt import sample_dqn_params
from stable_baselines3.common.envs import BitFlippingEnv
from zoo_train import ENV, train

from sb3_mirl import MIRL
from sb3_mirl.mirl import regularized
from sb3_mirl.zoo.command import main


@pytest.mark.parametrize("algo", ["mirl", pytest.param("sql", marks=pytest.mark.slow)])
def test_optimize_then_train_the_best_trial(algo, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    study_arguments = ["--storage", "sqlite:///study.db", "--study-name", "test"]
    train("-optimize", "--n-trials", "2", "--n-evaluations", "1", "--sampler", "random", "--pruner", "none", *study_arguments,
          "-params", "learning_starts:50", algo=algo)  # fmt: skip
    study = optuna.load_study(study_name="test", storage="sqlite:///study.db")
    names = set(study.best_trial.params)
    assert {"beta_schedule", "beta_scale", "beta_init", "beta_lr", "beta_max", "loss", "learning_rate"} <= names and (
        "prior_lr" in names
    ) == (algo != "sql")
    # The search leaves no run that `enjoy` would take for the latest
    assert not list(Path("logs", algo).glob(f"{ENV}_*"))
    for trial in study.trials:
        train(*study_arguments, "--trial-id", str(trial.number), algo=algo, steps=100)
        config = yaml.load(
            Path(f"logs/{algo}/{ENV}_{trial.number + 1}/{ENV}/config.yml").read_text(), Loader=yaml.UnsafeLoader
        )
        assert dict(config)["beta_init"] == trial.params["beta_init"]
    assert main(["enjoy", "--algo", algo, "--env", ENV, "-f", "logs", "--no-render", "-n", "50"]) == 0
    capsys.readouterr()
    for arguments, message in (
        ([*study_arguments, "--trial-id", "2"], "--trial-id must be a trial of study 'test', from 0 to 1, got 2"),
        ([*study_arguments, "--trial-id", "-1"], "--trial-id must be a trial of study 'test', from 0 to 1, got -1"),
        ([*study_arguments[:3], "no", "--trial-id", "0"], "--study-name must be a study in sqlite:///study.db, got 'no'"),
        (["--trial-id", "1"], "--trial-id needs --storage and --study-name, which name its study"),
    ):
        assert main(["train", "--algo", algo, "--env", ENV, "-n", "50", *arguments]) == 2
        assert capsys.readouterr().err == f"sb3-mirl train: {message}\n"


def test_optimize_dqn_mse_samples_the_hyperparameters_of_dqn(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train("-optimize", "--n-trials", "1", "--n-evaluations", "1", "--sampler", "random", "--pruner", "none", "--storage",
          "sqlite:///study.db", "--study-name", "test", "--no-optim-plots", "-params", "learning_starts:50",
          algo="dqn_mse")  # fmt: skip
    (trial,) = optuna.load_study(study_name="test", storage="sqlite:///study.db").trials
    dqn_trial = optuna.create_study().ask()
    sample_dqn_params(dqn_trial, 0, 1, {"using_her_replay_buffer": False})
    assert trial.params.keys() == dqn_trial.params.keys()


@pytest.mark.parametrize("suffix", ["yml", "py"])
def test_a_search_for_the_network_leaves_other_policy_kwargs_as_they_are(suffix, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made, construct = [], MIRL.__init__

    def record(self, *args, **kwargs):
        if "env" in kwargs:  # not where the hyper-parameters are checked
            made.append(kwargs["policy_kwargs"])
        construct(self, *args, **kwargs)

    monkeypatch.setattr(MIRL, "__init__", record)
    settings = {"n_timesteps": 300, "policy": "MlpPolicy", "learning_starts": 50}
    if suffix == "yml":
        settings["policy_kwargs"] = "dict(net_arch=[7], activation_fn=nn.Tanh)"
        Path("tanh.yml").write_text(yaml.safe_dump({"CartPole-v1": settings}))
    else:
        kwargs = "dict(policy_kwargs=dict(net_arch=[7], activation_fn=nn.Tanh))"
        Path("tanh.py").write_text(f"from torch import nn\nhyperparams = {{'CartPole-v1': {settings} | {kwargs}}}\n")
    study = ["--conf-file", f"tanh.{suffix}", "--storage", "sqlite:///study.db", "--study-name", "test"]
    search = ["-optimize", "--n-trials", "1", "--n-evaluations", "1", "--sampler", "random", "--pruner", "none"]
    train(*search, *study, "--no-optim-plots")
    train(*study, "--trial-id", "0", steps=60)
    sampled, trained = made
    assert sampled == trained and sampled["activation_fn"] is th.nn.Tanh and sampled["net_arch"] != [7]
    # The command line has precedence
    train(*study, "--trial-id", "0", "-params", "policy_kwargs:dict(net_arch=[8])", steps=60)
    assert made[-1]["net_arch"] == [8]


@pytest.mark.slow
def test_the_best_trial_of_a_search_with_hindsight_is_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gym.register("BitFlipping-v0", lambda: BitFlippingEnv(n_bits=4, continuous=False, max_steps=4))
    settings = {"n_timesteps": 300, "policy": "MultiInputPolicy", "learning_starts": 50}
    settings |= {"replay_buffer_class": "HerReplayBuffer", "replay_buffer_kwargs": "dict(copy_info_dict=True)"}
    Path("her.yml").write_text(yaml.safe_dump({"BitFlipping-v0": settings}))
    study = ["--conf-file", "her.yml", "--storage", "sqlite:///study.db", "--study-name", "test", "-params", "gamma:0.9"]
    search = ["-optimize", "--n-trials", "1", "--n-evaluations", "1", "--sampler", "random", "--pruner", "none"]
    try:
        train(*search, *study, "--no-optim-plots", env="BitFlipping-v0")
        train(*study, "--trial-id", "0", env="BitFlipping-v0", steps=60)
        model = MIRL.load("logs/mirl/BitFlipping-v0_1/BitFlipping-v0.zip", env="BitFlipping-v0")
    finally:
        del gym.registry["BitFlipping-v0"]
    (trial,) = optuna.load_study(study_name="test", storage="sqlite:///study.db").trials
    names = ("n_sampled_goal", "goal_selection_strategy")
    assert model.replay_buffer_kwargs == {"copy_info_dict": True, **{name: trial.params[name] for name in names}}


def test_a_search_takes_no_trained_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train("--eval-freq", "-1", steps=60)
    file = f"logs/mirl/{ENV}_1/{ENV}.zip"
    assert main(["train", "--algo", "mirl", "--env", ENV, "-optimize", "-i", file]) == 2
    assert f"-optimize searches with new models, and does not take -i, got '{file}'" in capsys.readouterr().err


def test_priors_that_see_something_are_kept_while_others_are_optimized(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made, make = [], regularized.make_state_prior
    monkeypatch.setattr(regularized, "make_state_prior", lambda *args: made.append(args[:2]) or make(*args))
    search = ["-optimize", "--n-trials", "1", "--n-evaluations", "1", "--sampler", "random", "--pruner", "none"]
    kind = ["learning_starts:50", "prior_type:'conditional'", "prior_observation:[0]"]
    train(*search, "--no-optim-plots", "-params", *kind)
    assert made and set(map(str, made)) == {"('conditional', [0])"}
