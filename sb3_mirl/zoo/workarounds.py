"""
What is changed in other packages, mostly in rl-zoo3, and why; for videos see ``recordings.py``, for plots ``plots.py``. Each
context manager puts back what it replaced.

:func:`name_replay_buffers` is permanent and belongs to registration; the others last for one command.
"""

import argparse
import glob
import importlib
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import rl_zoo3
import rl_zoo3.enjoy
import rl_zoo3.exp_manager
import rl_zoo3.train
import rl_zoo3.utils
import yaml
from huggingface_sb3 import EnvironmentName, ModelName
from sb3_contrib.common.maskable import evaluation as masked_evaluation
from sb3_contrib.common.maskable.utils import get_action_masks
from stable_baselines3.common import callbacks
from stable_baselines3.common.vec_env import VecEnv

from sb3_mirl.common.buffers import DeviceReplayBuffer, FrameReplayBuffer
from sb3_mirl.common.dqn import BaseDQN
from sb3_mirl.common.text import printable_lines
from sb3_mirl.zoo.runs import CommandError

#: Runs a command of ``sb3-mirl``, given as its name and arguments, and returns its exit status
RunCommand = Callable[[list[str]], int]


@contextmanager
def replaced(owner: Any, **attributes: Any) -> Iterator[None]:
    """
    Set attributes of a module for the time of the context.

    :param owner: the module
    :param attributes: the new values by name; a name that does not exist is deleted at the end
    """
    before = {name: getattr(owner, name) for name in attributes if hasattr(owner, name)}
    for name, value in attributes.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)
        for name in attributes.keys() - before.keys():
            delattr(owner, name)


def shown_entries(shown: Callable[[str], bool]) -> AbstractContextManager[None]:
    """
    Hide files from ``os.scandir``.

    :param shown: takes a file's name
    """
    scandir = os.scandir

    class Entries(closing[Any]):
        def __init__(self, *path: Any) -> None:
            self.entries = scandir(*path)
            super().__init__(self.entries)

        def __iter__(self) -> Iterator[os.DirEntry[str]]:
            return (entry for entry in self.entries if shown(entry.name))

        def __next__(self) -> os.DirEntry[str]:
            return next(self.entries)

    return replaced(os, scandir=Entries)


# ---- all commands ---------------------------------------------------------------------------------------------------


def name_replay_buffers() -> None:
    """
    rl-zoo3 2.9.2 evaluates ``replay_buffer_class`` of a hyper-parameter file among the names of its module ``exp_manager``.
    Put our replay buffers there, as rl-zoo3 does with ``HerReplayBuffer``.
    """
    for buffer_class in (FrameReplayBuffer, DeviceReplayBuffer):
        setattr(rl_zoo3.exp_manager, buffer_class.__name__, buffer_class)


def command_line(command: str, arguments: list[str]) -> AbstractContextManager[None]:
    """
    Commands of rl-zoo3 2.9.2 take no arguments: they read ``sys.argv``.

    :param command: the command's name
    :param arguments: its arguments
    """
    return replaced(sys, argv=[f"sb3-mirl {command}", *arguments])


@contextmanager
def no_banner_of_the_emulator() -> Iterator[None]:
    """ale-py 0.12 writes its name and version to the standard error whenever a process makes its first game."""
    ale_py = sys.modules.get("ale_py")
    if ale_py is None:  # rl-zoo3 imports it, if it is installed
        yield
        return
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Warning)
    try:
        yield
    finally:
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Info)


def command_parser(
    module: str, is_script: bool, parser: Callable[[], argparse.ArgumentParser]
) -> AbstractContextManager[None]:
    """
    Commands of rl-zoo3 2.9.2 make their parsers themselves, without a description, nor options of plug-ins.

    :param module: of the command
    :param is_script: whether the module is the command, and not a function of it
    :param parser: makes the parser that takes the place of an empty ``argparse.ArgumentParser``
    """

    def make(*args: Any, **kwargs: Any) -> argparse.ArgumentParser:
        return parser()

    if not is_script:
        return replaced(importlib.import_module(module), argparse=SimpleNamespace(ArgumentParser=make))
    ordinary = argparse.ArgumentParser

    def make_first(*args: Any, **kwargs: Any) -> argparse.ArgumentParser:
        setattr(argparse, "ArgumentParser", ordinary)  # noqa: B010 (for other packages, which the script imports later)
        return parser()

    return replaced(argparse, ArgumentParser=make_first)


def training_classes(manager: type, store_dict: type) -> AbstractContextManager[None]:
    """
    ``rl_zoo3.train.train`` of rl-zoo3 2.9.2 has no parameters for its classes.

    :param manager: takes the place of rl-zoo3's ``ExperimentManager``
    :param store_dict: takes the place of rl-zoo3's ``StoreDict``
    """
    return replaced(rl_zoo3.train, ExperimentManager=manager, StoreDict=store_dict)


@contextmanager
def small_replay_buffers(algorithms: Mapping[str, type[BaseDQN]]) -> Iterator[None]:
    """
    ``enjoy``, ``record_video`` and ``push_to_hub`` of rl-zoo3 2.9.2 load the off-policy algorithms that they know by name with
    a replay buffer of one transition. Other algorithms would allocate the buffer of their training, for Atari several GB.

    :param algorithms: our algorithms by name
    """
    before = dict(rl_zoo3.ALGOS)
    rl_zoo3.ALGOS.update({name: for_playing(algorithm) for name, algorithm in algorithms.items()})
    try:
        yield
    finally:
        rl_zoo3.ALGOS.update(before)


def for_playing(algorithm: type[BaseDQN]) -> type[BaseDQN]:
    """
    A class whose ``load`` returns a model of ``algorithm`` with room for one transition, which compiles nothing.

    :param algorithm: one of our algorithms
    """

    def load(cls: type[BaseDQN], *args: Any, **kwargs: Any) -> BaseDQN:
        own = {"buffer_size": 1, "optimize_memory_usage": False, "compile_update": False}
        return algorithm.load(*args, **{**own, **kwargs})

    return type(algorithm.__name__, (algorithm,), {"load": classmethod(load)})


@contextmanager
def masks_while_playing(algorithms: Iterable[str]) -> Iterator[None]:
    """
    ``enjoy``, ``record_video`` and ``push_to_hub`` of rl-zoo3 2.9.2 call ``predict()`` without action masks. Give those of the
    environment that the command has made to a model that was trained with masks.

    :param algorithms: names of our algorithms
    """
    create, made = rl_zoo3.utils.create_test_env, []

    def create_test_env(*args: Any, **kwargs: Any) -> VecEnv:
        made.append(create(*args, **kwargs))
        return made[-1]

    before = dict(rl_zoo3.ALGOS)
    rl_zoo3.ALGOS.update({name: with_masks_of(before[name], made) for name in algorithms})
    new = {"create_test_env": create_test_env}
    try:
        with replaced(rl_zoo3.utils, **new), replaced(rl_zoo3.enjoy, **new):
            yield
    finally:
        rl_zoo3.ALGOS.update(before)


def with_masks_of(algorithm: Any, envs: Sequence[VecEnv]) -> type[BaseDQN]:
    """
    A class whose ``load`` returns a model of ``algorithm`` whose ``predict`` takes masks from the last one of ``envs``.

    :param algorithm: one of our algorithms
    :param envs: filled later
    """

    def load(cls: type[BaseDQN], *args: Any, **kwargs: Any) -> BaseDQN:
        model = algorithm.load(*args, **kwargs)
        if model.uses_action_masks:
            predict = model.predict

            def predict_with_masks(*args: Any, **kwargs: Any) -> Any:
                return predict(*args, **{**kwargs, "action_masks": get_action_masks(envs[-1])})

            model.predict = predict_with_masks  # type: ignore[method-assign]
        return model

    return type(algorithm.__name__, (algorithm,), {"load": classmethod(load)})


@contextmanager
def env_kwargs_of_the_file() -> Iterator[None]:
    """
    ``record_video`` and ``push_to_hub`` of rl-zoo3 2.9.2 make the environment without the ``env_kwargs`` of its
    hyper-parameters, as ``enjoy`` does if the training's command line had some. Those of the command lines have precedence.
    """
    read, create, of_file = rl_zoo3.utils.get_saved_hyperparams, rl_zoo3.utils.create_test_env, dict[str, Any]()

    def get_saved_hyperparams(*args: Any, **kwargs: Any) -> Any:
        hyperparams, stats_path = read(*args, **kwargs)
        of_file.update(hyperparams.get("env_kwargs") or {})
        return hyperparams, stats_path

    def create_test_env(*args: Any, **kwargs: Any) -> VecEnv:
        return create(*args, **{**kwargs, "env_kwargs": {**of_file, **(kwargs.get("env_kwargs") or {})}})

    new = {"get_saved_hyperparams": get_saved_hyperparams, "create_test_env": create_test_env}
    with replaced(rl_zoo3.utils, **new), replaced(rl_zoo3.enjoy, **new):
        yield


@contextmanager
def literal_folders() -> Iterator[None]:
    """rl-zoo3 2.9.2 takes the name of the log folder for a pattern: with ``[`` in it, each run would get the number 1."""
    find = rl_zoo3.utils.get_latest_run_id

    def get_latest_run_id(log_path: str, env_name: EnvironmentName) -> int:
        return find(glob.escape(log_path), env_name)

    new = {"get_latest_run_id": get_latest_run_id}
    with replaced(rl_zoo3, **new), replaced(rl_zoo3.utils, **new), replaced(rl_zoo3.exp_manager, **new):
        yield


@contextmanager
def missing_models_in_a_line() -> Iterator[None]:
    """Commands of rl-zoo3 2.9.2 that need a trained agent end with a traceback if there is none."""
    find = rl_zoo3.utils.get_model_path

    def get_model_path(*args: Any, **kwargs: Any) -> Any:
        try:
            return find(*args, **kwargs)
        except (ValueError, AssertionError) as error:
            raise CommandError(f"{error} (-f is the folder with the runs of all algorithms)") from error

    with replaced(rl_zoo3.utils, get_model_path=get_model_path), replaced(rl_zoo3.enjoy, get_model_path=get_model_path):
        yield


# ---- train ----------------------------------------------------------------------------------------------------------


def evaluations_with_masks() -> AbstractContextManager[None]:
    """
    ``EvalCallback`` of SB3 2.9.2, which rl-zoo3 uses, evaluates without action masks. Models that learn with masks are
    evaluated as by sb3-contrib's ``MaskableEvalCallback``.
    """
    without_masks = callbacks.evaluate_policy

    def evaluate_policy(model: Any, *args: Any, **kwargs: Any) -> Any:
        masked = getattr(model, "uses_action_masks", False)
        return (masked_evaluation.evaluate_policy if masked else without_masks)(model, *args, **kwargs)

    return replaced(callbacks, evaluate_policy=evaluate_policy)


# ---- record-training, benchmark -------------------------------------------------------------------------------------


def children_in_this_process(run_command: RunCommand) -> AbstractContextManager[None]:
    """
    ``record_training`` and ``benchmark`` of rl-zoo3 2.9.2 start other commands as child processes, in which our algorithms are
    not registered (and ``enjoy.py`` is not found). Run those commands in this process instead.

    :param run_command: runs one of our commands
    """
    ours = {("python", "-m", "rl_zoo3.record_video"): "record-video", ("python", "enjoy.py"): "enjoy"}
    call = subprocess.call

    def call_registered(command: Any, *args: Any, **kwargs: Any) -> int:
        for prefix, name in ours.items():
            if tuple(command[: len(prefix)]) == prefix:
                # Names of environments have no slashes
                return _exit_status(run_command, [name, *(getattr(part, "gym_id", part) for part in command[len(prefix) :])])
        return call(command, *args, **kwargs)

    return replaced(subprocess, call=call_registered)


def _exit_status(run_command: RunCommand, arguments: list[str]) -> int:
    """What the shell would report of a child process."""
    try:
        return run_command(arguments)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except BrokenPipeError:
        raise
    except Exception:
        print(printable_lines(traceback.format_exc()), file=sys.stderr)
        return 1


def results_of_these_agents(options: argparse.Namespace) -> AbstractContextManager[None]:
    """
    ``benchmark`` of rl-zoo3 2.9.2 fails at environments with a slash and at settings that are not readable, and shows stored
    results of an agent that was trained again since.

    :param options: has ``benchmark_dir``, where results are stored, after the parsing
    """

    def get_trained_models(log_folder: str) -> dict[str, tuple[str, str]]:
        models = {}
        for run_folder in Path(log_folder).glob("*/*"):
            files = list(run_folder.glob("*/args.yml"))
            if len(files) != 1:
                continue
            try:
                env = EnvironmentName(yaml.load(files[0].read_text(), Loader=yaml.UnsafeLoader)["env"])
            except Exception as error:  # the file may create objects of any class
                print(f"Left out: {files[0]} cannot be read ({error})")
                continue
            algorithm = run_folder.parent.name
            name = ModelName(algorithm, env)
            models[name] = (algorithm, env)
            stored = Path(options.benchmark_dir, name)
            trained_at = max((file.stat().st_mtime for file in run_folder.glob("*.zip")), default=0.0)
            if stored.is_dir() and stored.stat().st_mtime < trained_at:
                shutil.rmtree(stored)
        return models

    return replaced(rl_zoo3.utils, get_trained_models=get_trained_models)


# ---- push-to-hub ----------------------------------------------------------------------------------------------------


def hub_metadata() -> AbstractContextManager[None]:
    """
    ``push_to_hub`` of rl-zoo3 2.9.2 imports ``generate_metadata`` of huggingface_sb3, whose version 3 has only the private
    ``_generate_metadata``, which returns another type.
    """
    # Not `import ... as`: the package has a function of the module's name
    hub = importlib.import_module("huggingface_sb3.push_to_hub")
    if hasattr(hub, "generate_metadata"):
        return nullcontext()
    return replaced(hub, generate_metadata=lambda *args: hub._generate_metadata(*args).to_dict())


@contextmanager
def before_upload(complete: Callable[[Path, str], None]) -> Iterator[None]:
    """
    ``push_to_hub`` of rl-zoo3 2.9.2 writes its own model card, and runs as a script, whose functions cannot be replaced.
    Change the folder just before it is uploaded.

    :param complete: takes the folder and the id of the repository
    """

    class Api(huggingface_hub.HfApi):
        def upload_folder(self, *, repo_id: str, folder_path: str | Path, **kwargs: Any) -> Any:  # type: ignore[override]
            complete(Path(folder_path), repo_id)
            return super().upload_folder(repo_id=repo_id, folder_path=folder_path, **kwargs)

    with replaced(huggingface_hub, HfApi=Api):
        yield
