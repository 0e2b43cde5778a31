"""The zoo's ``train`` with few and cheap steps, and what our hyper-parameter files hold."""

import yaml

from sb3_mirl.zoo.command import main
from sb3_mirl.zoo.register import ALGORITHMS, hyperparams_file

ENV = "CartPole-v1"


def train(*arguments, algo="mirl", env=ENV, steps=300):
    """Train into ``logs`` of the current folder, with a status of 0."""
    fast = ["--num-threads", "1", "--verbose", "0", "-params", "learning_starts:50", "train_freq:50", "gradient_steps:2"]
    command = ["train", "--algo", algo, "--env", env, "-n", str(steps), "-f", "logs", "--eval-freq", "150", "--seed", "1"]
    assert main([*command, *(fast if "-params" not in arguments else []), *arguments]) == 0


def shipped_configurations():
    """``(algorithm, section, hyper-parameters)`` of all sections of our files."""
    for algo in sorted(ALGORITHMS):
        for name, hyperparams in yaml.safe_load(hyperparams_file(algo).read_text()).items():
            yield algo, name, hyperparams
