"""
rl-zoo3 with MIRL in it: :func:`register`, and :func:`main`, the zoo's commands of ``sb3-mirl``, which registers and then
runs the zoo's own command.
"""

import argparse
import copy
import difflib
import functools
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
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import gymnasium as gym
from stable_baselines3.common import callbacks
from stable_baselines3.common.vec_env import VecEnv

import sb3_mirl
from sb3_mirl.common.buffers import DeviceReplayBuffer, FrameReplayBuffer
from sb3_mirl.common.resume.reader import Checkpoint

try:
    import optuna
    import rl_zoo3
    import rl_zoo3.exp_manager
    import rl_zoo3.hyperparams_opt
    import rl_zoo3.train
except ImportError as error:
    raise ImportError(f"sb3_mirl.zoo needs rl-zoo3 ({error}): pip install 'sb3-mirl[zoo]'") from error

from sb3_mirl.common.text import printable
from sb3_mirl.zoo.hyperparams import HyperparametersError, Places, check_hyperparameters, read_document, read_places
from sb3_mirl.zoo.runs import FREE, CommandError, Run
from sb3_mirl.zoo.workarounds import WORK_AROUNDS

ALGORITHMS: dict[str, type[sb3_mirl.MIRL]] = {"mirl": sb3_mirl.MIRL, "sql": sb3_mirl.SQL, "sql_m": sb3_mirl.SQLm}

# What each command runs: a function of rl_zoo3, or a module to be run as a script
COMMANDS = {
    "train": "rl_zoo3.train:train",
    "enjoy": "rl_zoo3.enjoy:enjoy",
    "record-video": "rl_zoo3.record_video",
    "record-training": "rl_zoo3.record_training",
    "plot-train": "rl_zoo3.plots.plot_train:plot_train",
    "all-plots": "rl_zoo3.plots.all_plots:all_plots",
    "plot-from-file": "rl_zoo3.plots.plot_from_file:plot_from_file",
    "push-to-hub": "rl_zoo3.push_to_hub",
    "load-from-hub": "rl_zoo3.load_from_hub",
    "benchmark": "rl_zoo3.benchmark",
}
# Those that play a trained agent and never train it
PLAYING_COMMANDS = ("enjoy", "record-video", "push-to-hub")


def register() -> None:
    """
    Put ``mirl``, ``sql`` and ``sql_m`` beside rl-zoo3's own algorithms, with what it needs to tune them.

    Calling it again changes nothing.
    """
    rl_zoo3.ALGOS.update(ALGORITHMS)
    # Where the zoo evaluates a file's replay_buffer_class, as it does with HerReplayBuffer
    rl_zoo3.exp_manager.FrameReplayBuffer = FrameReplayBuffer  # type: ignore[attr-defined]
    rl_zoo3.exp_manager.DeviceReplayBuffer = DeviceReplayBuffer  # type: ignore[attr-defined]
    for name in ALGORITHMS:
        sample = functools.partial(sample_hyperparams, name)
        rl_zoo3.hyperparams_opt.HYPERPARAMS_SAMPLER[name] = sample
        rl_zoo3.hyperparams_opt.HYPERPARAMS_CONVERTER[name] = rl_zoo3.hyperparams_opt.convert_offpolicy_params


def sample_hyperparams(
    algorithm: str, trial: "optuna.Trial", n_actions: int, n_envs: int, additional_args: dict[str, Any]
) -> dict[str, Any]:
    """
    Hyper-parameters for one trial: those of DQN, and those of ρ and β.

    :param algorithm: ``"mirl"``, ``"sql"`` or ``"sql_m"``
    :param trial: the trial that suggests
    :param n_actions: as rl-zoo3 passes it
    :param n_envs: as rl-zoo3 passes it
    :param additional_args: as rl-zoo3 passes it
    :return: constructor arguments
    """
    hyperparams = rl_zoo3.hyperparams_opt.sample_dqn_params(trial, n_actions, n_envs, additional_args)
    hyperparams["loss"] = trial.suggest_categorical("loss", ["mse", "huber"])
    # From "a memory longer than the run" to "a memory of one episode"
    if algorithm != "sql":
        hyperparams["prior_lr"] = trial.suggest_float("prior_lr", 1e-6, 1e-2, log=True)
    # β is in 1/reward: scales differ by orders of magnitude between environments. All of its arguments are sampled, so
    # that none of the file's is left to contradict them (beta_init <= beta_max)
    hyperparams["beta_schedule"] = trial.suggest_categorical("beta_schedule", ["normalized", "adaptive", "linear"])
    hyperparams["beta_scale"] = trial.suggest_float("beta_scale", 1e0, 3e2, log=True)
    hyperparams["beta_init"] = trial.suggest_float("beta_init", 1e-3, 1e1, log=True)
    hyperparams["beta_lr"] = trial.suggest_float("beta_lr", 1e-6, 1e-2, log=True)
    hyperparams["beta_max"] = trial.suggest_float("beta_max", 1e1, 1e4, log=True)
    return hyperparams


def hyperparams_file(algorithm: str) -> Path:
    """
    The YAML file of hyper-parameters that comes with this package.

    :param algorithm: ``"mirl"``, ``"sql"`` or ``"sql_m"``; others may have a file for ``sb3-mirl bench``
    """
    package = Path(sb3_mirl.__file__).parent
    # Inside the package when installed from a wheel, beside it in a checkout
    folder = package / "hyperparams" if (package / "hyperparams").is_dir() else package.parent / "hyperparams"
    return folder / f"{algorithm}.yml"


class ExperimentManager(rl_zoo3.exp_manager.ExperimentManager):
    """
    rl-zoo3's, less two surprises of its hyper-parameter search. Our algorithms' hyper-parameters are checked, and their
    checkpoints are :class:`sb3_mirl.CheckpointCallback`'s; with ``args.resume`` the run of that checkpoint goes on.
    """

    def __init__(self, args: argparse.Namespace, *arguments: Any, **kwargs: Any) -> None:
        super().__init__(args, *arguments, **kwargs)
        self.resumed: Resumed | None = vars(args).pop("resume", None)
        if self.resumed is not None:
            self.continue_training = True
            self.save_path = str(self.resumed.run.folder)
            self.params_path = f"{self.save_path}/{self.env_name}"

    def read_hyperparameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        if self.resumed is not None:
            step = self.resumed.checkpoint.manifest["num_timesteps"]
            print(f"Resuming {self.save_path} at step {step}, with its hyper-parameters")
            return copy.deepcopy(self.resumed.run.hyperparams), self.resumed.run.hyperparams
        env, places, section = self.env_name.gym_id, Places(), self.config
        if self.config.endswith((".yml", ".yaml")):
            root = read_document(self.config)
            if self.algo in ALGORITHMS:
                places, section = read_places(self.config, root, env, self._is_atari)
        hyperparams, saved_hyperparams = self.read_unchecked()
        if self.algo not in ALGORITHMS:
            return hyperparams, saved_hyperparams
        places |= dict.fromkeys(self.custom_hyperparams or {}, "-params")
        evaluated = check_hyperparameters(ALGORITHMS[self.algo], env, hyperparams, places, section)
        # A copy, since rl-zoo3 adds gamma to a dict `normalize` before it saves it
        return {**copy.deepcopy(hyperparams), **evaluated}, saved_hyperparams

    def read_unchecked(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """rl-zoo3's, which takes --trial-id 0 for "no trial given" and trains with the defaults."""
        if self.trial_id is not None and not (self.storage and self.study_name):
            raise CommandError("--trial-id needs --storage and --study-name, to say of which study it is")
        if self.trial_id == 0:
            print("Loading from Optuna study...")
            trial = self.load_trial(str(self.storage), str(self.study_name), 0)
            self.custom_hyperparams = {**trial, **(self.custom_hyperparams or {})}
        return super().read_hyperparameters()

    def load_trial(self, storage: str, study_name: str, trial_id: int | None = None, convert: bool = True) -> dict[str, Any]:
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
        n_before = len(self.callbacks)
        super().create_callbacks()
        if self.algo not in ALGORITHMS:
            return
        for index, callback in enumerate(self.callbacks):
            if index >= n_before and type(callback) is callbacks.CheckpointCallback:
                self.callbacks[index] = sb3_mirl.CheckpointCallback(
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

    def hyperparameters_optimization(self) -> None:
        # Its run folder holds no model, but `enjoy` would take it for the latest run
        try:
            super().hyperparameters_optimization()
        finally:
            shutil.rmtree(self.save_path, ignore_errors=True)


class _Finished(Exception):
    """There is nothing to do, for this reason."""


class Resumed(NamedTuple):
    """A run that goes on, and from where."""

    run: Run
    checkpoint: Checkpoint


def _register_environment(env: str, packages: list[str]) -> None:
    """
    ``--gym-packages``, which MinAtar's games do not need.

    :raises CommandError: if the environment is not registered then
    """
    for module in packages:
        importlib.import_module(module)
    _register_minatar(env)
    if env not in gym.registry:
        close = difflib.get_close_matches(env, gym.registry, n=1)
        remedy = f"did you mean {close[0]}?" if close else "--gym-packages names modules that register environments"
        if ("NoFrameskip-v" in env or env.startswith("ALE/")) and importlib.util.find_spec("ale_py") is None:
            remedy = "Atari games need pip install 'sb3-mirl[atari]'"
        raise CommandError(f"--env must be registered with Gymnasium, got {env!r}: {remedy}")


def _register_minatar(*names: str) -> None:
    if any(name.rpartition("=")[2].startswith("MinAtar/") for name in names):
        importlib.import_module("sb3_mirl.envs.minatar")


def _hyperparams(run: Run, parsed: argparse.Namespace) -> dict[str, Any]:
    """Hyper-parameters that the command line has for a run: those of its file with all that it adds to them."""
    names = ("hyperparams", "env_kwargs", "eval_env_kwargs", "storage", "study_name", "trial_id")
    settings = {name: getattr(parsed, name) for name in names}
    manager = ExperimentManager(
        argparse.Namespace(), run.args["algo"], run.args["env"], parsed.log_folder, config=parsed.conf_file, **settings
    )
    if manager.config.endswith((".yml", ".yaml")):
        read_places(manager.config, read_document(manager.config), run.args["env"], manager._is_atari)
    with redirect_stdout(io.StringIO()):
        # Not checked, which would evaluate what is not used
        return manager.read_unchecked()[1]


class TrainParser(argparse.ArgumentParser):
    """rl-zoo3's parser of ``train``, with our options. It has our file of hyper-parameters, and reads those of a run again."""

    _NOT_GIVEN = object()

    def __init__(self, *arguments: Any, **kwargs: Any) -> None:
        super().__init__(*arguments, **kwargs)
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
            help="Go on with an interrupted run from its newest checkpoint, as if it had not been interrupted, and with its "
            "own settings. FOLDER is a run folder such as logs/mirl/CartPole-v1_1. Without it: the newest run of the "
            "algorithm and environment (and --seed, if given) in the log folder; if that is finished, nothing is done, and "
            "if it has no checkpoint, a new run begins. With -n, a finished run goes on to that many steps",
            nargs="?",
            const="",
        )

    def parse_args(self, args: Any = None, namespace: Any = None) -> argparse.Namespace:  # type: ignore[override]
        # Once only: what is given with -params is evaluated
        defaults = vars(super().parse_args([]))
        given = super().parse_args(args, argparse.Namespace(**dict.fromkeys(defaults, self._NOT_GIVEN)))
        options = {name: value for name, value in vars(given).items() if value is not self._NOT_GIVEN}
        parsed = argparse.Namespace(**{**defaults, **options})
        if parsed.resume is None:
            if parsed.algo not in ALGORITHMS and "keep_checkpoints" in options:
                raise CommandError(f"--keep-checkpoints is for --algo {' or '.join(ALGORITHMS)}, got {parsed.algo}")
        elif run := _run_to_resume(parsed, options):
            return _resumed(run, parsed, options)
        del parsed.resume
        _register_environment(parsed.env, parsed.gym_packages)
        if parsed.algo not in ALGORITHMS:
            del parsed.keep_checkpoints
        elif parsed.conf_file is None:
            parsed.conf_file = str(hyperparams_file(parsed.algo))
        return parsed


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer, got {text}")
    return value


def _run_to_resume(parsed: argparse.Namespace, options: dict[str, Any]) -> Run | None:
    """The run that ``--resume`` means; None: a new one."""
    run = Run(parsed.resume) if parsed.resume else None
    algorithm = run.args["algo"] if run else parsed.algo
    if algorithm not in ALGORITHMS:
        raise CommandError(f"--resume is for --algo {' or '.join(ALGORITHMS)}, got {algorithm}")
    if parsed.optimize_hyperparameters:
        raise CommandError("--resume goes on with a training, not with a search (--optimize-hyperparameters)")
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


def _resumed(run: Run, parsed: argparse.Namespace, options: dict[str, Any]) -> argparse.Namespace:
    """
    The arguments of a run, with those of the command line that may differ.

    :raises CommandError: if the command line contradicts the run, or if its checkpoints are damaged
    :raises _Finished: if it is finished
    """
    _register_environment(run.args["env"], parsed.gym_packages or run.args["gym_packages"])
    longer = run.finished and options.get("n_timesteps", 0) > run.n_timesteps
    compared = {name: value for name, value in options.items() if not (longer and name == "n_timesteps")}
    run.check(compared, parsed.hyperparams or {})
    if "conf_file" in options:
        run.check({}, _hyperparams(run, parsed))
    if run.finished and not longer:
        raise _Finished(f"{run.folder} is finished: nothing to resume")
    try:
        checkpoint = Checkpoint.newest(run.folder)
    except FileNotFoundError as error:
        raise CommandError(
            f"{run.folder} has no checkpoint (--save-freq) to go on from: -i {run.model_file} begins a new run with its model"
        ) from error
    except ValueError as error:
        raise CommandError(f"{run.folder} cannot be resumed: {error}") from error
    if longer:
        run.extend(options["n_timesteps"])
    differing = {name: value for name, value in options.items() if name in FREE}
    args = argparse.Namespace(**{**vars(parsed), **run.args, **differing, "resume": Resumed(run, checkpoint)})
    # Of it only the statistics of VecNormalize would be read, and then replaced by the checkpoint's
    args.trained_agent = args.trained_agent if os.path.isfile(args.trained_agent) else ""
    return args


class StoreDict(rl_zoo3.train.StoreDict):
    """rl-zoo3's ``key:value``, which says what it cannot evaluate."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option_string: str | None = None) -> None:
        evaluated: dict[str, Any] = {}
        for value in values:
            one = argparse.Namespace()
            try:
                super().__call__(parser, one, [value], option_string)
            except Exception as error:
                parser.error(f"{option_string} takes key:value with a value in Python, got {value!r} ({printable(error)})")
            evaluated |= vars(one)[self.dest]
        setattr(namespace, self.dest, evaluated)


def _for_playing(algorithm: type[sb3_mirl.MIRL]) -> type[sb3_mirl.MIRL]:
    """
    The algorithm, loaded with room for one transition.

    rl-zoo3 does the same for the off-policy algorithms that it knows by name. Any other would get the replay buffer that
    it was trained with: for Atari more memory than many a machine has.
    """

    def load(cls: type[sb3_mirl.MIRL], *args: Any, **kwargs: Any) -> sb3_mirl.MIRL:
        return algorithm.load(*args, **{"buffer_size": 1, "optimize_memory_usage": False, **kwargs})

    return type(algorithm.__name__, (algorithm,), {"load": classmethod(load)})


def main(arguments: list[str]) -> int:
    """
    One of :data:`COMMANDS`.

    :param arguments: its name, and its arguments
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
    except _Finished as reason:
        print(reason)
    return 0


def _run(command: str, arguments: list[str]) -> None:
    register()
    _register_minatar(*arguments)
    module_name, _, function_name = COMMANDS[command].partition(":")
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(sys, "argv", [f"sb3-mirl {command}", *arguments]))
        stack.enter_context(mock.patch.object(rl_zoo3.train, "ExperimentManager", ExperimentManager))
        stack.enter_context(mock.patch.object(rl_zoo3.train, "StoreDict", StoreDict))
        stack.enter_context(mock.patch.object(rl_zoo3.train, "argparse", SimpleNamespace(ArgumentParser=TrainParser)))
        if command in PLAYING_COMMANDS:
            players = {name: _for_playing(algorithm) for name, algorithm in ALGORITHMS.items()}
            stack.enter_context(mock.patch.dict(rl_zoo3.ALGOS, players))
        for work_around in WORK_AROUNDS.get(command, ()):
            stack.enter_context(work_around())
        if function_name:
            script: Callable[[], None] = getattr(importlib.import_module(module_name), function_name)
            script()
        else:
            # rl_zoo3 has imported some of them already
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", ".*found in sys.modules after import of package", RuntimeWarning)
            runpy.run_module(module_name, run_name="__main__")
