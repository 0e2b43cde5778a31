"""Suites, and the files of hyper-parameters that they use."""

import pytest
import yaml

from sb3_mirl.bench.suites import MINATAR_IDS, SUITES
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


@pytest.mark.parametrize("algorithm", ["dqn", "qrdqn"])
@pytest.mark.parametrize("env", ["MIRLSquare-v0", "MinAtar/Freeway-v1", "BoxingNoFrameskip-v4"])
def test_hyperparameter_files_of_other_algorithms_train(algorithm, env, tmp_path):
    command = ["train", "--algo", algorithm, "--env", env, "-n", "120", "-f", str(tmp_path), "--eval-freq", "-1"]
    command += ["--conf-file", str(hyperparams_file(algorithm)), "--gym-packages", "sb3_mirl.envs.minatar"]
    assert main([*command, "-params", "buffer_size:500", "learning_starts:50"]) == 0
    assert len(list(tmp_path.glob(f"{algorithm}/*/*.zip"))) == 1
