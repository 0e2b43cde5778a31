"""
``sb3-mirl bench run`` trains and evaluates all algorithms of a suite, environment by environment and seed by seed, and goes on
where an earlier call stopped; ``sb3-mirl bench status`` says how far a folder is, and ``sb3-mirl bench report`` what came out.

An *engine* is a function that runs jobs somewhere. :data:`ENGINES` has them by name, as contexts that the command line sets
up; all that it needs to know of a job is :func:`sb3_mirl.bench.training.run_job`, and all that it leaves are the files in
the folder.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from sb3_mirl.bench.jobs import (
    MAX_SAVE_FREQ,
    STATES,
    FolderError,
    Job,
    is_locked,
    look,
    open_folder,
    planned_jobs,
    read_folder,
)
from sb3_mirl.bench.schema import regular
from sb3_mirl.bench.suites import SUITES, Suite, tuning_lines
from sb3_mirl.common.text import printable

#: Seconds between two looks at how far jobs are: for the bar, and for lines, of which the first one comes sooner
BAR_PERIOD, LINE_PERIOD, FIRST_LINE = 2.0, 60.0, 10.0
#: Bytes that are free on a disk on which hardly anything can be written
FULL_DISK = 2**20

#: Called with jobs, the folder, how many to run at once (None: it decides), and keyword arguments of ``run_job``. Yields each
#: job as it ends, finished or failed, and None at least every few seconds in between. When it is closed, it ends what runs
Engine = Callable[..., Iterator[Job | None]]


def run_locally(jobs: Sequence[Job], folder: Path, workers: int | None, **options: Any) -> Iterator[Job | None]:
    """
    The engine for one machine: a process for each job.

    A process that dies (killed, or out of memory) is recorded as failed. All of them end when this one does.

    :param jobs: to be run in this order
    :param folder: of the benchmark
    :param workers: processes at once, by default 1
    :param options: of :func:`sb3_mirl.bench.training.run_job`
    """
    waiting = list(reversed(jobs))
    running: dict[Job, subprocess.Popen] = {}
    try:
        while waiting or running:
            while waiting and len(running) < (workers or 1):
                job = waiting.pop()
                try:
                    running[job] = _start(job, folder, options)
                except OSError as error:
                    record(job, folder, f"The process of the job could not be started: {error}")
                    yield job
            time.sleep(0.1)
            ended = [job for job, process in running.items() if process.poll() is not None]
            for job in ended:
                status = running.pop(job).returncode
                if status != 0 and job.state(folder) in ("missing", "unreadable"):
                    record(job, folder, _death(status, job.run_folder(folder) / "log.txt"))
                yield job
            if not ended:
                yield None
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def record(job: Job, folder: Path, reason: str) -> None:
    """Writes down why a job has failed. The other jobs go on even where nothing can be written."""
    try:
        job.record_failure(folder, reason)
    except OSError as error:
        _say(f"{job}: {reason}. That cannot be written down ({error})", file=sys.stderr)


def _say(text: str, file: IO[str] | None = None) -> None:
    """At once, also where the output is a file; what comes from files and exceptions cannot control the terminal."""
    print(printable(text), file=file, flush=True)


def process_command(job: Job, folder: Path, options: dict[str, Any]) -> list[str]:
    """
    :param job: to be run
    :param folder: of the benchmark
    :param options: of :func:`sb3_mirl.bench.training.run_job`
    :return: the command of a process that runs it
    """
    # Not with -m: in checkpoints the callback would be one of __main__, which nobody else could go on with
    code = "import sys; from sb3_mirl.bench.training import main; sys.exit(main())"
    command = [sys.executable, "-c", code]
    for name, value in options.items():
        if value is not None:
            command += [f"--{name.replace('_', '-')}", str(value)]
    return [*command, "--", str(folder), job.algorithm, job.env, str(job.seed)]


def _start(job: Job, folder: Path, options: dict[str, Any]) -> subprocess.Popen:
    runs = job.run_folder(folder)
    runs.mkdir(parents=True, exist_ok=True)
    # One thread each: results must not depend on how many there are
    env = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")}
    with open(runs / "log.txt", "a", opener=regular) as log:
        # Its standard input is open as long as this process lives. In a session of its own, so that Ctrl-C reaches it through
        # this process only
        return subprocess.Popen(
            process_command(job, folder, options),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
        )


def _death(status: int, log: Path) -> str:
    """Why a process has ended that left neither a result nor a traceback."""
    if status >= 0:
        return f"The process of the job ended with exit status {status}, see {log}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = "unknown"
    return f"The process of the job was ended by signal {-status} ({name})"


@contextmanager
def _needed() -> Iterator[None]:
    """For imports: packages that are not there are named with this package's extras."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(f"more packages are needed ({error}): pip install 'sb3-mirl[zoo,bench]'") from error


@contextmanager
def _local_engine(args: argparse.Namespace) -> Iterator[Engine]:
    with _needed():
        from sb3_mirl.bench.training import check_device

    check_device(args.device)
    yield run_locally


def _ray_engine(args: argparse.Namespace) -> AbstractContextManager[Engine]:
    try:
        from sb3_mirl.bench.ray_engine import connected
    except ImportError as error:
        raise ImportError(f"--engine ray needs more packages ({error}): pip install 'sb3-mirl[ray]'") from error
    return connected(args.address, args.cpus_per_job or 1.0, args.gpus_per_job or 0.0, args.fetch)


ENGINES: dict[str, Callable[[argparse.Namespace], AbstractContextManager[Engine]]] = {
    "local": _local_engine,
    "ray": _ray_engine,
}


def run(
    suite: Suite,
    jobs: Sequence[Job],
    folder: Path,
    workers: int | None = None,
    engine: AbstractContextManager[Engine] | None = None,
    **options: Any,
) -> list[Job]:
    """
    Runs those of the jobs that are not finished, and says so as it goes.

    :param suite: of the jobs
    :param jobs: what is asked for
    :param folder: of the results, made if it is not there
    :param workers: jobs at once; None leaves it to the engine
    :param engine: what runs them, by default :func:`run_locally`; entered only if there is something to do
    :param options: of :func:`sb3_mirl.bench.training.run_job`
    :return: the jobs that are not finished now
    :raises OSError: if the folder cannot be read
    :raises FolderError: if the folder is not for this suite, has results with other hyper-parameters, or cannot be written
    :raises ValueError: if a job cannot be run: algorithm, environment or hyper-parameters are not there, or do not go together
    """
    planned = set(planned_jobs(folder, suite))
    pending = [job for job in jobs if not job.finished(folder)]
    for job in set(jobs) - set(pending):
        found = job.look(folder, suite)
        if found.state != "done":
            raise FolderError(f"{str(job.result_file(folder))!r}: {found.reason}. Remove it, or choose another folder")
    if pending:
        with _needed():
            # Imported here, because it takes seconds: looking into a finished folder does not
            from sb3_mirl.bench.training import check

        check(suite, pending, folder)
    for job in set(jobs) - set(pending):
        # Of a process that was killed after its result was written
        if (job.run_folder(folder) / "checkpoints").exists() and not is_locked(job.run_folder(folder) / "lock"):
            shutil.rmtree(job.run_folder(folder) / "checkpoints", ignore_errors=True)
    if not pending:
        if not planned.issuperset(jobs):
            open_folder(folder, suite, jobs)
        _say(f"{suite.name}: all {len(jobs)} jobs are finished, nothing to do. Results are in {folder / 'results'}")
        return []
    with engine or nullcontext(run_locally) as chosen:
        open_folder(folder, suite, jobs)
        at_once = "" if workers is None else f"{workers} at once, "
        _say(f"{suite.name}: {len(jobs)} jobs, {len(jobs) - len(pending)} of them finished before, {at_once}in {folder}")
        for job in pending:
            found = job.look(folder)
            if found.state == "unreadable":
                _say(f"{job} is run again: {found.reason}")
            if found.state != "running":
                # Of an earlier call: the job says anew how far it is
                with suppress(OSError):
                    job.progress_file(folder).unlink()
        with closing(chosen(pending, folder, workers, **options)) as ended:  # type: ignore[type-var]
            _follow(ended, suite, pending, folder)
    left = [job for job in pending if not job.finished(folder)]
    if left:
        _say(f"{len(left)} jobs are not finished: `sb3-mirl bench status {folder}` says why; the same command tries again")
    return left


def _follow(ended: Iterator[Job | None], suite: Suite, jobs: Sequence[Job], folder: Path) -> None:
    """A line for each job that ends; and how far all of them are: a bar on a terminal, elsewhere a line now and then."""
    with _needed():
        from tqdm import tqdm

    total = sum(suite.steps[job.env] for job in jobs)
    over: set[Job] = set()
    # disable=None: no bar where the output is no terminal
    columns = shutil.get_terminal_size().columns
    with tqdm(total=total, unit="step", unit_scale=True, disable=None, smoothing=0.0, ncols=columns) as bar:
        due = time.monotonic() + (FIRST_LINE if bar.disable else 0.0)
        for job in ended:
            if job is not None:
                over.add(job)
                with tqdm.external_write_mode():
                    _say(f"[{len(over)}/{len(jobs)}] {job}: {_outcome(job, folder)}")
            if time.monotonic() < due and (job is None or bar.disable):
                continue
            under_way = {one: min(one.progress(folder), suite.steps[one.env]) for one in jobs if one not in over}
            steps = sum(suite.steps[one.env] for one in over) + sum(under_way.values())
            if bar.disable:
                said = f"[{len(over)}/{len(jobs)}] {steps / total:.0%} of {total:,} steps: {_shares(under_way, suite, 8)}"
                _say(said, file=sys.stderr)
            else:
                bar.set_postfix_str(printable(_shares(under_way, suite, 2)), refresh=False)
                bar.update(steps - bar.n)
                bar.refresh()
            due = time.monotonic() + (LINE_PERIOD if bar.disable else BAR_PERIOD)


def _shares(steps: dict[Job, int], suite: Suite, most: int) -> str:
    """How far jobs are that have begun to train."""
    begun = [f"{job} {count / suite.steps[job.env]:.0%}" for job, count in steps.items() if count]
    more = [f"and {len(begun) - most} more"] if len(begun) > most else []
    return ", ".join(begun[:most] + more) or ("jobs are being set up" if steps else "over")


def _outcome(job: Job, folder: Path) -> str:
    found = job.look(folder)
    if found.result is not None:
        scores, timing = found.result["scores"], found.result["time"]
        return (
            f"mean score {np.mean(scores):.4g} of {len(scores)} episodes "
            f"({timing['training']:.0f} s, {timing['steps_per_second']:.0f} steps/s)"
        )
    if found.state == "running":
        return "another process is at it"
    return f"{found.state}: {found.reason}" if found.reason else found.state


def status(folder: Path) -> list[str]:
    """
    :param folder: of a benchmark
    :return: lines that say how many of the planned jobs are in each of :data:`~sb3_mirl.bench.jobs.STATES`, how far those
        under way are, and why others have no result; safe to print
    :raises FolderError: if it is none
    """
    suite, jobs = read_folder(folder)
    all_found = look(folder, suite, jobs)
    counts = Counter(found.state for found in all_found.values())
    said = (f"{counts[state]} {state}" for state in STATES if counts[state] or state != "unreadable")
    lines = [f"{suite.name}: {len(jobs)} jobs, {', '.join(said)}"]
    for job, found in all_found.items():
        if found.state == "running":
            lines.append(f"running  {job}: {job.progress(folder) / suite.steps[job.env]:.0%}")
        elif found.reason:
            lines.append(f"{found.state:<8} {job}: {found.reason}")
    if shutil.disk_usage(folder).free < FULL_DISK:
        lines.append(f"the disk of {folder} is full: jobs cannot write results, nor why they failed")
    return list(map(printable, lines))


def _positive(text: str, most: int = 10**12) -> int:
    """An argparse type."""
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {most}")
    return int(text)


def _amount(text: str) -> float:
    """An argparse type: how much of a resource a job has. Ray divides one CPU or GPU, and gives several only whole."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf") or (value > 1 and value != int(value)):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a fraction between 0 and 1 nor a whole number of 1 or more")
    return value


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line of ``sb3-mirl bench``, checked as far as that needs neither folders nor heavy imports."""
    parser = argparse.ArgumentParser(prog="sb3-mirl bench", description="Benchmarks: many trainings, evaluated alike.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{run,status,report}")
    runner = commands.add_parser(
        "run",
        help="train and evaluate what is not finished yet",
        description="Trains and evaluates every algorithm on every environment with every seed. What is finished is not done "
        "again: more seeds or algorithms may be asked for later, and an interrupted call goes on when it is repeated.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    runner.add_argument("suite", choices=list(SUITES), metavar="SUITE", help=", ".join(SUITES))
    runner.add_argument("--algos", nargs="+", metavar="ALGO", help=f"of rl-zoo3; by default {' '.join(Suite.algorithms)}")
    runner.add_argument("--envs", nargs="+", metavar="ENV", help="some of the suite's environments; by default all")
    runner.add_argument(
        "--seeds", type=partial(_positive, most=10_000), metavar="N", help="seeds 0 to N-1; by default the suite's number"
    )
    runner.add_argument("--steps", type=_positive, metavar="N", help="environment steps of a training; by default the suite's")
    runner.add_argument("--out", type=Path, metavar="DIR", help="folder of the results; by default logs/bench/SUITE")
    runner.add_argument(
        "--jobs", type=_positive, metavar="J", help="jobs at once, each with one thread; by default 1, with Ray all"
    )
    runner.add_argument(
        "--save-freq",
        type=_positive,
        metavar="N",
        help=f"steps between checkpoints; by default a tenth of the training, {MAX_SAVE_FREQ} at most",
    )
    runner.add_argument("--device", default="auto", help="cpu, cuda, ...")
    runner.add_argument("--engine", choices=list(ENGINES), default="local", help="what runs the jobs")
    of_ray = runner.add_argument_group("with --engine ray")
    of_ray.add_argument("--address", metavar="HOST:PORT", help="of the cluster; by default what Ray finds or starts here")
    of_ray.add_argument("--cpus-per-job", type=_amount, metavar="X", help="by default 1")
    of_ray.add_argument("--gpus-per-job", type=_amount, metavar="Y", help="a fraction lets jobs share one; by default none")
    of_ray.add_argument("--fetch", action="store_true", help="nodes do not see DIR: what a job leaves comes back at its end")
    looker = commands.add_parser("status", help="how far a folder is", description="How far a folder of results is.")
    looker.add_argument("folder", type=Path, metavar="DIR")
    reporter = commands.add_parser(
        "report",
        help="tables, figures and a page of what is there",
        description="Writes CSV tables, PNG figures and report.html, one file that needs no other, of what a folder of "
        "results holds so far.",
    )
    reporter.add_argument("folder", type=Path, metavar="DIR")
    reporter.add_argument("--out", type=Path, metavar="DIR", help="folder of the report; by default DIR/report")
    args = parser.parse_args(arguments)
    if args.command == "run":
        suite = SUITES[args.suite]
        for env in args.envs or []:
            if env not in suite.steps:
                runner.error(f"argument --envs: {env!r} is not in suite {suite.name}, choose among {', '.join(suite.steps)}")
        for name in ("address", "cpus_per_job", "gpus_per_job", "fetch"):
            if getattr(args, name) and args.engine != "ray":
                runner.error(f"argument --{name.replace('_', '-')}: only with --engine ray")
    return args


def _report(args: argparse.Namespace) -> str:
    with _needed():
        from sb3_mirl.bench.report.tables import write_report

        files = write_report(args.folder, args.out or args.folder / "report")
    return printable(f"wrote {files[0]}, and {len(files) - 1} tables and figures beside it")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command ``sb3-mirl bench``."""
    args = parse(arguments)
    try:
        if args.command in ("status", "report"):
            suite, jobs = read_folder(args.folder)
            lines = status(args.folder) if args.command == "status" else [_report(args)]
            lines += map(printable, tuning_lines(suite, (job.algorithm for job in jobs)))
            print("\n".join(lines))
            return 0
        suite = SUITES[args.suite]
        if args.steps is not None:
            suite = replace(suite, steps=dict.fromkeys(suite.steps, args.steps))
        # Seed by seed, so that an unfinished benchmark has all algorithms and environments with fewer seeds
        jobs = [
            Job(algorithm, env, seed)
            for seed in range(args.seeds or suite.seeds)
            for env in dict.fromkeys(args.envs or suite.steps)
            for algorithm in dict.fromkeys(args.algos or suite.algorithms)
        ]
        folder = args.out or Path("logs", "bench", suite.name)
        options = {"save_freq": args.save_freq, "device": args.device}
        return 1 if run(suite, jobs, folder, args.jobs, ENGINES[args.engine](args), **options) else 0
    except BrokenPipeError:
        raise  # no error of the folder
    except (OSError, ValueError, ImportError) as error:
        _say(f"sb3-mirl bench {args.command}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted: the same command goes on", file=sys.stderr)
        return 130
