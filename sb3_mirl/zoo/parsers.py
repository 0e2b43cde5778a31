"""
The command lines of rl-zoo3's commands: its parsers with our help (:class:`ZooParser`) and, for ``train``, with options of our
own, our hyper-parameter files and the arguments of a resumed run (:class:`TrainParser`).
"""

import argparse
import importlib
import importlib.util
import io
import os
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import gymnasium as gym
import rl_zoo3.train

from sb3_mirl.common.command_parser import CommandParser
from sb3_mirl.common.resume.reader import Checkpoint
from sb3_mirl.common.text import did_you_mean, printable
from sb3_mirl.zoo.checks import (
    check_env_kwargs,
    check_exists,
    check_plotted_runs,
    check_recorded_run,
    check_trained_agent,
    import_packages,
    parse_device,
    parse_steps,
)
from sb3_mirl.zoo.help import DEFAULTS_IN_WORDS, GROUPS, HELP
from sb3_mirl.zoo.manager import ExperimentManager, Resumed
from sb3_mirl.zoo.register import ALGORITHMS, OUR_ENVIRONMENTS, hyperparams_file
from sb3_mirl.zoo.runs import FREE_OPTIONS, CommandError, Run
from sb3_mirl.zoo.seeds import SeedRuns, check_options, parse_seeds

#: Commands that load a trained agent only to let it act
PLAYING_COMMANDS = ("enjoy", "record-video", "push-to-hub")

#: Options without which commands of rl-zoo3 end with a traceback: for each command, by the name of the parsed value
REQUIRED = {"all-plots": {"algos": "-a", "env": "-e", "exp_folders": "-f"}, "plot-from-file": {"input": "-i"}}
#: rl-zoo3's default for the folder of agents; what is not there is downloaded
DOWNLOADS = "rl-trained-agents"
#: Values of TRUST_REMOTE_CODE with which huggingface_sb3 loads files that can run code, in any case
TRUSTING = ("true", "t", "yes", "y", "on", "1")


class NothingToDo(Exception):
    """The command has nothing to do, for the reason in its text."""


class ZooParser(CommandParser):
    """
    The parser that a command of rl-zoo3 fills with its options, with our description and examples.

    :param command: the command's name
    :param options: gets the options that are parsed
    """

    def __init__(self, command: str, options: argparse.Namespace | None = None) -> None:
        description, examples = HELP[command]
        self._command = command
        self._options = options if options is not None else argparse.Namespace()
        super().__init__(prog=f"sb3-mirl {command}", description=description, examples=examples)

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        """As argparse. Checks ``--device``, and describes the defaults of ``--benchmark-dir`` and ``--folder`` in words."""
        if names[-1] == "--device":
            settings["type"] = parse_device
        if names[-1] == "--benchmark-dir":
            settings |= {"default": None, "help": f"{settings['help']} (default: benchmark in --log-dir)"}
        if settings.get("default") == DOWNLOADS:
            settings["help"] += f" (default: {DOWNLOADS}, or logs where that has no agents of the algorithm)"
        return super().add_argument(*names, **settings)

    def parse_args(self, args: Any = None, namespace: Any = None) -> argparse.Namespace:  # type: ignore[override]
        """
        Parse the command line, check its files and folders and, where an agent is to act, register its environment.

        :raises CommandError: if a check fails, or if files that can run code are not allowed to be loaded
        """
        parsed = super().parse_args(args, namespace)
        if getattr(parsed, "folder", None) == DOWNLOADS and not os.path.isdir(os.path.join(DOWNLOADS, parsed.algo)):
            if parsed.algo in ALGORITHMS:
                # rl-trained-agents has no agents of our algorithms
                parsed.folder = "logs"
            elif self._command == "enjoy":
                _check_trust(f"{DOWNLOADS} has no agent of {parsed.algo}, and -f names no other folder: ")
        if self._command == "load-from-hub":
            _check_trust()
        if self._command in (*PLAYING_COMMANDS, "record-training"):
            env = getattr(parsed.env, "gym_id", parsed.env)
            register_environment(env, getattr(parsed, "gym_packages", []))
            check_env_kwargs("--env-kwargs", env, getattr(parsed, "env_kwargs", None))
        self._check_inputs(parsed)
        vars(self._options).update(vars(parsed))
        return parsed

    def _check_inputs(self, parsed: argparse.Namespace) -> None:
        required = REQUIRED.get(self._command, {})
        if missing := [option for name, option in required.items() if getattr(parsed, name) is None]:
            self.error(f"the following arguments are required: {', '.join(missing)}")
        if self._command == "record-training":
            run_folder = check_recorded_run(parsed)
            self._options.video_folder = os.path.abspath(parsed.output_folder or run_folder / "videos")
            parsed.output_folder = self._options.recording_folder
        elif self._command == "benchmark":
            check_exists("--log-dir", parsed.log_dir, "folder")
            parsed.benchmark_dir = parsed.benchmark_dir or os.path.join(parsed.log_dir, "benchmark")
            if parsed.no_hub and not any(Path(parsed.log_dir).glob("*/*/*/args.yml")):
                raise CommandError(f"--log-dir must have runs in it (ALGO/ENV_N) with --no-hub, got {parsed.log_dir!r}")
        elif self._command == "plot-from-file":
            check_exists("-i", parsed.input if parsed.input.endswith(".pkl") else f"{parsed.input}.pkl")
            for file in parsed.merge:
                check_exists("--merge", file)
        elif self._command == "plot-train":
            check_plotted_runs([parsed.exp_folder], [parsed.algo], parsed.env)
        elif self._command == "all-plots":
            check_plotted_runs(parsed.exp_folders, [algo.lower() for algo in parsed.algos], parsed.env)


class TrainParser(ZooParser):
    """
    The parser of ``train``: rl-zoo3's, with our options, our hyper-parameter files and the arguments of a resumed run.

    :param seed_runs: the runs of this command, if it has ``--seeds``; each parsing gives the arguments of the next run
    """

    _NOT_GIVEN = object()

    def __init__(self, seed_runs: SeedRuns) -> None:
        #: The group of an option
        self._groups: dict[str, Any] = {}
        super().__init__("train")
        self._seed_runs = seed_runs
        ours = self.add_argument_group(f"with {', '.join(ALGORITHMS)}")
        for title, names in GROUPS.items():
            self._groups |= dict.fromkeys(names, self.add_argument_group(title))
        ours.add_argument(
            "--keep-checkpoints",
            metavar="K",
            help="How many checkpoints (--save-freq) of a run to keep: the newest ones",
            type=_positive,
            default=3,
        )
        ours.add_argument(
            "--resume",
            metavar="FOLDER",
            help="Continue an interrupted run from its newest checkpoint, with its own settings, as if it had not been "
            "interrupted. FOLDER is a run folder such as logs/mirl/CartPole-v1_1. Without FOLDER: the newest run of the "
            "algorithm and environment (and --seed, if given) in the log folder. If that run is finished, nothing is done; if "
            "it has no checkpoint, a new run begins. With -n, a finished run continues to that many steps",
            nargs="?",
            const="",
        )
        ours.add_argument(
            "--seeds",
            help="Train several seeds at once, such as 0-9, 3,5,8 or 0-4,10, in a fraction of the time of single commands. "
            "Each seed gets the run folder that the command with --seed would write; results differ by rounding",
            type=parse_seeds,
        )

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        """As argparse, in one of our groups, with a default of rl-zoo3 in words, and checks of numbers of steps."""
        if names[-1] in ("--n-timesteps", "--save-freq"):
            settings |= {"type": parse_steps, "help": settings["help"].removesuffix(" (if negative, no checkpoint)")}
        if names[-1] in DEFAULTS_IN_WORDS and settings.get("default") in (-1, None):
            settings["help"] += f" (default: {DEFAULTS_IN_WORDS[names[-1]]})"
        if names[-1] in self._groups:
            added: argparse.Action = self._groups[names[-1]].add_argument(*names, **settings)
            return added
        return super().add_argument(*names, **settings)

    def parse_args(self, args: Any = None, namespace: Any = None) -> argparse.Namespace:  # type: ignore[override]
        """
        Parse the command line, complete it, and register the environment.

        :raises CommandError: if the command line is not accepted
        :raises NothingToDo: if the run to be resumed is finished
        """
        # The command line is parsed only once, because parsing evaluates the values of -params
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
        register_environment(parsed.env, parsed.gym_packages)
        check_env_kwargs("--env-kwargs", parsed.env, parsed.env_kwargs)
        check_env_kwargs("--eval-env-kwargs", parsed.env, parsed.eval_env_kwargs)
        if parsed.trained_agent:
            check_trained_agent(parsed.trained_agent, parsed.algo)
            if parsed.optimize_hyperparameters:
                raise CommandError(f"-optimize searches with new models, and does not take -i, got {parsed.trained_agent!r}")
        if set(parsed.log_folder) & set("[*?"):
            # rl-zoo3 would find no earlier run with such a pattern, and give each run the number 1
            raise CommandError(
                f"-f must not contain [, * or ?, because rl-zoo3 takes it for a pattern, got {parsed.log_folder!r}"
            )
        if parsed.conf_file is not None and parsed.conf_file.endswith(".py"):
            check_exists("--conf-file", parsed.conf_file)
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
                key, _, text = value.partition(":")
                quotes = f"; a text needs both quotes: {key}:\"'{text}'\"" if isinstance(error, NameError) else ""
                reason = f"{printable(error)}{printable(quotes)}"
                parser.error(f"{option_string} takes key:value with a value in Python, got {value!r} ({reason})")
            evaluated |= vars(single)[self.dest]
        setattr(namespace, self.dest, evaluated)


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer, got {text}")
    return value


def register_environment(env: str, packages: list[str]) -> None:
    """
    Import ``--gym-packages``, and check that the environment is registered. Those of :data:`OUR_ENVIRONMENTS` are registered
    without them.

    :raises CommandError: if a module does not exist, or if the environment is not registered
    """
    import_packages(packages)
    register_ours(env)
    if env not in gym.registry:
        remedy = did_you_mean(env, gym.registry) or ": --gym-packages names modules that register environments"
        if ("NoFrameskip-v" in env or env.startswith("ALE/")) and importlib.util.find_spec("ale_py") is None:
            remedy = ": Atari games need pip install 'sb3-mirl[atari]'"
        raise CommandError(f"--env must be registered with Gymnasium, got {env!r}{remedy}")


def register_ours(*arguments: str) -> None:
    """Register those of :data:`OUR_ENVIRONMENTS` that a command line names."""
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
    register_environment(run.args["env"], parsed.gym_packages or run.args["gym_packages"])
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
    # The file may be gone: rl-zoo3 would only read its VecNormalize statistics, which the checkpoint replaces
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


def _check_trust(reason: str = "") -> None:
    """
    Check that TRUST_REMOTE_CODE allows code to be run: huggingface_sb3 would end with a traceback.

    :param reason: why something is to be downloaded
    """
    given = os.environ.get("TRUST_REMOTE_CODE")
    if given is None or given.lower() not in TRUSTING:
        raise CommandError(
            f"{reason}the environment variable TRUST_REMOTE_CODE must be True, because files of the Hugging Face Hub can run "
            f"any code when they are loaded, got {'none' if given is None else repr(given)}. Set it if you trust them"
        )
