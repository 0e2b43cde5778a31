"""
Running the jobs of a benchmark that are not finished, with progress on the terminal; and the status of a folder.
"""

import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np

from sb3_mirl.bench.jobs import STATES, FolderError, Job, Pack, open_folder, outcomes, planned_jobs, read_folder
from sb3_mirl.bench.local_engine import Engine, run_locally
from sb3_mirl.bench.suites import Suite
from sb3_mirl.common.files import is_locked
from sb3_mirl.common.text import printable

#: Seconds between two updates of the progress: of the bar on a terminal, else of lines; the first line comes sooner
BAR_PERIOD_S, LINE_PERIOD_S, FIRST_LINE_S = 2.0, 60.0, 10.0
#: Bytes free on a disk below which it counts as full
FULL_DISK_BYTES = 2**20


@contextmanager
def explain_missing_packages() -> Iterator[None]:
    """For imports of optional packages: the error says how to install them."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(f"more packages are needed ({error}): pip install 'sb3-mirl[zoo,bench]'") from error


def run(
    suite: Suite,
    jobs: Sequence[Job],
    folder: Path,
    workers: int | None = None,
    engine: AbstractContextManager[Engine] | None = None,
    joint: int = 1,
    **options: Any,
) -> list[Job]:
    """
    Run those of the jobs that are not finished, and print the progress.

    :param suite: of the jobs
    :param jobs: that are asked for
    :param folder: of the benchmark, created if necessary
    :param workers: processes at once; None leaves it to the engine
    :param engine: by default :func:`~sb3_mirl.bench.local_engine.run_locally`; entered only if a job is not finished
    :param joint: largest number of jobs of one process, which trains compatible jobs jointly
    :param options: of :func:`sb3_mirl.bench.packs.run_pack`
    :return: the jobs that are still not finished
    :raises OSError: if the folder cannot be read
    :raises FolderError: if the folder is not for this suite, has results with other hyper-parameters, or cannot be written
    :raises ValueError: if a job cannot be run: algorithm, environment or hyper-parameters are missing or do not go together
    """
    planned = set(planned_jobs(folder, suite))
    pending = [job for job in jobs if not job.finished(folder)]
    finished = set(jobs) - set(pending)
    for job in finished:
        outcome = job.outcome(folder, suite)
        if outcome.state != "done":
            raise FolderError(f"{str(job.result_file(folder))!r}: {outcome.reason}. Remove it, or choose another folder")
    if pending:
        with explain_missing_packages():
            # Takes seconds, which a finished folder does not need
            from sb3_mirl.bench.experiment import check

        check(suite, pending, folder)
    for job in finished:
        # A process may have been killed between writing the result and removing the checkpoints
        if job.checkpoints(folder).exists() and not is_locked(job.lock_file(folder)):
            shutil.rmtree(job.checkpoints(folder), ignore_errors=True)
    if not pending:
        if not planned.issuperset(jobs):
            open_folder(folder, suite, jobs)
        _print(f"{suite.name}: all {len(jobs)} jobs are finished, nothing to do. Results are in {folder / 'results'}")
        return []
    with engine or nullcontext(run_locally) as entered:
        open_folder(folder, suite, jobs)
        at_once = "" if workers is None else f"{workers} at once, "
        _print(f"{suite.name}: {len(jobs)} jobs, {len(finished)} of them finished before, {at_once}in {folder}")
        _prepare(pending, folder)
        packs = _packs(suite, pending, joint)
        with closing(entered(packs, folder, workers, **options)) as ended:  # type: ignore[type-var]
            _show_progress(ended, suite, pending, folder)
    unfinished = [job for job in pending if not job.finished(folder)]
    if unfinished:
        _print(
            f"{len(unfinished)} jobs are not finished: `sb3-mirl bench status {folder}` says why; the same command tries again"
        )
    return unfinished


def _print(text: str) -> None:
    print(printable(text), flush=True)


def _packs(suite: Suite, jobs: Sequence[Job], joint: int) -> list[Pack]:
    """The jobs of each process."""
    if joint == 1:
        return [(job,) for job in jobs]
    from sb3_mirl.bench.packs import plan_packs

    packs, notes = plan_packs(suite, jobs, joint)
    for line in [*notes, f"{len(jobs)} jobs in {len(packs)} processes, each with {max(map(len, packs))} at most"]:
        _print(line)
    return packs


def _prepare(jobs: Sequence[Job], folder: Path) -> None:
    """Removes the progress of earlier runs, and says which damaged results are replaced."""
    for job in jobs:
        outcome = job.outcome(folder)
        if outcome.state == "unreadable":
            _print(f"{job} is run again: {outcome.reason}")
        if outcome.state != "running":
            with suppress(OSError):
                job.progress_file(folder).unlink()


def _show_progress(ended: Iterator[Job | None], suite: Suite, jobs: Sequence[Job], folder: Path) -> None:
    """Prints a line for each job that ends, and the progress: as a bar on a terminal, elsewhere as occasional lines."""
    with explain_missing_packages():
        from tqdm import tqdm

    total = sum(suite.steps[job.env] for job in jobs)
    over: set[Job] = set()
    columns = shutil.get_terminal_size().columns
    # disable=None: no bar unless the output is a terminal
    with tqdm(total=total, unit="step", unit_scale=True, disable=None, smoothing=0.0, ncols=columns) as bar:
        due = time.monotonic() + (FIRST_LINE_S if bar.disable else 0.0)
        for job in ended:
            if job is not None:
                over.add(job)
                with tqdm.external_write_mode():
                    _print(f"[{len(over)}/{len(jobs)}] {job}: {_result_line(job, folder)}")
            if time.monotonic() < due and (job is None or bar.disable):
                continue
            progress = {other: min(other.progress(folder), suite.steps[other.env]) for other in jobs if other not in over}
            steps = sum(suite.steps[other.env] for other in over) + sum(progress.values())
            if bar.disable:
                line = f"[{len(over)}/{len(jobs)}] {steps / total:.0%} of {total:,} steps: {_shares(progress, suite, 8)}"
                print(printable(line), file=sys.stderr, flush=True)
            else:
                bar.set_postfix_str(printable(_shares(progress, suite, 2)), refresh=False)
                bar.update(steps - bar.n)
                bar.refresh()
            due = time.monotonic() + (LINE_PERIOD_S if bar.disable else BAR_PERIOD_S)


def _shares(progress: dict[Job, int], suite: Suite, max_jobs: int) -> str:
    """The progress of jobs that have begun to train."""
    begun = [f"{job} {steps / suite.steps[job.env]:.0%}" for job, steps in progress.items() if steps]
    more = [f"and {len(begun) - max_jobs} more"] if len(begun) > max_jobs else []
    return ", ".join(begun[:max_jobs] + more) or ("jobs are being set up" if progress else "all jobs have ended")


def _result_line(job: Job, folder: Path) -> str:
    outcome = job.outcome(folder)
    if outcome.result is not None:
        scores, timing = outcome.result["scores"], outcome.result["time"]
        jointly = outcome.result.get("trained_jointly") or 1
        return (
            f"mean score {np.mean(scores):.4g} of {len(scores)} episodes "
            f"({timing['training']:.0f} s, {timing['steps_per_second']:.0f} steps/s"
            f"{f', one of {jointly} trained jointly' if jointly > 1 else ''})"
        )
    if outcome.state == "running":
        return "another process runs it"
    return f"{outcome.state}: {outcome.reason}" if outcome.reason else outcome.state


def status(folder: Path) -> list[str]:
    """
    :param folder: of a benchmark
    :return: lines, safe to print: the number of jobs, planned or with copied results, in each of
        :data:`~sb3_mirl.bench.jobs.STATES`, the progress of running jobs, and why others have no result
    :raises FolderError: if it is not the folder of a benchmark
    """
    suite, jobs = read_folder(folder)
    found = outcomes(folder, suite, jobs)
    counts = Counter(outcome.state for outcome in found.values())
    numbers = (f"{counts[state]} {state}" for state in STATES if counts[state] or state != "unreadable")
    lines = [f"{suite.name}: {len(found)} jobs, {', '.join(numbers)}"]
    for job, outcome in found.items():
        if outcome.state == "running":
            lines.append(f"running  {job}: {job.progress(folder) / suite.steps[job.env]:.0%}")
        elif outcome.reason:
            lines.append(f"{outcome.state:<8} {job}: {outcome.reason}")
    if shutil.disk_usage(folder).free < FULL_DISK_BYTES:
        lines.append(f"the disk of {folder} is full: jobs cannot write results, nor why they failed")
    return list(map(printable, lines))
