"""Registration of our algorithms in rl-zoo3, with samplers for its hyper-parameter search and files of hyper-parameters."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import optuna
    import rl_zoo3.train
    from rl_zoo3 import hyperparams_opt
except ImportError as error:
    raise ImportError(f"sb3_mirl.zoo needs rl-zoo3 ({error}): pip install 'sb3-mirl[zoo]'") from error

from sb3_mirl.common.dqn import DQNMSE, BaseDQN
from sb3_mirl.common.munchausen import MDQN
from sb3_mirl.mirl.mirl import MIRL, SQL, SQLDecoupled, SQLm
from sb3_mirl.zoo.workarounds import name_replay_buffers

#: Our algorithms, by the names that they have in the zoo
ALGORITHMS: dict[str, type[BaseDQN]] = {
    "mirl": MIRL,
    "sql": SQL,
    "sql_decoupled": SQLDecoupled,
    "sql_m": SQLm,
    "dqn_mse": DQNMSE,
    "mdqn": MDQN,
}
#: Modules of this package that register environments when they are imported, by the beginning of the ids
OUR_ENVIRONMENTS = {"MinAtar/": "sb3_mirl.envs.minatar", "Useless": "sb3_mirl.envs.useless_actions"}


def register() -> None:
    """
    Add our algorithms to rl-zoo3: to ``rl_zoo3.ALGOS`` and to its hyper-parameter search.

    A second call changes nothing.
    """
    rl_zoo3.ALGOS.update(ALGORITHMS)
    name_replay_buffers()
    for name in ALGORITHMS:
        hyperparams_opt.HYPERPARAMS_SAMPLER[name] = functools.partial(sample_hyperparams, name)
        hyperparams_opt.HYPERPARAMS_CONVERTER[name] = hyperparams_opt.convert_offpolicy_params


@contextmanager
def base_dqn_for_dqn() -> Iterator[None]:
    """In this context rl-zoo3's ``dqn`` is :class:`~sb3_mirl.BaseDQN`: SB3's DQN up to rounding, and trainable jointly."""
    theirs = rl_zoo3.ALGOS["dqn"]
    rl_zoo3.ALGOS["dqn"] = BaseDQN
    try:
        yield
    finally:
        rl_zoo3.ALGOS["dqn"] = theirs


def sample_hyperparams(
    algorithm: str, trial: "optuna.Trial", n_actions: int, n_envs: int, additional_args: dict[str, Any]
) -> dict[str, Any]:
    """
    Sample the hyper-parameters of a trial: those of DQN, for MIRL and its variants those of ρ and β, and for MDQN α and τ.

    :param algorithm: one of :data:`ALGORITHMS`
    :param trial: the trial
    :param n_actions: passed on to rl-zoo3's sampler for DQN
    :param n_envs: passed on to rl-zoo3's sampler for DQN
    :param additional_args: passed on to rl-zoo3's sampler for DQN
    :return: constructor arguments
    """
    hyperparams = hyperparams_opt.sample_dqn_params(trial, n_actions, n_envs, additional_args)
    if issubclass(ALGORITHMS[algorithm], MDQN):
        # τ is in units of reward
        hyperparams["entropy_temperature"] = trial.suggest_float("entropy_temperature", 1e-3, 1e0, log=True)
        hyperparams["munchausen_alpha"] = trial.suggest_float("munchausen_alpha", 0.0, 1.0)
    if not issubclass(ALGORITHMS[algorithm], MIRL):
        return hyperparams
    hyperparams["loss"] = trial.suggest_categorical("loss", ["mse", "huber"])
    if not issubclass(ALGORITHMS[algorithm], SQL):
        # The time constant 1 / prior_lr ranges from an episode to more than a run
        hyperparams["prior_lr"] = trial.suggest_float("prior_lr", 1e-6, 1e-2, log=True)
    # β is in 1/reward, so that its scale differs by orders of magnitude between environments. All arguments of β are sampled:
    # one from the file could contradict a sampled one (beta_init <= beta_max)
    hyperparams["beta_schedule"] = trial.suggest_categorical("beta_schedule", ["normalized", "adaptive", "linear"])
    hyperparams["beta_scale"] = trial.suggest_float("beta_scale", 1e0, 3e2, log=True)
    hyperparams["beta_init"] = trial.suggest_float("beta_init", 1e-3, 1e1, log=True)
    hyperparams["beta_lr"] = trial.suggest_float("beta_lr", 1e-6, 1e-2, log=True)
    hyperparams["beta_max"] = trial.suggest_float("beta_max", 1e1, 1e4, log=True)
    return hyperparams


def hyperparams_file(algorithm: str) -> Path:
    """
    The YAML file of hyper-parameters for an algorithm in this package.

    :param algorithm: one of :data:`ALGORITHMS`; the files for other algorithms are used by ``sb3-mirl bench``
    :return: its path; the file exists for :data:`ALGORITHMS`, and may not exist for other algorithms
    """
    package = Path(__file__).parents[1]
    # Inside the package if it was installed from a wheel, beside it in a checkout
    folder = package / "hyperparams" if (package / "hyperparams").is_dir() else package.parent / "hyperparams"
    return folder / f"{algorithm}.yml"
