"""
What is compared: :data:`SUITES`, sets of environments with the steps, the evaluation and the seeds that go with them.

A suite is plain data, and a new one an entry of :data:`SUITES`. How each algorithm is set up stands in the files of
hyper-parameters, and :attr:`Suite.tuning` says where those come from: reports repeat it. The number of environment steps is
the same for all. The loss is each algorithm's own: SB3's DQN has Huber's, ours the squared error.
"""

from collections.abc import Iterable, Mapping
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


#: How people write the names of algorithms, in the order of reports; others come after them
LABELS = {"dqn": "DQN", "qrdqn": "QR-DQN", "sql": "SQL", "sql_m": "SQL_m", "mirl": "MIRL"}


def label(algorithm: str) -> str:
    """:data:`LABELS`, or the name that the algorithm has in the zoo."""
    return LABELS.get(algorithm, algorithm.upper())


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
    :param extra: of this package, for the environments: ``pip install 'sb3-mirl[extra]'``
    :param tuning: by algorithm, where its hyper-parameters come from and what they were tuned for. Whoever changes a file of
        hyper-parameters changes this, too
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
    # These do not decide whether two suites have comparable results
    extra: str = field(default="", compare=False)
    tuning: Mapping[str, str] = field(default_factory=dict, compare=False)

    def tuning_of(self, algorithm: str) -> str:
        """:attr:`tuning`, or what holds of the algorithms that it does not name."""
        if not self.tuning:
            return "the folder does not say what they were tuned for"
        return self.tuning.get(algorithm, "rl-zoo3's settings")


def tuning_lines(suite: Suite, algorithms: Iterable[str]) -> list[str]:
    """
    :param suite: of a benchmark
    :param algorithms: that take part
    :return: where the hyper-parameters of each come from, one line for all of which the same holds
    """
    sources: dict[str, list[str]] = {}
    for algorithm in dict.fromkeys(algorithms):
        sources.setdefault(suite.tuning_of(algorithm), []).append(label(algorithm))
    return [f"hyper-parameters of {', '.join(names)}: {source}" for source, names in sources.items()]


def _faster(prior_lr: float, beta_lr: float) -> dict[str, dict[str, float]]:
    """For a short version of a suite: α_ρ and α_β for those algorithms that have one."""
    return {
        "sql": {"beta_lr": beta_lr},
        "sql_m": {"prior_lr": prior_lr, "beta_lr": beta_lr},
        "mirl": {"prior_lr": prior_lr, "beta_lr": beta_lr},
    }


_ALIKE = dict.fromkeys(
    ("dqn", "qrdqn", "sql", "sql_m", "mirl"), "what the algorithms share is alike, and tuned for none of them"
)
_OURS_IN_CLASSIC = (
    "CartPole-v1, Acrobot-v1: tuned by hand for these three, on some of the seeds. "
    "MountainCar-v0, LunarLander-v3: rl-zoo3's settings of DQN (LunarLander-v3 with learning_starts 1000 in place of 0), "
    "not tuned for these three"
)
_TUNING_IN_CLASSIC = {
    **dict.fromkeys(("dqn", "qrdqn"), "rl-zoo3's settings, which its authors tuned for this algorithm"),
    **dict.fromkeys(("sql", "sql_m", "mirl"), _OURS_IN_CLASSIC),
}

_ALL = (
    # ε as in the paper's evaluation of tables
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
    # For those who have an evening and two cores. ε falls for 20,000 steps; α_ρ and α_β are faster by the number of steps that
    # a run of `minatar` has more
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
    # 30 episodes with ε = 0.05 is how Mnih et al. 2015 evaluate, whose human scores the paper's table is normalised with; the
    # paper's own ε and number of steps are not known
    Suite(
        "atari19",
        dict.fromkeys(ATARI19_IDS, 10_000_000),
        epsilon=0.05,
        seeds=3,
        packages=("ale_py",),
        extra="atari",
        tuning=_ALIKE,
    ),
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
        extra="atari",
        tuning=_ALIKE,
    ),
)
#: By name
SUITES = {suite.name: suite for suite in _ALL}
