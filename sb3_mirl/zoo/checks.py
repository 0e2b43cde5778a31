"""Checks of options before anything is created. Without them, rl-zoo3's commands end with a traceback, or do nothing."""

import argparse
import importlib
import inspect
import os
import re
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch as th
from gymnasium.envs.registration import load_env_creator
from rl_zoo3.utils import get_latest_run_id

from sb3_mirl.common.export.model_file import read_model_file
from sb3_mirl.common.text import did_you_mean
from sb3_mirl.zoo.register import ALGORITHMS
from sb3_mirl.zoo.runs import CommandError


def parse_device(text: str) -> str:
    """
    :param text: the value of ``--device``
    :return: the same
    :raises argparse.ArgumentTypeError: if it is neither ``auto`` nor a device of torch
    """
    try:
        th.device("cpu" if text == "auto" else text)
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"must be auto or a device of torch such as cpu or cuda, got {text!r}") from error
    return text


def parse_steps(text: str) -> int:
    """
    :param text: a number of steps, or rl-zoo3's -1 for the default
    :return: the number
    :raises argparse.ArgumentTypeError: if it is neither
    """
    try:
        steps = int(text)
    except ValueError:
        steps = 0
    if steps < 1 and steps != -1:
        raise argparse.ArgumentTypeError(f"must be a positive integer, or -1 for the default, got {text!r}")
    return steps


def import_packages(modules: list[str]) -> None:
    """
    Import the modules of ``--gym-packages``.

    :param modules: their names
    :raises CommandError: if there is no module of a name
    """
    for module in modules:
        try:
            if not all(part.isidentifier() for part in module.split(".")):
                raise ModuleNotFoundError(f"{module!r} is not a name of a module", name=module)
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            # A module can itself lack another one
            if not f"{module}.".startswith(f"{error.name}."):
                raise
            raise CommandError(
                f"--gym-packages must name modules that are installed or in PYTHONPATH, got {module!r} ({error})"
            ) from error


def check_env_kwargs(option: str, env: str, kwargs: Mapping[str, Any] | None) -> None:
    """
    Make the environment once, if there are keyword arguments for it.

    :param option: for the error message
    :param env: its id
    :param kwargs: the keyword arguments of the command line
    :raises CommandError: if the environment does not take one of them
    """
    if not kwargs:
        return
    try:
        gym.make(env, **kwargs).close()
    except TypeError as error:
        found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        # Other errors are left to the command, which makes the environment again
        if found and found[1] in kwargs:
            remedy = _remedy(found[1], _keywords(env))
            raise CommandError(f"{option} must be keyword arguments of {env}, got {found[1]!r}{remedy}") from error


def _keywords(env: str) -> list[str]:
    """The names in the signature of an environment's constructor."""
    creator: Any = gym.spec(env).entry_point
    parameters = inspect.signature(load_env_creator(creator) if isinstance(creator, str) else creator).parameters
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [name for name, parameter in parameters.items() if parameter.kind in kinds]


def check_trained_agent(path: str, algorithm: str) -> None:
    """
    :param path: the file of ``-i``
    :param algorithm: ``--algo``
    :raises CommandError: if it is not a zip of SB3's ``save``, or, for our algorithms, not of this algorithm
    """
    must = f"-i must be the .zip of a saved model, got {path!r}"
    if not path.endswith(".zip"):
        raise CommandError(must)
    check_exists("-i", path)
    if not zipfile.is_zipfile(path):
        raise CommandError(f"{must}, which is not a zip file")
    try:
        found, _ = read_model_file(path)
    except (ValueError, OSError) as error:
        raise CommandError(f"{must}: {error}") from error
    if algorithm in ALGORITHMS and found["algorithm"] != (name := ALGORITHMS[algorithm].algorithm):
        saved_by = found["algorithm"] or "an algorithm that is not one of sb3_mirl"
        raise CommandError(f"-i must be a model of {name} with --algo {algorithm}, got {path!r}, saved by {saved_by}")


def check_recorded_run(parsed: argparse.Namespace) -> Path:
    """
    :param parsed: the command line of ``record-training``
    :return: the run folder
    :raises CommandError: if the run folder has no model
    """
    run_id = parsed.exp_id or get_latest_run_id(os.path.join(parsed.folder, parsed.algo), parsed.env)
    folder = Path(parsed.folder, parsed.algo, f"{parsed.env}_{run_id}" if run_id > 0 else "")
    if not any(folder.glob("*.zip")):
        where = "-f is the folder with the runs of all algorithms"
        raise CommandError(f"No model found for {parsed.algo} on {parsed.env}, path: {folder} ({where})")
    return folder


def check_plotted_runs(folders: list[str], algorithms: list[str], environments: list[str]) -> None:
    """
    :param folders: of ``-f``
    :param algorithms: of ``-a``
    :param environments: of ``-e``; rl-zoo3 plots all run folders whose names contain one of them
    :raises CommandError: if a folder does not exist, or if no run of an algorithm or of an environment is in one of them
    """
    for folder in folders:
        check_exists("-f", folder, "folder")
    where = f"runs in {', '.join(folders)}"
    present = {path.name for folder in folders for path in Path(folder).iterdir() if path.is_dir()}
    for algorithm in algorithms:
        if algorithm not in present:
            raise CommandError(f"-a must have {where}, got {algorithm!r}{_remedy(algorithm, present)}")
    plotted = [Path(folder, algorithm) for folder in folders for algorithm in algorithms]
    runs = [path.name for folder in plotted if folder.is_dir() for path in folder.iterdir() if path.is_dir()]
    for env in environments:
        if not any(is_run_of(env, run) for run in runs):
            names = {re.sub(r"_\d+(_[0-9a-f-]+)?$", "", run) for run in runs}
            raise CommandError(f"-e must have {where} of {', '.join(algorithms)}, got {env!r}{_remedy(env, names)}")


def is_run_of(env: str, name: str) -> bool:
    """
    :param env: the name of an environment, or a part of it
    :param name: of a run folder
    :return: whether a plot of the environment has the run; not those of ``Useless15-CartPole-v1`` for ``CartPole-v1``
    """
    return env in name and (name.startswith(env) or re.match(r"Useless\d+-", name) is None)


def _remedy(given: str, known: Collection[str]) -> str:
    """The nearest name, or all of them."""
    return did_you_mean(given, known) or (f" (choose from {', '.join(sorted(known))})" if known else "")


def check_exists(option: str, path: str, kind: str = "file") -> None:
    """
    :param option: for the error message
    :param path: its value
    :param kind: ``"file"`` or ``"folder"``
    :raises CommandError: if there is none of that kind
    """
    exists = Path(path).is_file() if kind == "file" else Path(path).is_dir()
    if not exists:
        raise CommandError(f"{option} must be an existing {kind}, got {path!r}")
