"""
rl-zoo3's commands, as ``sb3-mirl`` runs them: :func:`main` registers our algorithms and then runs the zoo's own command.

``train`` has options of our own (:class:`TrainParser`), checks the hyper-parameters of our algorithms, writes checkpoints from
which a run can be resumed exactly, and resumes it (:class:`ExperimentManager`). It also trains several seeds jointly
(:mod:`sb3_mirl.zoo.seeds`).
"""

import argparse
import copy
import difflib
import importlib
import importlib.util
import io
import os
import runpy
import shutil
import sys
import warnings
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout
from functools import partial
from typing import Any, NamedTuple

import gymnasium as gym
import optuna
import rl_zoo3.exp_manager
import rl_zoo3.train
from stable_baselines3.common import callbacks
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_mirl.common.dqn import BaseDQN
from sb3_mirl.common.resume.callback import CheckpointCallback
from sb3_mirl.common.resume.reader import Checkpoint
from sb3_mirl.common.text import printable
from sb3_mirl.zoo.hyperparams import HyperparametersError, Places, check_hyperparameters, read_document, read_places
from sb3_mirl.zoo.model_card import complete_repository
from sb3_mirl.zoo.register import ALGORITHMS, OUR_ENVIRONMENTS, hyperparams_file, register
from sb3_mirl.zoo.runs import FREE_OPTIONS, CommandError, Run
from sb3_mirl.zoo.seeds import FailedRuns, SeedRuns, check_options, parse_seeds
from sb3_mirl.zoo.workarounds import (
    before_upload,
    command_line,
    masks_while_playing,
    small_replay_buffers,
    training_classes,
    work_arounds,
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
#: Commands that load a trained agent only to let it act
PLAYING_COMMANDS = ("enjoy", "record-video", "push-to-hub")


class NothingToDo(Exception):
    """The command has nothing to do, for the reason in its text."""


class Resumed(NamedTuple):
    """A run to be continued, and the checkpoint to continue from."""

    run: Run
    checkpoint: Checkpoint


# ---- train ----------------------------------------------------------------------------------------------------------


class ExperimentManager(rl_zoo3.exp_manager.ExperimentManager):
    """
    rl-zoo3's ``ExperimentManager``. It accepts ``--trial-id 0``, and its hyper-parameter search leaves no run folder behind.

    For our algorithms it checks the hyper-parameters, writes checkpoints with :class:`sb3_mirl.CheckpointCallback`, and
    continues a run if ``args`` has the attribute ``resume``, a :class:`Resumed`. With the attribute ``seed_runs``, a
    :class:`~sb3_mirl.zoo.seeds.SeedRuns`, the model is trained and saved later, with those of other seeds.
    """

    def __init__(self, args: argparse.Namespace, *arguments: Any, **kwargs: Any) -> None:
        super().__init__(args, *arguments, **kwargs)
        self.resumed: Resumed | None = vars(args).pop("resume", None)
        self.seed_runs: SeedRuns | None = vars(args).pop("seed_runs", None)
        # There is one progress bar for all seeds
        self.show_progress &= self.seed_runs is None
        if self.resumed is not None:
            self.continue_training = True
            self.save_path = str(self.resumed.run.folder)
            self.params_path = f"{self.save_path}/{self.env_name}"

    def read_hyperparameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """
        Read the hyper-parameters and, for our algorithms, check them.

        :return: what the zoo preprocesses, and what it saves
        :raises HyperparametersError: if there are mistakes in them
        """
        if self.resumed is not None:
            step = self.resumed.checkpoint.manifest["num_timesteps"]
            print(f"Resuming {self.save_path} at step {step}, with its hyper-parameters")
            return copy.deepcopy(self.resumed.run.hyperparams), self.resumed.run.hyperparams
        places, section = self.check_file()
        hyperparams, saved_hyperparams = self.read_unchecked()
        if self.algo not in ALGORITHMS:
            return hyperparams, saved_hyperparams
        places |= dict.fromkeys(self.custom_hyperparams or {}, "-params")
        evaluated = check_hyperparameters(ALGORITHMS[self.algo], self.env_name.gym_id, hyperparams, places, section)
        # A copy, because rl-zoo3 adds gamma to a dict `normalize` before it saves it
        return {**copy.deepcopy(hyperparams), **evaluated}, saved_hyperparams

    def check_file(self) -> tuple[Places, str]:
        """
        Check the form of a YAML file of hyper-parameters.

        :return: for our algorithms the places of the hyper-parameters and of their section
        :raises HyperparametersError: if it is not valid
        """
        if self.config.endswith((".yml", ".yaml")):
            root = read_document(self.config)
            if self.algo in ALGORITHMS:
                return read_places(self.config, root, self.env_name.gym_id, self._is_atari)
        return {}, self.config

    def read_unchecked(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """rl-zoo3's ``read_hyperparameters``, which takes ``--trial-id 0`` for "no trial" and would use the defaults."""
        if self.trial_id is not None and not (self.storage and self.study_name):
            raise CommandError("--trial-id needs --storage and --study-name, to say of which study it is")
        if self.trial_id == 0:
            print("Loading from Optuna study...")
            trial = self.load_trial(str(self.storage), str(self.study_name), 0)
            self.custom_hyperparams = {**trial, **(self.custom_hyperparams or {})}
        return super().read_hyperparameters()

    def load_trial(self, storage: str, study_name: str, trial_id: int | None = None, convert: bool = True) -> dict[str, Any]:
        """
        rl-zoo3's ``load_trial``, after checking that there is such a trial.

        :raises CommandError: if there is none
        """
        is_log = storage.endswith(".log")
        journal = optuna.storages.journal.JournalFileBackend  # type: ignore[attr-defined]
        backend = optuna.storages.JournalStorage(journal(storage)) if is_log else storage
        try:
            trials = optuna.load_study(storage=backend, study_name=study_name).trials
        except KeyError as error:
            raise CommandError(f"--study-name must be a study in {storage}, got {study_name!r}") from error
        if trial_id is not None and trial_id not in range(len(trials)):
            among = f"from 0 to {len(trials) - 1}" if trials else "but there is none"
            raise CommandError(f"--trial-id must be a trial of study {study_name!r}, {among}, got {trial_id}")
        return super().load_trial(storage, study_name, trial_id, convert)

    def create_callbacks(self) -> None:
        """rl-zoo3's callbacks, with our checkpoints for our algorithms."""
        n_before = len(self.callbacks)
        super().create_callbacks()
        if self.algo not in ALGORITHMS:
            return
        for index, callback in enumerate(self.callbacks):
            if index >= n_before and type(callback) is callbacks.CheckpointCallback:
                self.callbacks[index] = CheckpointCallback(
                    callback.save_freq, self.save_path, keep=self.args.keep_checkpoints, verbose=self.verbose
                )

    def _load_pretrained_agent(self, hyperparams: dict[str, Any], env: VecEnv) -> Any:
        if self.resumed is None:
            return super()._load_pretrained_agent(hyperparams, env)
        settings = {"tensorboard_log": self.tensorboard_log, "verbose": self.verbose}
        try:
            return ALGORITHMS[self.algo].resume_checkpoint(self.resumed.checkpoint, env, self.device, **settings)
        except ValueError as error:
            raise CommandError(f"{self.save_path} cannot be resumed: {error}") from error

    def _save_config(self, saved_hyperparams: dict[str, Any]) -> None:
        if self.resumed is None:
            super()._save_config(saved_hyperparams)

    def learn(self, model: BaseAlgorithm) -> None:
        """rl-zoo3's training; one of several seeds waits for the others."""
        if self.seed_runs is None:
            super().learn(model)
        else:
            assert isinstance(model, BaseDQN)
            self.seed_runs.add(self, model)

    def save_trained_model(self, model: BaseAlgorithm) -> None:
        """rl-zoo3's; one of several seeds is saved later."""
        if self.seed_runs is None:
            super().save_trained_model(model)

    def hyperparameters_optimization(self) -> None:
        """rl-zoo3's search, without the run folder: it holds no model, but ``enjoy`` would take it for the latest run."""
        try:
            super().hyperparameters_optimization()
        finally:
            shutil.rmtree(self.save_path, ignore_errors=True)


class TrainParser(argparse.ArgumentParser):
    """
    The parser of ``train``: rl-zoo3's, with our options, our hyper-parameter files and the arguments of a resumed run.

    :param seed_runs: the runs of this command, if it has ``--seeds``; each parsing gives the arguments of the next run
    """

    _NOT_GIVEN = object()

    def __init__(self, seed_runs: SeedRuns) -> None:
        super().__init__()
        self._seed_runs = seed_runs
        ours = self.add_argument_group(f"with {', '.join(ALGORITHMS)}")
        ours.add_argument(
            "--keep-checkpoints",
            metavar="K",
            help="How many checkpoints (--save-freq) of a run to keep: the newest ones (default: 3)",
            type=_positive,
            default=3,
        )
        ours.add_argument(
            "--resume",
            metavar="FOLDER",
            help="Continue an interrupted run from its newest checkpoint, as if it had not been interrupted, with its own "
            "settings. FOLDER is a run folder such as logs/mirl/CartPole-v1_1. Without it: the newest run of the algorithm, "
            "the environment and --seed, if given, in the log folder; if that run is finished, nothing is done, and if it has "
            "no checkpoint, a new run begins. With -n, a finished run continues to that many steps",
            nargs="?",
            const="",
        )
        ours.add_argument(
            "--seeds",
            help="Train several seeds at once, such as 0-9, 3,5,8 or 0-4,10, in a fraction of the time of single commands. "
            "Each seed gets the run folder that the command with --seed would write; results differ by rounding",
            type=parse_seeds,
        )

    def parse_args(self, args: Any = None, namespace: Any = None) -> argparse.Namespace:  # type: ignore[override]
        """
        Parse the command line, complete it, and register the environment.

        :raises CommandError: if the command line is not accepted
        :raises NothingToDo: if the run to be resumed is finished
        """
        # Parsing once: values of -params are evaluated
        defaults = vars(super().parse_args([]))
        given = super().parse_args(args, argparse.Namespace(**dict.fromkeys(defaults, self._NOT_GIVEN)))
        options = {name: value for name, value in vars(given).items() if value is not self._NOT_GIVEN}
        parsed = argparse.Namespace(**{**defaults, **options})
        if (seeds := vars(parsed).pop("seeds")) is not None:
            check_options(options, parsed.algo, ALGORITHMS)
            parsed.seed, parsed.seed_runs = self._seed_runs.next_seed(seeds), self._seed_runs
        if parsed.resume is None:
            if parsed.algo not in ALGORITHMS and "keep_checkpoints" in options:
                raise CommandError(f"--keep-checkpoints is for --algo {' or '.join(ALGORITHMS)}, got {parsed.algo}")
        elif run := _run_to_resume(parsed):
            return _arguments_of_resumed_run(run, parsed, options)
        del parsed.resume
        _register_environment(parsed.env, parsed.gym_packages)
        if parsed.algo not in ALGORITHMS:
            del parsed.keep_checkpoints
        elif parsed.conf_file is None:
            parsed.conf_file = str(hyperparams_file(parsed.algo))
        return parsed


class StoreDict(rl_zoo3.train.StoreDict):
    """rl-zoo3's action for ``key:value``, with an error that names a value that cannot be evaluated."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Evaluate ``values`` and store them as a dict."""
        evaluated: dict[str, Any] = {}
        for value in values:
            single = argparse.Namespace()
            try:
                super().__call__(parser, single, [value], option_string)
            except Exception as error:
                parser.error(f"{option_string} takes key:value with a value in Python, got {value!r} ({printable(error)})")
            evaluated |= vars(single)[self.dest]
        setattr(namespace, self.dest, evaluated)


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer, got {text}")
    return value


def _register_environment(env: str, packages: list[str]) -> None:
    """
    Import ``--gym-packages``, and check that the environment is registered. Those of :data:`OUR_ENVIRONMENTS` are registered
    without them.

    :raises CommandError: if it is not registered
    """
    for module in packages:
        importlib.import_module(module)
    _register_ours(env)
    if env not in gym.registry:
        close = difflib.get_close_matches(env, gym.registry, n=1)
        remedy = f"did you mean {close[0]}?" if close else "--gym-packages names modules that register environments"
        if ("NoFrameskip-v" in env or env.startswith("ALE/")) and importlib.util.find_spec("ale_py") is None:
            remedy = "Atari games need pip install 'sb3-mirl[atari]'"
        raise CommandError(f"--env must be registered with Gymnasium, got {env!r}: {remedy}")


def _register_ours(*arguments: str) -> None:
    for start, module in OUR_ENVIRONMENTS.items():
        if any(argument.rpartition("=")[2].startswith(start) for argument in arguments):
            importlib.import_module(module)


# ---- train --resume -------------------------------------------------------------------------------------------------


def _run_to_resume(parsed: argparse.Namespace) -> Run | None:
    """The run that ``--resume`` refers to, or None if a new run is to begin."""
    run = Run(parsed.resume) if parsed.resume else None
    algorithm = run.args["algo"] if run else parsed.algo
    if algorithm not in ALGORITHMS:
        raise CommandError(f"--resume is for --algo {' or '.join(ALGORITHMS)}, got {algorithm}")
    if parsed.optimize_hyperparameters:
        raise CommandError("--resume continues a training, not a search (--optimize-hyperparameters)")
    if run:
        if not (run.has_checkpoint or run.finished):
            raise CommandError(f"--resume must be followed by a run folder with a checkpoint, got {parsed.resume!r}")
        return run
    seed = parsed.seed if parsed.seed >= 0 else None
    run = Run.newest(parsed.log_folder, parsed.algo, parsed.env, seed)
    if run and (run.has_checkpoint or run.finished):
        return run
    which = f"{parsed.algo} on {parsed.env}" + (f" with seed {seed}" if seed is not None else "")
    what = f"{run.folder}, the newest run of {which}, has no checkpoint" if run else f"There is no run of {which}"
    print(f"{what}: a new one begins" + ("" if parsed.save_freq > 0 else ", which cannot be resumed without --save-freq"))
    return None


def _arguments_of_resumed_run(run: Run, parsed: argparse.Namespace, options: dict[str, Any]) -> argparse.Namespace:
    """
    The arguments of a run, with those options of the command line that may differ from it.

    :raises CommandError: if the command line contradicts the run, or if its checkpoints are damaged
    :raises NothingToDo: if the run is finished
    """
    _register_environment(run.args["env"], parsed.gym_packages or run.args["gym_packages"])
    longer = run.finished and options.get("n_timesteps", 0) > run.n_timesteps
    compared = {name: value for name, value in options.items() if not (longer and name == "n_timesteps")}
    run.check(compared, parsed.hyperparams or {})
    if "conf_file" in options:
        run.check({}, _hyperparams_of_command_line(run, parsed))
    if run.finished and not longer:
        raise NothingToDo(f"{run.folder} is finished: nothing to resume")
    try:
        checkpoint = Checkpoint.newest(run.folder)
    except FileNotFoundError as error:
        remedy = f"-i {run.model_file} begins a new run with its model"
        raise CommandError(f"{run.folder} has no checkpoint (--save-freq) to continue from: {remedy}") from error
    except ValueError as error:
        raise CommandError(f"{run.folder} cannot be resumed: {error}") from error
    if longer:
        run.extend(options["n_timesteps"])
    differing = {name: value for name, value in options.items() if name in FREE_OPTIONS}
    args = argparse.Namespace(**{**vars(parsed), **run.args, **differing, "resume": Resumed(run, checkpoint)})
    # Only its statistics of VecNormalize would be read, which the checkpoint replaces
    args.trained_agent = args.trained_agent if os.path.isfile(args.trained_agent) else ""
    return args


def _hyperparams_of_command_line(run: Run, parsed: argparse.Namespace) -> dict[str, Any]:
    """The hyper-parameters that the command line gives to a run: those of its file and all that it adds to them."""
    names = ("hyperparams", "env_kwargs", "eval_env_kwargs", "storage", "study_name", "trial_id")
    settings = {name: getattr(parsed, name) for name in names}
    manager = ExperimentManager(
        argparse.Namespace(), run.args["algo"], run.args["env"], parsed.log_folder, config=parsed.conf_file, **settings
    )
    manager.check_file()
    with redirect_stdout(io.StringIO()):
        # Values are not checked: that would evaluate code which is not used
        return manager.read_unchecked()[1]


# ---- running a command ----------------------------------------------------------------------------------------------


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
    except (CommandError, gym.error.DependencyNotInstalled) as error:
        print(f"sb3-mirl {command}: {printable(error)}", file=sys.stderr)
        return 2
    except NothingToDo as reason:
        print(reason)
    except FailedRuns as error:
        print(f"sb3-mirl {command}: {error}", file=sys.stderr)
        return 1
    return 0


def _seed_of(arguments: list[str]) -> int:
    """The seed with which rl-zoo3's ``push_to_hub`` evaluates."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--seed", type=int, default=0)
    return int(parser.parse_known_args(arguments)[0].seed)


def _run(command: str, arguments: list[str]) -> None:
    register()
    _register_ours(*arguments)
    module_name, _, function_name = COMMANDS[command].partition(":")
    seed_runs = SeedRuns()
    with ExitStack() as stack:
        stack.enter_context(command_line(command, arguments))
        stack.enter_context(training_classes(ExperimentManager, StoreDict, partial(TrainParser, seed_runs)))
        if command in PLAYING_COMMANDS:
            stack.enter_context(small_replay_buffers(ALGORITHMS))
            stack.enter_context(masks_while_playing(ALGORITHMS))
        if command == "push-to-hub":
            stack.enter_context(before_upload(partial(complete_repository, seed=_seed_of(arguments))))
        for work_around in work_arounds(command, main):
            stack.enter_context(work_around)
        if function_name:
            script: Callable[[], None] = getattr(importlib.import_module(module_name), function_name)
            seed_runs.run(script)
        else:
            # rl_zoo3 has imported some of them already
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", ".*found in sys.modules after import of package", RuntimeWarning)
            runpy.run_module(module_name, run_name="__main__")
