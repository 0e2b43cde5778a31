"""Registration, samplers and files of hyper-parameters."""

import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import rl_zoo3
import yaml
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
from zoo_train import ENV

import sb3_mirl.zoo
from sb3_mirl import MDQN, MIRL
from sb3_mirl.bench.suites import MINATAR_IDS, USELESS_MINATAR_IDS
from sb3_mirl.common.dqn import DQNMSE, BaseDQN
from sb3_mirl.envs.gridworld import GRID_WORLDS
from sb3_mirl.zoo.register import ALGORITHMS, hyperparams_file, register

OURS = sorted(ALGORITHMS)


def test_register_is_a_function_of_the_package():
    assert sb3_mirl.zoo.register is register and callable(register)


def test_algorithms_are_those_of_the_package():
    assert all(issubclass(algorithm, BaseDQN) for algorithm in ALGORITHMS.values())
    assert ALGORITHMS["dqn_mse"] is DQNMSE and ALGORITHMS["dqn_mse"]("MlpPolicy", ENV).loss == "mse"


def test_dqn_mse_has_the_hyperparameters_of_dqn():
    """Those of our file for DQN and, if it has none for an environment, those of rl-zoo3."""
    files = [Path(rl_zoo3.__file__).parent / "hyperparams" / "dqn.yml", hyperparams_file("dqn"), hyperparams_file("dqn_mse")]
    theirs, ours, with_mse = (yaml.safe_load(file.read_text()) for file in files)
    assert with_mse == {**theirs, **ours}


def test_sql_decoupled_has_the_hyperparameters_of_sql():
    ours, theirs = (yaml.safe_load(hyperparams_file(name).read_text()) for name in ("sql_decoupled", "sql"))
    assert ours == theirs


def test_mdqn_has_the_hyperparameters_of_dqn():
    ours, dqns = (yaml.safe_load(hyperparams_file(algo).read_text()) for algo in ("mdqn", "dqn_mse"))
    assert ours == dqns


def test_second_registration_changes_nothing():
    register()
    before = dict(rl_zoo3.ALGOS)
    register()
    assert dict(rl_zoo3.ALGOS) == before
    assert set(OURS) <= set(before) and {"dqn", "ppo", "qrdqn"} <= set(before)


def test_import_registers_only_grid_worlds_and_useless_actions():
    code = """
import gymnasium
before = set(gymnasium.registry)
import sb3_mirl
ours = {*sb3_mirl.envs.gridworld.GRID_WORLDS, "MIRLFourRooms-v0", "MIRLFourRoomsGoals-v0"}
new = set(gymnasium.registry) - before
assert {env for env in new if not env.startswith(("Useless15/", "Useless63/", "Useless12/MinAtar-"))} == ours
assert len(new - ours) == 13
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("algo", OURS)
def test_sampled_hyperparameters_build_a_model_and_convert_back(algo):
    register()
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    sampled = HYPERPARAMS_SAMPLER[algo](trial, 0, 1, {"using_her_replay_buffer": False})
    model = ALGORITHMS[algo]("MlpPolicy", ENV, **sampled)
    assert model.learning_rate == trial.params["learning_rate"]
    if isinstance(model, MIRL):
        assert model.beta_lr == trial.params["beta_lr"] and model.loss == trial.params["loss"]
    if isinstance(model, MDQN):
        assert model.munchausen_alpha == trial.params["munchausen_alpha"]
        assert model.entropy_temperature == trial.params["entropy_temperature"]
    assert HYPERPARAMS_CONVERTER[algo](trial.params).keys() == sampled.keys()


@pytest.mark.parametrize("algo", OURS)
def test_shipped_files_name_the_same_environments(algo):
    names = list(yaml.safe_load(hyperparams_file(algo).read_text()))
    classic = ["CartPole-v1", "Acrobot-v1", "MountainCar-v0", "LunarLander-v3"]
    assert names == ["default", "atari", *classic, *GRID_WORLDS, *MINATAR_IDS, *USELESS_MINATAR_IDS]
