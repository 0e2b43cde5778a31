"""Suites, and the files of hyper-parameters that they use."""

import inspect

import ale_py
import pytest
import rl_zoo3
import yaml
from ale_py import roms

from sb3_mirl.bench.experiment import check_pair, register_suite
from sb3_mirl.bench.suites import ATARI_FULL_IDS, MINATAR_IDS, SUITES
from sb3_mirl.cli.main import main
from sb3_mirl.zoo.register import ALGORITHMS, hyperparams_file


def test_algorithms_share_their_hyperparameters():
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


# The useless actions of classic control have no sections of their own, and the sections of MinAtar's games do not differ
@pytest.mark.parametrize(("name", "n_sections"), [("classic-actions", 4), ("minatar-actions", 1)])
def test_settings_with_useless_actions_are_equal(name, n_sections):
    suite = SUITES[name]
    register_suite(suite)
    *envs, last = suite.steps
    reference = check_pair(suite, "dqn_mse", last)
    for algorithm in filter(rl_zoo3.ALGOS.__contains__, suite.algorithms):
        settings, *others = [check_pair(suite, algorithm, env) for env in (last, *envs[:n_sections])]
        assert others == [settings] * n_sections
        own = suite.own_hyperparams.get(algorithm, {})
        assert own.items() <= settings.items()
        if algorithm != "dqn":
            loss = inspect.signature(rl_zoo3.ALGOS[algorithm]).parameters["loss"].default
            assert settings.get("loss", loss) == "mse"
        shared = (suite.hyperparams.keys() | settings.keys() & reference.keys()) - {*own, "learning_rate"}
        assert {key: settings[key] for key in shared} == {key: reference[key] for key in shared}


def test_full_action_set_adds_actions():
    for env in ATARI_FULL_IDS:
        emulator = ale_py.ALEInterface()
        emulator.loadROM(roms.get_rom_path({"UpNDownNoFrameskip-v4": "up_n_down"}.get(env, env.split("No")[0].lower())))
        assert len(emulator.getMinimalActionSet()) < len(emulator.getLegalActionSet()) == 18


@pytest.mark.parametrize("algorithm", ["dqn", "qrdqn"])
@pytest.mark.parametrize("env", ["MIRLSquare-v0", "MinAtar/Freeway-v1", "BoxingNoFrameskip-v4"])
def test_hyperparameter_files_of_other_algorithms_train(algorithm, env, tmp_path):
    command = ["train", "--algo", algorithm, "--env", env, "-n", "120", "-f", str(tmp_path), "--eval-freq", "-1"]
    command += ["--conf-file", str(hyperparams_file(algorithm)), "--gym-packages", "sb3_mirl.envs.minatar"]
    assert main([*command, "-params", "buffer_size:500", "learning_starts:50"]) == 0
    assert len(list(tmp_path.glob(f"{algorithm}/*/*.zip"))) == 1
