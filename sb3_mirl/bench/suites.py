"""
:data:`SUITES`: sets of environments with the number of training steps, the evaluation and the seeds.

A suite is plain data; a new suite is a new entry of :data:`SUITES`. Algorithms are configured by the files of
hyper-parameters, and :attr:`Suite.tuning` says where those come from. All algorithms have the same number of environment
steps. Each has its own loss: SB3's DQN has Huber's, ours the squared error. ``dqn_mse`` is DQN with the squared error.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

#: The games of the paper's Table 1
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


#: Names of algorithms in reports, in the reports' order; other algorithms follow
LABELS = {"dqn": "DQN", "dqn_mse": "DQN_mse", "qrdqn": "QR-DQN", "sql": "SQL", "sql_m": "SQL_m", "mirl": "MIRL"}


def label(algorithm: str) -> str:
    """
    :param algorithm: as rl-zoo3 names it, such as ``"sql_m"``
    :return: its name in reports
    """
    return LABELS.get(algorithm, algorithm.upper())


@dataclass(frozen=True)
class Suite:
    """
    :param name: of the suite
    :param steps: environment steps of the training, by the environment's id; a step of an Atari game is four frames
    :param epsilon: ε of the evaluation, after the training. MIRL and SQL_m draw the random action from ρ, SQL and SB3's
        algorithms with an ε draw it uniformly; an algorithm without ε acts by its stochastic policy
    :param episodes: of the evaluation; scores are sums of unclipped rewards over whole games
    :param algorithms: compared by default, as rl-zoo3 names them
    :param seeds: number of seeds by default
    :param packages: modules that register the environments when they are imported
    :param hyperparams: override those of the files, for every algorithm whose constructor has all of them (DQN and its
        variants). Others, such as PPO, keep rl-zoo3's
    :param own_hyperparams: override those of one algorithm, by its name
    :param extra: of this package that installs the environments: ``pip install 'sb3-mirl[extra]'``
    :param tuning: by algorithm: where its hyper-parameters come from and what they were tuned for. To be kept up to date
        with the files of hyper-parameters
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
    # Results of suites that differ in these only are comparable
    extra: str = field(default="", compare=False)
    tuning: Mapping[str, str] = field(default_factory=dict, compare=False)

    def tuning_of(self, algorithm: str) -> str:
        """:attr:`tuning` of an algorithm, with a default for those that it does not name."""
        if not self.tuning:
            return "the folder does not say what they were tuned for"
        return self.tuning.get(algorithm, "rl-zoo3's settings")


def tuning_lines(suite: Suite, algorithms: Iterable[str]) -> list[str]:
    """
    :param suite: of a benchmark
    :param algorithms: of the benchmark
    :return: where hyper-parameters come from; algorithms with the same source share a line
    """
    sources: dict[str, list[str]] = {}
    for algorithm in dict.fromkeys(algorithms):
        sources.setdefault(suite.tuning_of(algorithm), []).append(label(algorithm))
    return [f"hyper-parameters of {', '.join(names)}: {source}" for source, names in sources.items()]


def _faster(prior_lr: float, beta_lr: float) -> dict[str, dict[str, float]]:
    """α_ρ and α_β for a short version of a suite, by algorithm."""
    return {
        "sql": {"beta_lr": beta_lr},
        "sql_m": {"prior_lr": prior_lr, "beta_lr": beta_lr},
        "mirl": {"prior_lr": prior_lr, "beta_lr": beta_lr},
    }


_ALIKE = dict.fromkeys(
    ("dqn", "dqn_mse", "qrdqn", "sql", "sql_m", "mirl"), "what the algorithms share is alike, and tuned for none of them"
)
_OURS_IN_CLASSIC = (
    "CartPole-v1, Acrobot-v1: tuned by hand for these three, on some of the seeds. "
    "MountainCar-v0, LunarLander-v3: rl-zoo3's settings of DQN (LunarLander-v3 with learning_starts 1000 in place of 0), "
    "not tuned for these three"
)
_TUNING_IN_CLASSIC = {
    **dict.fromkeys(("dqn", "qrdqn"), "rl-zoo3's settings, which its authors tuned for this algorithm"),
    "dqn_mse": "rl-zoo3's settings of DQN, which its authors tuned with Huber's loss",
    **dict.fromkeys(("sql", "sql_m", "mirl"), _OURS_IN_CLASSIC),
}

_ALL = (
    # ε of the paper's evaluation of tabular learners
    Suite(
        "gridworld",
        dict.fromkeys(("MIRLCorridor-v0", "MIRLWideCorridor-v0", "MIRLSquare-v0"), 30_000),
        epsilon=0.05,
        seeds=10,
        tuning=_ALIKE,
    ),
    # The larger of rl-zoo3's and our n_timesteps
    Suite(
        "classic",
        {"CartPole-v1": 50_000, "Acrobot-v1": 100_000, "MountainCar-v0": 120_000, "LunarLander-v3": 100_000},
        epsilon=0.0,
        seeds=10,
        extra="box2d",
        tuning=_TUNING_IN_CLASSIC,
    ),
    # Steps of Young and Tian, MinAtar, 2019
    Suite(
        "minatar",
        dict.fromkeys(MINATAR_IDS, 5_000_000),
        epsilon=0.05,
        packages=("sb3_mirl.envs.minatar",),
        extra="minatar",
        tuning=_ALIKE,
    ),
    # An evening on two cores. ε falls for 20,000 steps; α_ρ and α_β are larger by the ratio of the steps of `minatar` to these
    Suite(
        "minatar-200k",
        dict.fromkeys(MINATAR_IDS, 200_000),
        epsilon=0.05,
        packages=("sb3_mirl.envs.minatar",),
        hyperparams={"exploration_fraction": 0.1},
        own_hyperparams=_faster(5e-5, 8e-5),
        extra="minatar",
        tuning=_ALIKE,
    ),
    # Mnih et al. 2015, by whose human scores the paper's table is normalised, evaluate 30 episodes with ε = 0.05; the paper
    # does not state its ε and its number of steps
    Suite(
        "atari19",
        dict.fromkeys(ATARI19_IDS, 10_000_000),
        epsilon=0.05,
        seeds=3,
        packages=("ale_py",),
        extra="atari",
        tuning=_ALIKE,
    ),
    # The paper's settings hardly learn in so few steps. These are closer to data-efficient DQN (van Hasselt, Hessel and
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
        # A run of `atari19` has 100 times the steps and 25 times the updates
        own_hyperparams=_faster(2e-4, 8e-5),
        extra="atari",
        tuning=_ALIKE,
    ),
)
#: All suites by name
SUITES = {suite.name: suite for suite in _ALL}
