"""
A job as an experiment of rl-zoo3: its ``ExperimentManager``, with the hyper-parameters of this package and of the suite; and
:func:`check`, whether jobs can be set up.
"""

import argparse
import importlib
import inspect
import json
import os
import warnings
from collections.abc import Iterable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import gymnasium as gym
import rl_zoo3
import torch as th
import yaml
from gymnasium.error import DependencyNotInstalled

from sb3_mirl.bench.jobs import FolderError, Job, differences, stored_jobs
from sb3_mirl.bench.suites import Suite
from sb3_mirl.common.text import did_you_mean
from sb3_mirl.zoo.hyperparams import ZOO_RULES
from sb3_mirl.zoo.manager import ExperimentManager
from sb3_mirl.zoo.register import ALGORITHMS, hyperparams_file, register


def register_suite(suite: Suite) -> None:
    """
    Register our algorithms with rl-zoo3, and the environments of a suite.

    :raises ImportError: if a package of the suite is not installed
    """
    register()
    for package in suite.packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            hint = _how_to_install(suite) if suite.extra else ""
            raise ImportError(f"{package} cannot be imported: {error}{hint}") from error


def _how_to_install(suite: Suite) -> str:
    return f". Suite {suite.name} needs more packages: pip install 'sb3-mirl[zoo,bench,{suite.extra}]'"


def experiment_manager(suite: Suite, job: Job, log_folder: Path, device: str) -> ExperimentManager:
    """
    rl-zoo3's manager without its own evaluations and checkpoints, with our file of hyper-parameters where there is one.

    :param suite: of the job; registered, see :func:`register_suite`
    :param job: of the suite
    :param log_folder: where rl-zoo3 writes its logs and the model
    :param device: ``"cpu"``, ``"cuda"``, ... or ``"auto"``
    """
    shared = suite.hyperparams if _takes(job.algorithm, suite.hyperparams.keys() - ZOO_RULES.keys()) else {}
    # Of the environments of the training and of the evaluation; in the hyper-parameters they are recorded with the result
    env_kwargs = dict(suite.env_kwargs)
    recorded = {"env_kwargs": env_kwargs} if env_kwargs else {}
    file = hyperparams_file(job.algorithm)
    return ExperimentManager(
        argparse.Namespace(algo=job.algorithm, env=job.env, seed=job.seed, n_timesteps=suite.steps[job.env]),
        job.algorithm,
        job.env,
        str(log_folder),
        n_timesteps=suite.steps[job.env],
        eval_freq=-1,
        save_freq=-1,
        hyperparams={**shared, **suite.own_hyperparams.get(job.algorithm, {}), **recorded},
        env_kwargs=env_kwargs,
        seed=job.seed,
        verbose=0,
        log_interval=-2,
        device=device,
        # None: rl-zoo3's own file
        config=str(file) if job.algorithm in ALGORITHMS or _has_section(file, job.env) else None,
    )


def prepared_manager(suite: Suite, job: Job, log_folder: Path) -> ExperimentManager:
    """
    A manager whose ``create_envs`` makes the environments of the job, with their wrappers.

    :param suite: of the job; registered, see :func:`register_suite`
    :param job: of the suite
    :param log_folder: where rl-zoo3 would write
    """
    manager = experiment_manager(suite, job, log_folder, "cpu")
    hyperparams, _ = manager.read_hyperparameters()
    _, manager.env_wrapper, _, manager.vec_env_wrapper = manager._preprocess_hyperparams(hyperparams)
    return manager


def _takes(algorithm: str, arguments: Iterable[str]) -> bool:
    """Whether the algorithm's constructor has all these arguments."""
    parameters = inspect.signature(rl_zoo3.ALGOS[algorithm]).parameters
    return all(name in parameters for name in arguments)


def _has_section(file: Path, env: str) -> bool:
    if not file.exists():
        return False
    sections = yaml.safe_load(file.read_text())
    return env in sections or (ExperimentManager.is_atari(env) and "atari" in sections)


def recorded_hyperparameters(manager: ExperimentManager, hyperparams: dict[str, Any]) -> dict[str, Any]:
    """
    :param manager: of the job
    :param hyperparams: that the manager has read and saves
    :return: the hyper-parameters as they are in the JSON file of a result
    """
    return json.loads(json.dumps({**hyperparams, "n_timesteps": manager.n_timesteps}, default=str))


def check(suite: Suite, jobs: Iterable[Job], folder: Path | None = None) -> None:
    """
    Check that the jobs can be set up, without training: algorithms, environments and hyper-parameters exist and go together.

    :param suite: of the jobs
    :param jobs: to be checked
    :param folder: of the benchmark, if it exists; its results must have the same hyper-parameters
    :raises ValueError: if a job cannot be set up; the message says what is missing or does not fit
    """
    register_suite(suite)
    pairs = dict.fromkeys((job.algorithm, job.env) for job in jobs)
    for algorithm in dict.fromkeys(algorithm for algorithm, _ in pairs):
        if algorithm not in rl_zoo3.ALGOS:
            hint = did_you_mean(algorithm, rl_zoo3.ALGOS)
            raise ValueError(f"unknown algorithm {algorithm!r}, choose among {', '.join(rl_zoo3.ALGOS)}{hint}")
    for env in dict.fromkeys(env for _, env in pairs):
        try:
            gym.make(env, **suite.env_kwargs).close()
        except Exception as error:
            not_installed = isinstance(error, (ImportError, DependencyNotInstalled)) and suite.extra
            raise ValueError(f"{env} cannot be made: {error}{_how_to_install(suite) if not_installed else ''}") from error
    stored = stored_jobs(folder, suite) if folder is not None else []
    for algorithm, env in pairs:
        with open(os.devnull, "w") as nothing, redirect_stdout(nothing):
            hyperparameters = check_pair(suite, algorithm, env)
        for job in stored:
            if folder is not None and (job.algorithm, job.env) == (algorithm, env):
                _check_result(job, folder, hyperparameters)


def check_pair(suite: Suite, algorithm: str, env: str) -> dict[str, Any]:
    """
    :param suite: registered, see :func:`register_suite`
    :param algorithm: as rl-zoo3 names it
    :param env: of the suite
    :return: the hyper-parameters of both, as results have them
    :raises ValueError: if the algorithm cannot be created for the environment
    """
    manager = experiment_manager(suite, Job(algorithm, env, 0), Path(os.devnull), "cpu")
    try:
        hyperparams, saved = manager.read_hyperparameters()
    except (KeyError, OSError) as error:
        raise ValueError(f"no hyper-parameters of {algorithm} for {env} ({error})") from error
    arguments, manager.env_wrapper, _, manager.vec_env_wrapper = manager._preprocess_hyperparams(hyperparams)
    vec_env = manager.create_envs(1, no_log=True)
    try:
        arguments = manager._preprocess_action_noise(arguments, saved, vec_env)
        with warnings.catch_warnings():
            # PPO warns of the single environment
            warnings.simplefilter("ignore")
            # Creates neither the network nor the replay buffer
            rl_zoo3.ALGOS[algorithm](env=vec_env, device="cpu", _init_setup_model=False, **arguments)  # type: ignore[call-arg]
    except (AssertionError, TypeError, ValueError) as error:
        raise ValueError(f"{algorithm} cannot be trained on {env} in suite {suite.name}: {error}") from error
    finally:
        vec_env.close()
    return recorded_hyperparameters(manager, saved)


def _check_result(job: Job, folder: Path, wanted: dict[str, Any]) -> None:
    """:raises FolderError: if the folder has a result of the job with other hyper-parameters"""
    try:
        stored = job.result(folder)["hyperparameters"]
    except (OSError, ValueError):
        return  # damaged results are not compared with others
    if found := differences(stored, wanted, sorted({*stored, *wanted})):
        raise FolderError(
            f"{str(folder)!r} holds a result of {job} with other hyper-parameters: {'; '.join(found)}. Choose another folder"
        )


def check_device(device: str) -> None:
    """:raises ValueError: if PyTorch does not have the device; SB3 itself would silently use the CPU"""
    try:
        th.zeros((), device=None if device == "auto" else device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device must be auto, cpu, or one that PyTorch has here, got {device!r} ({error})") from error
