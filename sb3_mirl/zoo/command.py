"""rl-zoo3's commands, as ``sb3-mirl`` runs them: :func:`main` registers our algorithms and then runs the zoo's own command."""

import argparse
import importlib
import runpy
import socket
import sys
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack, suppress
from functools import partial

import gymnasium as gym

from sb3_mirl.common.command_parser import CommandParser
from sb3_mirl.common.inputs import UnsupportedError
from sb3_mirl.common.text import printable
from sb3_mirl.zoo.hyperparams import HyperparametersError
from sb3_mirl.zoo.manager import ExperimentManager
from sb3_mirl.zoo.model_card import complete_repository
from sb3_mirl.zoo.parsers import PLAYING_COMMANDS, NothingToDo, StoreDict, TrainParser, ZooParser, register_ours
from sb3_mirl.zoo.plots import figures_without_display, plots_of_named_environments, plots_of_single_runs
from sb3_mirl.zoo.recordings import checkpoints_once, ffmpeg_on_path, recordings_elsewhere, videos_on_servers
from sb3_mirl.zoo.register import ALGORITHMS, register
from sb3_mirl.zoo.runs import CommandError
from sb3_mirl.zoo.seeds import FailedRuns, SeedRuns
from sb3_mirl.zoo.workarounds import (
    before_upload,
    children_in_this_process,
    command_line,
    command_parser,
    environments_as_in_the_training,
    evaluations_with_masks,
    fresh_benchmark_results,
    hub_metadata,
    models_for_playing,
    no_banner_of_the_emulator,
    report_missing_models_in_one_line,
    training_classes,
)

#: What each command runs: a function of rl_zoo3, or a module to be run as a script
COMMANDS = {
    "train": "rl_zoo3.train:train",
    "enjoy": "rl_zoo3.enjoy:enjoy",
    "benchmark": "rl_zoo3.benchmark",
    "record-video": "rl_zoo3.record_video",
    "record-training": "rl_zoo3.record_training",
    "plot-train": "rl_zoo3.plots.plot_train:plot_train",
    "all-plots": "rl_zoo3.plots.all_plots:all_plots",
    "plot-from-file": "rl_zoo3.plots.plot_from_file:plot_from_file",
    "push-to-hub": "rl_zoo3.push_to_hub",
    "load-from-hub": "rl_zoo3.load_from_hub",
}

#: Commands that connect to the Hugging Face hub
HUB_COMMANDS = ("benchmark", "push-to-hub", "load-from-hub")


def main(arguments: list[str]) -> int:
    """
    Run one of :data:`COMMANDS`.

    :param arguments: its name and its arguments
    :return: exit status
    """
    command, *rest = arguments
    try:
        _run(command, rest)
    except HyperparametersError as error:
        print(f"sb3-mirl {command}: error in the hyper-parameters:\n{error}", file=sys.stderr)
        return 2
    except (CommandError, UnsupportedError, gym.error.DependencyNotInstalled) as error:
        print(f"sb3-mirl {command}: {printable(error)}", file=sys.stderr)
        return 2
    except NothingToDo as reason:
        print(reason)
    except FailedRuns as error:
        print(f"sb3-mirl {command}: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        cause = _connection_error(error)
        if cause is None or command not in HUB_COMMANDS:
            raise
        remedy = " (--no-hub leaves it out)" if command == "benchmark" else ""
        print(f"sb3-mirl {command}: no connection to the Hugging Face hub: {cause}{remedy}", file=sys.stderr)
        return 1
    return 0


def _connection_error(error: BaseException | None) -> OSError | None:
    """The connection error behind an error of huggingface_hub's HTTP library, httpx or requests; None for other errors."""
    if not type(error).__module__.startswith(("httpx", "requests", "huggingface_hub")):
        return None
    while error is not None and not isinstance(error, (socket.gaierror, ConnectionError, TimeoutError)):
        error = error.__cause__ or error.__context__
    return error


def _evaluation_of(arguments: list[str]) -> argparse.Namespace:
    """The seed and the number of environments (``n_envs``) with which rl-zoo3's ``push_to_hub`` evaluates."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n-envs", type=int, default=1)
    try:
        return parser.parse_known_args(arguments)[0]
    except argparse.ArgumentError:
        # rl-zoo3's parser will find the same error and end the command
        return parser.parse_args([])


def _work_arounds(command: str, options: argparse.Namespace) -> list[AbstractContextManager[None]]:
    """The contexts that work around known faults of a command. The parser of the command fills ``options``."""
    children = children_in_this_process(main)
    recording = (recordings_elsewhere(options), children, checkpoints_once(), ffmpeg_on_path(), videos_on_servers())
    by_command: dict[str, Iterable[AbstractContextManager[None]]] = {
        "train": (evaluations_with_masks(),),
        "enjoy": (report_missing_models_in_one_line(),),
        "record-video": (report_missing_models_in_one_line(), videos_on_servers()),
        "record-training": recording,
        "benchmark": (children, fresh_benchmark_results(options)),
        "push-to-hub": (hub_metadata(), report_missing_models_in_one_line(), videos_on_servers()),
        "plot-train": (figures_without_display(command), plots_of_named_environments()),
        "all-plots": (figures_without_display(command), plots_of_named_environments()),
        "plot-from-file": (figures_without_display(command), plots_of_single_runs()),
    }
    return list(by_command.get(command, ()))


def _run(command: str, arguments: list[str]) -> None:
    register()
    register_ours(*arguments)
    seed_runs, options = SeedRuns(), argparse.Namespace()
    parser = partial(TrainParser, seed_runs) if command == "train" else partial(ZooParser, command, options)
    with ExitStack() as stack:
        stack.enter_context(command_line(command, arguments))
        stack.enter_context(no_banner_of_the_emulator())
        if command in PLAYING_COMMANDS:
            stack.enter_context(models_for_playing(ALGORITHMS))
            stack.enter_context(environments_as_in_the_training())
        if command == "push-to-hub":
            evaluation = _evaluation_of(arguments)
            complete = partial(complete_repository, seed=evaluation.seed, n_envs=evaluation.n_envs)
            stack.enter_context(before_upload(complete))
        for work_around in _work_arounds(command, options):
            stack.enter_context(work_around)
        seed_runs.run(partial(_run_script, command, parser))


def _run_script(command: str, parser: Callable[[], CommandParser]) -> None:
    """Run rl-zoo3's code of a command, which makes its parser by ``parser()``."""
    module, _, function = COMMANDS[command].partition(":")
    with ExitStack() as stack:
        stack.enter_context(command_parser(module, not function, parser))
        stack.enter_context(training_classes(ExperimentManager, StoreDict))
        if function:
            getattr(importlib.import_module(module), function)()
        else:
            # runpy warns if rl_zoo3 has imported the module already
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", ".*found in sys.modules after import of package", RuntimeWarning)
            runpy.run_module(module, run_name="__main__")


class _Filled(Exception):
    """Raised when rl-zoo3 has added all options to a parser."""


def make_parser(command: str) -> CommandParser:
    """
    :param command: one of :data:`COMMANDS`
    :return: its parser, with the options of rl-zoo3
    """

    def stop(*_: object) -> None:
        raise _Filled

    register()
    parser = TrainParser(SeedRuns()) if command == "train" else ZooParser(command)
    parser.parse_args = stop  # type: ignore[method-assign, assignment]
    with suppress(_Filled), ExitStack() as stack:
        for work_around in _work_arounds(command, argparse.Namespace()):
            stack.enter_context(work_around)
        _run_script(command, lambda: parser)
    del parser.parse_args
    return parser
