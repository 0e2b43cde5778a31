"""
What is changed in other packages, mostly in rl-zoo3, and why; for videos see ``recordings.py``, for plots ``plots.py``. Each
context manager puts back what it replaced.

:func:`name_replay_buffers` is permanent and belongs to registration; the others last for one command.
"""

import argparse
import importlib
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
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
from stable_baselines3.common.monitor import Monitor
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


# ---- all commands ---------------------------------------------------------------------------------------------------


def name_replay_buffers() -> None:
    """
    rl-zoo3 2.9.2 evaluates ``replay_buffer_class`` of a hyper-parameter file among the names of its module ``exp_manager``.
    Put our replay buffers there, as rl-zoo3 does with ``HerReplayBuffer``.
    """
    for buffer_class in (FrameReplayBuffer, DeviceReplayBuffer):
        setattr(rl_zoo3.exp_manager, buffer_class.__name__, buffer_class)


class CountsTruncatedEpisodes(gym.Wrapper):
    """Lets SB3's ``Monitor`` record episodes that a wrapper around it truncates."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Gymnasium's ``step``. At such a truncation, ``Monitor`` gets the last step again as the end of the episode."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if truncated and "episode" not in info and (monitor := _monitor_of(self.env)) is not None and monitor.rewards:
            last = SimpleNamespace(step=lambda _: (observation, monitor.rewards.pop(), False, True, info))
            env, monitor.env = monitor.env, last  # type: ignore[assignment]
            try:
                monitor.step(action)
            finally:
                # Wrappers around the Monitor may continue without a reset
                monitor.env, monitor.needs_reset = env, False
                monitor.total_steps -= 1
        return observation, reward, terminated, truncated, info


def _monitor_of(env: gym.Env) -> Monitor | None:
    while isinstance(env, gym.Wrapper) and not isinstance(env, Monitor):
        env = env.env
    return env if isinstance(env, Monitor) else None


def counting_all_episodes(wrapper: Callable[[gym.Env], gym.Env] | None) -> Callable[[gym.Env], gym.Env] | None:
    """
    rl-zoo3 2.9.2 applies ``env_wrapper`` outside of SB3's ``Monitor``, which counts only episodes whose end it sees. Those
    that a ``TimeLimit`` of ``env_wrapper`` ends would be missing, and the evaluation of a player that never loses would not
    end.

    :param wrapper: the ``env_wrapper`` of a file of hyper-parameters, as a function
    :return: a function that does the same, and lets ``Monitor`` count them
    """
    if wrapper is None:
        return None

    def wrap(env: gym.Env) -> gym.Env:
        wrapped = outer = wrapper(env)
        while isinstance(outer, gym.Wrapper) and outer is not env:
            if isinstance(outer, gym.wrappers.TimeLimit):
                return CountsTruncatedEpisodes(wrapped)
            outer = outer.env
        return wrapped

    return wrap


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
    :param parser: makes the parser that the command gets when it calls ``argparse.ArgumentParser()``
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
def models_for_playing(algorithms: Mapping[str, type[BaseDQN]]) -> Iterator[None]:
    """
    ``enjoy``, ``record_video`` and ``push_to_hub`` of rl-zoo3 2.9.2 load the off-policy algorithms that they know by name with
    a replay buffer of one transition. Other algorithms would allocate the buffer of their training, for Atari several GB. And
    they call ``predict()`` without action masks. Load our models for playing (:func:`for_playing`).

    :param algorithms: our algorithms by name
    """
    create, made = rl_zoo3.utils.create_test_env, []

    def create_test_env(*args: Any, **kwargs: Any) -> VecEnv:
        made.append(create(*args, **kwargs))
        return made[-1]

    before = dict(rl_zoo3.ALGOS)
    rl_zoo3.ALGOS.update({name: for_playing(algorithm, made) for name, algorithm in algorithms.items()})
    new = {"create_test_env": create_test_env}
    try:
        with replaced(rl_zoo3.utils, **new), replaced(rl_zoo3.enjoy, **new):
            yield
    finally:
        rl_zoo3.ALGOS.update(before)


def for_playing(algorithm: type[BaseDQN], envs: Sequence[VecEnv] = ()) -> type[BaseDQN]:
    """
    A class whose ``load`` returns a model of ``algorithm`` with room for one transition, which compiles nothing. If the model
    was trained with action masks, its ``predict`` takes those of the last one of ``envs``.

    :param algorithm: one of our algorithms
    :param envs: of the command, filled later
    """

    def load(cls: type[BaseDQN], *args: Any, **kwargs: Any) -> BaseDQN:
        own = {"buffer_size": 1, "optimize_memory_usage": False, "compile_update": False}
        model = algorithm.load(*args, **{**own, **kwargs})
        if model.uses_action_masks:
            predict = model.predict

            def predict_with_masks(*args: Any, **kwargs: Any) -> Any:
                return predict(*args, **{**kwargs, "action_masks": get_action_masks(envs[-1])})

            model.predict = predict_with_masks  # type: ignore[method-assign]
        return model

    return type(algorithm.__name__, (algorithm,), {"load": classmethod(load)})


@contextmanager
def environments_as_in_the_training() -> Iterator[None]:
    """
    ``record_video`` and ``push_to_hub`` of rl-zoo3 2.9.2 ignore the ``env_kwargs`` of the hyper-parameters; ``enjoy`` ignores
    them if the training's command line had ``env_kwargs``, too. Use both; those of a command line have precedence. Episodes
    are counted as by :func:`counting_all_episodes`.
    """
    read, create, of_file = rl_zoo3.utils.get_saved_hyperparams, rl_zoo3.utils.create_test_env, dict[str, Any]()
    find = rl_zoo3.utils.get_wrapper_class

    def get_saved_hyperparams(*args: Any, **kwargs: Any) -> Any:
        hyperparams, stats_path = read(*args, **kwargs)
        of_file.update(hyperparams.get("env_kwargs") or {})
        return hyperparams, stats_path

    def create_test_env(*args: Any, **kwargs: Any) -> VecEnv:
        return create(*args, **{**kwargs, "env_kwargs": {**of_file, **(kwargs.get("env_kwargs") or {})}})

    def get_wrapper_class(hyperparams: dict[str, Any], key: str = "env_wrapper") -> Any:
        return counting_all_episodes(find(hyperparams, key)) if key == "env_wrapper" else find(hyperparams, key)

    new = {"get_saved_hyperparams": get_saved_hyperparams, "create_test_env": create_test_env}
    with replaced(rl_zoo3.utils, **new, get_wrapper_class=get_wrapper_class), replaced(rl_zoo3.enjoy, **new):
        yield


@contextmanager
def report_missing_models_in_one_line() -> Iterator[None]:
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


def fresh_benchmark_results(options: argparse.Namespace) -> AbstractContextManager[None]:
    """
    ``benchmark`` of rl-zoo3 2.9.2 fails at environments with a slash and at unreadable settings. It also shows outdated
    results of agents that were trained again.

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
            agent = run_folder / f"{env}.zip"
            stored = Path(options.benchmark_dir, name)
            for result in stored.glob("*monitor.csv"):
                if agent.exists() and result.stat().st_mtime < agent.stat().st_mtime:
                    result.unlink()
            if stored.is_dir() and not any(stored.iterdir()):
                stored.rmdir()
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
