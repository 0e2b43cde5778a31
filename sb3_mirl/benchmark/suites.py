"""
What is compared: :data:`SUITES`, sets of environments with the steps, the evaluation and the seeds that go with them.

A suite is plain data, and a new one an entry of :data:`SUITES`. How each algorithm is set up stands in the files of
hyper-parameters. The rule there: what algorithms share (network, learning rate, buffer, schedule of ε, ...) is equal in the
suites ``gridworld``, ``minatar`` and ``atari19`` and their short versions, where nothing was tuned for any of them. In
``classic`` ``dqn`` and ``qrdqn`` have the settings that rl-zoo3 ships, which were tuned for them. Ours have the same on
MountainCar and (but for ``learning_starts``) LunarLander, and on CartPole and Acrobot those that were tuned for ours.
The number of environment steps is the same for all. The loss is each algorithm's own: SB3's DQN has Huber's, ours the squared
error.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Of the paper's Table 1
ATARI19 = (
    "Alien",
    "Assault",
    "Asterix",
    "Asteroids",
    "BankHeist",
    "BeamRider",
    "Boxing",
    "ChopperCommand",
    "DemonAttack",
    "Gopher",
    "Kangaroo",
    "Krull",
    "KungFuMaster",
    "Riverraid",
    "RoadRunner",
    "Seaquest",
    "SpaceInvaders",
    "StarGunner",
    "UpNDown",
)
ATARI19_IDS = tuple(f"{game}NoFrameskip-v4" for game in ATARI19)
MINATAR_IDS = tuple(f"MinAtar/{game}-v1" for game in ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders"))


@dataclass(frozen=True)
class Suite:
    """
    :param name: of the suite
    :param steps: environment steps of the training, by the environment's id; a step of an Atari game is four frames
    :param epsilon: ε of the evaluation, after the training. The random action is drawn from ρ by MIRL and SQL_m, uniformly by
        SQL and by SB3's algorithms with an ε; an algorithm without one acts by its own stochastic policy
    :param episodes: of the evaluation; scores are those of whole games, with rewards as they are
    :param algorithms: those that are compared unless others are asked for, as rl-zoo3 names them
    :param seeds: how many, unless another number is asked for
    :param packages: modules that register the environments when they are imported
    :param hyperparams: in place of those in the files, for every algorithm whose constructor has all of them: DQN and its
        relatives. Others, such as PPO, keep rl-zoo3's
    :param own_hyperparams: the same for one algorithm, by its name
    """

    name: str
    steps: Mapping[str, int]
    epsilon: float
    episodes: int = 30
    algorithms: tuple[str, ...] = ("dqn", "sql", "sql_m", "mirl")
    seeds: int = 5
    packages: tuple[str, ...] = ()
    hyperparams: Mapping[str, Any] = field(default_factory=dict)
    own_hyperparams: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def _faster(prior_lr: float, beta_lr: float) -> dict[str, dict[str, float]]:
    """For a short version of a suite: α_ρ and α_β for those algorithms that have one."""
    return {
        "sql": {"beta_lr": beta_lr},
        "sql_m": {"prior_lr": prior_lr, "beta_lr": beta_lr},
        "mirl": {"prior_lr": prior_lr, "beta_lr": beta_lr},
    }


_ALL = (
    # ε as in the paper's evaluation of tables
    Suite(
        "gridworld", dict.fromkeys(("MIRLCorridor-v0", "MIRLWideCorridor-v0", "MIRLSquare-v0"), 30_000), epsilon=0.05, seeds=10
    ),
    # The larger of rl-zoo3's and our n_timesteps
    Suite(
        "classic",
        {"CartPole-v1": 50_000, "Acrobot-v1": 100_000, "MountainCar-v0": 120_000, "LunarLander-v3": 100_000},
        epsilon=0.0,
        seeds=10,
    ),
    # Steps of Young and Tian, MinAtar, 2019
    Suite("minatar", dict.fromkeys(MINATAR_IDS, 5_000_000), epsilon=0.05, packages=("sb3_mirl.minatar",)),
    # For those who have an evening and two cores. ε falls for 20,000 steps; α_ρ and α_β are faster by the number of steps that
    # a run of `minatar` has more
    Suite(
        "minatar-200k",
        dict.fromkeys(MINATAR_IDS, 200_000),
        epsilon=0.05,
        packages=("sb3_mirl.minatar",),
        hyperparams={"exploration_fraction": 0.1},
        own_hyperparams=_faster(5e-5, 8e-5),
    ),
    # 30 episodes with ε = 0.05 is how Mnih et al. 2015 evaluate, whose human scores the paper's table is normalised with; the
    # paper's own ε and number of steps are not known
    Suite("atari19", dict.fromkeys(ATARI19_IDS, 10_000_000), epsilon=0.05, seeds=3, packages=("ale_py",)),
    # The paper's settings would hardly learn in so few steps: these go towards data-efficient DQN (van Hasselt, Hessel and
    # Aslanides, 2019), with one-step returns
    Suite(
        "atari19-100k",
        dict.fromkeys(ATARI19_IDS, 100_000),
        epsilon=0.05,
        packages=("ale_py",),
        hyperparams={
            "buffer_size": 100_000,
            "learning_rate": 1e-4,
            "learning_starts": 1600,
            "target_update_interval": 2000,
            "train_freq": 1,
        },
        # Faster by the number of steps (100) and of updates (25) that a run of `atari19` has more
        own_hyperparams=_faster(2e-4, 8e-5),
    ),
)
#: By name
SUITES = {suite.name: suite for suite in _ALL}
