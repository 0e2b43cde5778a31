"""
The command ``sb3-mirl bench``: ``run`` trains and evaluates the algorithms of a suite and continues where an earlier call
stopped; ``status`` shows progress of a benchmark folder; ``report`` writes tables, figures and a page; ``tune`` gives the
algorithms of a suite equal numbers of random trials.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from sb3_mirl.bench.jobs import MAX_SAVE_FREQ_STEPS, Job, read_folder
from sb3_mirl.bench.local_engine import Engine, run_locally
from sb3_mirl.bench.run import explain_missing_packages, run, status
from sb3_mirl.bench.suites import SETTINGS, SUITES, TUNINGS, tuning_lines, with_steps
from sb3_mirl.common.command_parser import CommandParser
from sb3_mirl.common.text import did_you_mean, printable


@contextmanager
def _local_engine(args: argparse.Namespace) -> Iterator[Engine]:
    with explain_missing_packages():
        from sb3_mirl.bench.experiment import check_device

    check_device(args.device)
    yield run_locally


def _ray_engine(args: argparse.Namespace) -> AbstractContextManager[Engine]:
    try:
        from sb3_mirl.bench.ray_engine import connected
    except ImportError as error:
        raise ImportError(f"--engine ray needs more packages ({error}): pip install 'sb3-mirl[ray]'") from error
    return connected(args.address, args.cpus_per_job or 1.0, args.gpus_per_job or 0.0, args.fetch)


#: Contexts that give an engine, by the name of ``--engine``
ENGINES: dict[str, Callable[[argparse.Namespace], AbstractContextManager[Engine]]] = {
    "local": _local_engine,
    "ray": _ray_engine,
}


def _whole_number(text: str, maximum: int = 10**12) -> int:
    """An argparse type."""
    if not text.isdecimal() or not 1 <= int(text) <= maximum:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {maximum}")
    return int(text)


def _probability(text: str) -> float:
    """An argparse type."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1")
    return value


def _resource(text: str) -> float:
    """An argparse type: CPUs or GPUs of a job. Ray divides a single one only."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf") or (value > 1 and value != int(value)):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a fraction between 0 and 1 nor a whole number of 1 or more")
    return value


def make_parser() -> CommandParser:
    """The parser of ``sb3-mirl bench``."""
    parser = CommandParser(
        prog="sb3-mirl bench",
        description="Benchmarks: many trainings, evaluated alike.",
        examples=(
            ("Four algorithms, four environments, ten seeds each", "sb3-mirl bench run classic --jobs 4"),
            ("How far it is, and what it shows", "sb3-mirl bench status logs/bench/classic"),
            ("Tables, figures and a page", "sb3-mirl bench report logs/bench/classic"),
        ),
    )
    commands = parser.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")
    runner = commands.add_parser(
        "run",
        help="train and evaluate what is not finished yet",
        description="Trains and evaluates every algorithm on every environment with every seed. Finished jobs are skipped: "
        "more seeds or algorithms may be asked for later, and an interrupted call continues when it is repeated.",
        examples=(
            ("All jobs of a suite, four at once", "sb3-mirl bench run classic --jobs 4"),
            ("Three seeds of two algorithms", "sb3-mirl bench run minatar-200k --algos dqn mirl --seeds 3"),
            ("Seeds in lock-step, in one process", "sb3-mirl bench run minatar-200k --seeds 8 --joint 8"),
            ("On a Ray cluster", "sb3-mirl bench run atari19 --engine ray --address 10.0.0.1:6379 --out /shared/atari19"),
        ),
    )
    _add_run_arguments(runner)
    status_parser = commands.add_parser(
        "status",
        help="progress of a benchmark folder",
        description="How far a folder of results is, and why jobs failed.",
        examples=(("The folder of bench run classic", "sb3-mirl bench status logs/bench/classic"),),
    )
    status_parser.add_argument("folder", type=Path, metavar="DIR", help="--out of bench run")
    report_parser = commands.add_parser(
        "report",
        help="tables, figures and a page of the results so far",
        description="Writes CSV tables, PNG figures and the self-contained page report.html from the results so far.",
        examples=(("The folder of bench run classic", "sb3-mirl bench report logs/bench/classic"),),
    )
    report_parser.add_argument("folder", type=Path, metavar="DIR", help="--out of bench run")
    report_parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the report; by default DIR/report")
    tuner = commands.add_parser(
        "tune",
        help="random trials of each algorithm's own settings",
        description="Trains the same number of random trials of each algorithm of a suite, with a part of the suite's steps, "
        "and prints the best settings. Finished trials are skipped. The settings of the suite itself are not changed.",
        examples=(("All algorithms of a suite, two processes", "sb3-mirl bench tune classic-actions --jobs 2"),),
    )
    tuner.add_argument("suite", choices=list(TUNINGS), metavar="SUITE", help=", ".join(TUNINGS))
    tuner.add_argument("--algos", nargs="+", choices=list(SETTINGS), metavar="ALGO", help="by default the suite's")
    tuner.add_argument("--out", type=Path, metavar="DIR", help="folder of the trials; by default logs/bench/SUITE-tuning")
    tuner.add_argument("--jobs", type=_whole_number, metavar="J", default=1, help="processes at once, each with one thread")
    return parser


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line of ``sb3-mirl bench``, validated as far as possible without folders and heavy imports."""
    parser = make_parser()
    args = parser.parse_args(arguments)
    if args.command == "run":
        suite = SUITES[args.suite]
        for env in args.envs or []:
            if env not in suite.steps:
                hint = did_you_mean(env, suite.steps)
                _refuse(f"--envs: {env!r} is not in suite {suite.name}, choose among {', '.join(suite.steps)}{hint}")
        if args.sticky_actions is not None and not suite.is_atari:
            names = ", ".join(suite.name for suite in SUITES.values() if suite.is_atari)
            _refuse(f"--sticky-actions: only with suites of Atari games ({names}), not {suite.name}")
        for name in ("address", "cpus_per_job", "gpus_per_job", "fetch"):
            if getattr(args, name) and args.engine != "ray":
                _refuse(f"--{name.replace('_', '-')}: only with --engine ray")
    return args


def _refuse(text: str) -> NoReturn:
    """The error of an argument of ``bench run``."""
    CommandParser(prog="sb3-mirl bench run").error(f"argument {text}")


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("suite", choices=list(SUITES), metavar="SUITE", help=", ".join(SUITES))
    add("--algos", nargs="+", metavar="ALGO", help="algorithms by rl-zoo3's names; by default the suite's")
    add("--envs", nargs="+", metavar="ENV", help="some of the suite's environments; by default all")
    seeds = partial(_whole_number, maximum=10_000)
    add("--seeds", type=seeds, metavar="N", help="seeds 0 to N-1; by default the suite's number")
    add("--steps", type=_whole_number, metavar="N", help="environment steps of a training; by default the suite's")
    sticky = "Atari: probability that a frame repeats the previous action instead (usually 0.25); by default 0. Results are "
    add("--sticky-actions", type=_probability, metavar="P", help=f"{sticky}not comparable with those of another P")
    add("--out", type=Path, metavar="DIR", help="folder of the results; by default logs/bench/SUITE")
    add("--jobs", type=_whole_number, metavar="J", help="processes at once (one thread each); default 1, Ray: as many as fit")
    jointly = "train up to R jobs of our algorithms in lock-step in one process, which is faster and differs by rounding; "
    jointly += "other algorithms, and jobs with other networks or shared hyper-parameters, are trained apart"
    add("--joint", type=_whole_number, default=1, metavar="R", help=jointly)
    save_freq = f"steps between checkpoints; by default a tenth of the training, {MAX_SAVE_FREQ_STEPS} at most"
    add("--save-freq", type=_whole_number, metavar="N", help=save_freq)
    add("--device", default="auto", help="cpu, cuda, ...")
    add("--engine", choices=list(ENGINES), default="local", help="what runs the jobs")
    add_for_ray = parser.add_argument_group("with --engine ray").add_argument
    add_for_ray("--address", metavar="HOST:PORT", help="address of the cluster; by default one that Ray finds or starts here")
    add_for_ray("--cpus-per-job", type=_resource, metavar="X", help="CPUs of a process; by default 1")
    add_for_ray("--gpus-per-job", type=_resource, metavar="Y", help="GPUs of a process, also a fraction; by default none")
    add_for_ray("--fetch", action="store_true", help="for nodes without access to DIR: copy the files of a job at its end")


def _report(args: argparse.Namespace) -> str:
    with explain_missing_packages():
        from sb3_mirl.bench.report.write import write_report

        files = write_report(args.folder, args.out or args.folder / "report")
    return printable(f"wrote {files[0]}, and {len(files) - 1} tables and figures beside it")


def _run(args: argparse.Namespace) -> bool:
    """Whether all jobs are finished."""
    suite = SUITES[args.suite]
    if args.steps is not None:
        suite = with_steps(suite, args.steps)
    if args.sticky_actions is not None:
        suite = replace(suite, env_kwargs={**suite.env_kwargs, "repeat_action_probability": args.sticky_actions})
    # Seed by seed, so that an unfinished benchmark has all algorithms and environments with fewer seeds
    jobs = [
        Job(algorithm, env, seed)
        for seed in range(args.seeds or suite.seeds)
        for env in dict.fromkeys(args.envs or suite.steps)
        for algorithm in dict.fromkeys(args.algos or suite.algorithms)
    ]
    folder = args.out or Path("logs", "bench", suite.name)
    options = {"joint": args.joint, "save_freq": args.save_freq, "device": args.device}
    return not run(suite, jobs, folder, args.jobs, ENGINES[args.engine](args), **options)


def _tune(args: argparse.Namespace) -> None:
    with explain_missing_packages():
        from tqdm import tqdm

        from sb3_mirl.bench.tuning import choose, tune

    suite, plan = SUITES[args.suite], TUNINGS[args.suite]
    algorithms = args.algos or suite.algorithms
    results: dict[str, list[dict[str, Any]]] = {algorithm: [] for algorithm in algorithms}
    folder = args.out or Path("logs", "bench", f"{suite.name}-tuning")
    # disable=None: no bar unless the output is a terminal
    with tqdm(total=len(algorithms) * len(plan.envs), unit="pair", disable=None) as bar:
        bar.set_description("algorithms × environments")
        for file in tune(suite, plan, algorithms, folder, args.jobs):
            result = json.loads(file.read_text())
            results[result["algorithm"]].append(result)
            with tqdm.external_write_mode():
                print(
                    printable(f"{result['algorithm']} {result['environment']}: {len(result['settings'])} trials"), flush=True
                )
            bar.update()
    for algorithm, found in results.items():
        best, means = choose(found)
        print(printable(f"{algorithm}: trial {best}, {found[0]['settings'][best]}, mean rank {means[best]:g} of {len(means)}"))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command ``sb3-mirl bench``."""
    args = parse(arguments)
    try:
        if args.command == "run":
            return 0 if _run(args) else 1
        if args.command == "tune":
            _tune(args)
            return 0
        suite, jobs = read_folder(args.folder)
        lines = status(args.folder) if args.command == "status" else [_report(args)]
        lines += map(printable, tuning_lines(suite, (job.algorithm for job in jobs)))
        print("\n".join(lines))
        return 0
    except BrokenPipeError:
        raise  # an OSError that is not about the folder
    except (OSError, ValueError, ImportError) as error:
        print(printable(f"sb3-mirl bench {args.command}: error: {error}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted: the same command continues", file=sys.stderr)
        return 130
