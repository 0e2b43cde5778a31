"""
:data:`SUITES`: sets of environments with the number of training steps, the evaluation and the seeds.

A suite is plain data; a new suite is a new entry of :data:`SUITES`. Algorithms are configured by the files of
hyper-parameters, and :attr:`Suite.tuning` says where those come from. All algorithms have the same number of environment
steps. ``dqn`` has the Huber loss; our algorithms have the squared error (``mdqn`` only where a suite says so). ``dqn_mse`` is
DQN with the squared error.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
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
#: Those of the paper's games that use 6 to 9 of the console's 18 actions. Nine of the 19 games use all of them
ATARI_FULL_IDS = tuple(f"{game}NoFrameskip-v4" for game in ("Assault", "Asterix", "Gopher", "UpNDown"))
MINATAR_IDS = tuple(f"MinAtar/{game}-v1" for game in ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders"))
CLASSIC_IDS = ("CartPole-v1", "Acrobot-v1", "MountainCar-v0", "LunarLander-v3")
#: With actions that do nothing, see :mod:`sb3_mirl.envs.useless_actions`
USELESS63_IDS = tuple(f"Useless63/{env}" for env in CLASSIC_IDS)
USELESS15_IDS = tuple(f"Useless15/{env}" for env in CLASSIC_IDS)
USELESS_MINATAR_IDS = tuple(f"Useless12/{env.replace('/', '-')}" for env in MINATAR_IDS)


#: Algorithms with a uniform ρ that never changes
FIXED_PRIORS = ("sql", "sql_decoupled")
#: Names of algorithms in reports, in the reports' order; other algorithms follow
LABELS = {
    "dqn": "DQN",
    "dqn_mse": "DQN_mse",
    "mdqn": "M-DQN",
    "qrdqn": "QR-DQN",
    "sql": "SQL",
    "sql_decoupled": "SQL_decoupled",
    "sql_m": "SQL_m",
    "mirl": "MIRL",
}


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
        variants); those that rl-zoo3 itself uses, such as ``env_wrapper``, do not count. Others, such as PPO, keep rl-zoo3's
    :param own_hyperparams: override those of one algorithm, by its name
    :param env_kwargs: arguments of the environments, for every algorithm
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
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    # Results of suites that differ in these only are comparable
    extra: str = field(default="", compare=False)
    tuning: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def is_atari(self) -> bool:
        """Whether the environments are Atari games."""
        return self.extra == "atari"

    def tuning_of(self, algorithm: str) -> str:
        """:attr:`tuning` of an algorithm, with a default for those that it does not name."""
        if not self.tuning:
            return "the folder does not say what they were tuned for"
        return self.tuning.get(algorithm, "rl-zoo3's settings")


@dataclass(frozen=True)
class Tuning:
    """
    How the algorithms of a suite are tuned, see :mod:`sb3_mirl.bench.tuning`.

    :param envs: of the suite
    :param share: of the suite's steps
    :param seeds: that the suite does not use
    :param trials: of each algorithm
    :param episodes: of the evaluation of each run
    """

    envs: tuple[str, ...]
    share: float = 0.25
    seeds: tuple[int, ...] = (1000, 1001, 1002)
    trials: int = 16
    episodes: int = 10

    def steps(self, suite: Suite, env: str) -> int:
        """Environment steps of a trial."""
        return round(self.share * suite.steps[env])


#: What is tuned of each algorithm: the names of settings, see :func:`constructor_arguments`. ``beta`` is ``beta_end`` or
#: ``beta_scale``
SETTINGS: dict[str, tuple[str, ...]] = {
    "dqn": ("learning_rate",),
    "dqn_mse": ("learning_rate",),
    "sql": ("learning_rate", "beta"),
    "sql_decoupled": ("learning_rate", "beta"),
    "sql_m": ("learning_rate", "beta", "prior_steps"),
    "mdqn": ("learning_rate", "entropy_temperature"),
    "mirl": ("learning_rate", "beta", "prior_steps"),
}


def constructor_arguments(algorithm: str, settings: Mapping[str, float], steps: int) -> dict[str, Any]:
    """
    Settings that do not depend on the length of the training, as arguments of an algorithm.

    :param algorithm: one of :data:`SETTINGS`
    :param settings: ``learning_rate``; ``beta_end``: β rises linearly from 0 to it in the first half of the training, or
        ``beta_scale`` of the schedule ``"normalized"``; ``prior_steps``: α_ρ is this number divided by ``steps``;
        ``entropy_temperature`` of M-DQN
    :param steps: environment steps of the training
    :return: arguments
    """
    arguments: dict[str, Any] = {"learning_rate": settings["learning_rate"]}
    if algorithm != "dqn":
        # SB3's DQN has neither argument. Compiled, which is faster and differs by rounding
        arguments |= {"loss": "mse", "compile_update": True}
    if "entropy_temperature" in settings:
        arguments["entropy_temperature"] = settings["entropy_temperature"]
    if "prior_steps" in settings:
        arguments["prior_lr"] = settings["prior_steps"] / steps
    if "beta_end" in settings:
        end = settings["beta_end"]
        arguments |= {"beta_schedule": "linear", "beta_init": 0.0, "beta_lr": 2.0 * end / steps, "beta_max": end}
    elif "beta_scale" in settings:
        arguments |= {"beta_schedule": "normalized", "beta_init": 0.01, "beta_lr": "auto", "beta_max": 1e4}
        arguments["beta_scale"] = settings["beta_scale"]
    return arguments


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

# Everything that a section of a file of hyper-parameters sets, so that environments with and without a section have the same
_CLASSIC_ACTIONS = {
    "policy": "MlpPolicy",
    "policy_kwargs": "dict(net_arch=[64, 64])",
    "learning_rate": 1e-3,
    "batch_size": 32,
    "buffer_size": 50_000,
    "learning_starts": 1000,
    "gamma": 0.99,
    "target_update_interval": 250,
    "train_freq": 4,
    "gradient_steps": 4,
    "exploration_fraction": 0.2,
    "exploration_final_eps": 0.1,
    "max_grad_norm": 10,
}
#: The best trials of ``sb3-mirl bench tune``: settings of each algorithm, by suite
CHOSEN: dict[str, dict[str, dict[str, float]]] = {
    "classic-actions": {
        "dqn": {"learning_rate": 0.000313},
        "dqn_mse": {"learning_rate": 0.000235},
        "sql": {"learning_rate": 0.000235, "beta_scale": 126.0},
        "sql_decoupled": {"learning_rate": 0.000614, "beta_end": 99.9},
        "sql_m": {"learning_rate": 0.000313, "beta_scale": 7.98, "prior_steps": 4.79},
        "mdqn": {"learning_rate": 0.000864, "entropy_temperature": 0.00781},
        "mirl": {"learning_rate": 0.000313, "beta_scale": 7.98, "prior_steps": 4.79},
    },
    "minatar-actions": {
        "dqn_mse": {"learning_rate": 0.00127},
        "sql": {"learning_rate": 0.00338, "beta_end": 1.9},
        "sql_decoupled": {"learning_rate": 0.00213, "beta_scale": 7.39},
        "sql_m": {"learning_rate": 0.00127, "beta_scale": 27.3, "prior_steps": 22.1},
        "mdqn": {"learning_rate": 0.00213, "entropy_temperature": 0.00836},
        "mirl": {"learning_rate": 0.00405, "beta_scale": 4.72, "prior_steps": 13.2},
    },
}


def with_steps(suite: Suite, steps: int) -> Suite:
    """
    :param suite: any
    :param steps: environment steps of a training, in all environments
    :return: the suite with these steps; settings that were tuned relative to the length of the training follow it
    """
    own = {**suite.own_hyperparams, **_chosen_arguments(suite.name, steps)}
    return replace(suite, steps=dict.fromkeys(suite.steps, steps), own_hyperparams=own)


def _chosen_arguments(suite: str, steps: int) -> dict[str, dict[str, Any]]:
    """The best trials of a suite as arguments of each algorithm; none for a suite that was not tuned."""
    return {name: constructor_arguments(name, settings, steps) for name, settings in CHOSEN.get(suite, {}).items()}


def _tuned_alike(suite: str, trials: int, envs: str) -> dict[str, str]:
    return dict.fromkeys(
        CHOSEN[suite],
        f"the best of {trials} random trials of its own settings, on {envs} with a quarter of the steps and other seeds; "
        "shared settings are alike",
    )


# The settings of `minatar`, with an update every 4 steps
_MINATAR_ACTIONS = {
    "env_wrapper": [
        "sb3_mirl.envs.minatar.MinAtarWrapper",
        {"gymnasium.wrappers.TimeLimit": {"max_episode_steps": 10_000}},
    ],
    "policy": "MlpPolicy",
    "policy_kwargs": "dict(features_extractor_class=get_class_by_name('sb3_mirl.envs.minatar.MinAtarCNN'), net_arch=[128])",
    "learning_rate": 2.5e-4,
    "batch_size": 32,
    "buffer_size": 100_000,
    "learning_starts": 5000,
    "gamma": 0.99,
    "target_update_interval": 1000,
    "train_freq": 4,
    "gradient_steps": 1,
    "exploration_fraction": 0.1,
    "exploration_final_eps": 0.1,
    "max_grad_norm": 10,
}
_ATARI_100K = {
    "buffer_size": 100_000,
    "learning_rate": 1e-4,
    "learning_starts": 1600,
    "target_update_interval": 2000,
    "train_freq": 1,
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
    # Tests whether an action prior reduces the loss of score by useless actions. All environments have the same settings
    Suite(
        "classic-actions",
        dict.fromkeys((*CLASSIC_IDS, *USELESS63_IDS, *USELESS15_IDS), 50_000),
        epsilon=0.0,
        algorithms=("dqn", "dqn_mse", "sql", "sql_decoupled", "sql_m", "mdqn", "mirl"),
        seeds=10,
        packages=("sb3_mirl.envs.useless_actions",),
        hyperparams=_CLASSIC_ACTIONS,
        own_hyperparams=_chosen_arguments("classic-actions", 50_000),
        extra="box2d",
        tuning=_tuned_alike("classic-actions", 16, "Acrobot-v1 and Useless63/CartPole-v1"),
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
    # The same games, also with 12 more actions that do nothing. ε falls for 50,000 steps. `minatar` has 10 times the steps and
    # 40 times the updates, and smaller α_ρ and α_β
    Suite(
        "minatar-actions",
        dict.fromkeys((*MINATAR_IDS, *USELESS_MINATAR_IDS), 500_000),
        epsilon=0.0,
        algorithms=("dqn_mse", "sql", "sql_decoupled", "sql_m", "mdqn", "mirl"),
        packages=("sb3_mirl.envs.minatar", "sb3_mirl.envs.useless_actions"),
        hyperparams=_MINATAR_ACTIONS,
        own_hyperparams=_chosen_arguments("minatar-actions", 500_000),
        extra="minatar",
        tuning=_tuned_alike("minatar-actions", 12, "Useless12/MinAtar-Breakout-v1"),
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
    # does not state its ε and its number of steps. Its DQN, turned back into raw scores, is above the DQN of Mnih et al. 2015,
    # which had 200 million frames, in 17 of the 19 games. These 10M steps, 40 million frames, are probably too few to repeat
    # the table
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
        hyperparams=_ATARI_100K,
        # A run of `atari19` has 100 times the steps and 25 times the updates
        own_hyperparams=_faster(2e-4, 8e-5),
        extra="atari",
        tuning=_ALIKE,
    ),
    # As `atari19-100k`, with all 18 actions of the console, of which several have the same effect in these games
    Suite(
        "atari-full",
        dict.fromkeys(ATARI_FULL_IDS, 100_000),
        epsilon=0.05,
        algorithms=("dqn_mse", "sql", "sql_m", "mirl"),
        packages=("ale_py",),
        hyperparams=_ATARI_100K,
        own_hyperparams=_faster(2e-4, 8e-5),
        env_kwargs={"full_action_space": True},
        extra="atari",
        tuning=_ALIKE,
    ),
)
#: All suites by name
SUITES = {suite.name: suite for suite in _ALL}
#: By suite
TUNINGS = {
    "classic-actions": Tuning(("Acrobot-v1", "Useless63/CartPole-v1")),
    # A quarter of what `classic-actions` has, because a trial takes twenty times as long. Most games are hardly learned in a
    # quarter of the steps
    "minatar-actions": Tuning(("Useless12/MinAtar-Breakout-v1",), trials=12, seeds=(1000, 1001)),
}
