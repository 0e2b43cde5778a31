"""
Engines: functions that run jobs somewhere. :func:`run_locally` is the engine for one machine.

An engine calls :func:`sb3_mirl.bench.packs.run_pack` for each pack of jobs; results and failures are files in the folder.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sb3_mirl.bench.jobs import Job, Pack
from sb3_mirl.common.files import open_regular
from sb3_mirl.common.text import printable

#: Called with packs of jobs, the folder, the number of packs at once (None: the engine decides), and keyword arguments of
#: ``run_pack``. Yields the jobs of each pack as it ends, finished or failed, and None at least every few seconds. When closed,
#: it ends all running jobs
Engine = Callable[..., Iterator[Job | None]]

#: Seconds between two tests whether a process has ended
POLL_PERIOD_S = 0.1
#: One thread for each process, because results depend on the number of threads
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def run_locally(packs: Sequence[Pack], folder: Path, workers: int | None, **options: Any) -> Iterator[Job | None]:
    """
    The engine for one machine: a process for each pack.

    If a process dies (killed, or out of memory), its unfinished jobs are recorded as failed. All processes end when the engine
    is closed.

    :param packs: to be run in this order
    :param folder: of the benchmark
    :param workers: processes at once, by default 1
    :param options: of :func:`sb3_mirl.bench.packs.run_pack`
    """
    waiting = list(reversed(packs))
    running: dict[Pack, subprocess.Popen] = {}
    try:
        while waiting or running:
            while waiting and len(running) < (workers or 1):
                pack = waiting.pop()
                try:
                    running[pack] = _start(pack, folder, options)
                except OSError as error:
                    for job in pack:
                        record_failure(job, folder, f"The process of the job could not be started: {error}")
                        yield job
            time.sleep(POLL_PERIOD_S)
            ended = [pack for pack, process in running.items() if process.poll() is not None]
            for pack in ended:
                status = running.pop(pack).returncode
                for job in pack:
                    if status != 0 and job.state(folder) in ("missing", "unreadable"):
                        record_failure(job, folder, _cause_of_death(status, pack[0].log_file(folder)))
                    yield job
            if not ended:
                yield None
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def record_failure(job: Job, folder: Path, reason: str) -> None:
    """As :meth:`~sb3_mirl.bench.jobs.Job.record_failure`, but prints what cannot be written, so that other jobs go on."""
    try:
        job.record_failure(folder, reason)
    except OSError as error:
        print(printable(f"{job}: {reason}. The reason cannot be written to its file ({error})"), file=sys.stderr, flush=True)


def process_command(pack: Pack, folder: Path, options: dict[str, Any]) -> list[str]:
    """
    :param pack: to be run
    :param folder: of the benchmark
    :param options: of :func:`sb3_mirl.bench.packs.run_pack`
    :return: the command of a process that runs it
    """
    command = [sys.executable, "-m", "sb3_mirl.bench.process"]
    for name, value in options.items():
        if value is not None:
            command += [f"--{name.replace('_', '-')}", str(value)]
    return [*command, "--", str(folder), *(part for job in pack for part in (job.algorithm, job.env, str(job.seed)))]


def _start(pack: Pack, folder: Path, options: dict[str, Any]) -> subprocess.Popen:
    for job in pack:
        job.run_folder(folder).mkdir(parents=True, exist_ok=True)
    with open(pack[0].log_file(folder), "a", opener=open_regular) as log:
        # The process ends when its standard input is closed, which happens when this one ends. Its own session keeps Ctrl-C
        # from reaching it directly
        return subprocess.Popen(
            process_command(pack, folder, options),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **ONE_THREAD},
            start_new_session=True,
        )


def _cause_of_death(status: int, log: Path) -> str:
    """Why a process ended without a result or a traceback."""
    if status >= 0:
        return f"The process of the job ended with exit status {status}, see {log}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = "unknown"
    return f"The process of the job was ended by signal {-status} ({name})"
