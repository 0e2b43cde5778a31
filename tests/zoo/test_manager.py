"""The search of hyper-parameters, and training with what it found."""

from pathlib import Path

import optuna
import pytest
import torch as th
import yaml
from rl_zoo3.hyperparams_opt import sample_dqn_params
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
        (["--trial-id", "1"], "--trial-id needs --storage and --study-name, to say of which study it is"),
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


def test_priors_that_see_something_are_kept_while_others_are_optimized(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made, make = [], regularized.make_state_prior
    monkeypatch.setattr(regularized, "make_state_prior", lambda *args: made.append(args[:2]) or make(*args))
    search = ["-optimize", "--n-trials", "1", "--n-evaluations", "1", "--sampler", "random", "--pruner", "none"]
    kind = ["learning_starts:50", "prior_type:'conditional'", "prior_observation:[0]"]
    train(*search, "--no-optim-plots", "-params", *kind)
    assert made and set(map(str, made)) == {"('conditional', [0])"}
