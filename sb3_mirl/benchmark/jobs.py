"""
The folder of a benchmark: which suite it holds, which jobs are planned, and how far each of them is. Nothing here imports
torch, so that looking into a folder takes no time.

- ``suite.json``: the suite as it was started, and the jobs that were asked for so far;
- ``results/<job>.json``: what a finished job has found, or
- ``results/<job>.failed.txt``: why it has not; the next run tries again;
- ``runs/<job>/``: rl-zoo3's log folder of the job with its model, what it printed, and its checkpoints until it is finished.
"""

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any

from sb3_mirl import files
from sb3_mirl.benchmark.suites import Suite

try:
    import fcntl
except ImportError:  # Windows: there, jobs under way count as missing
    fcntl = None  # type: ignore[assignment]

FORMAT = 1
#: Environment steps from one checkpoint of a job to the next
SAVE_FREQ = 100_000
#: Of a job. The first that applies
STATES = ("done", "running", "failed", "missing")
#: Of a suite, what decides whether results are comparable; ``steps`` are compared too
_COMPARED = ("name", "epsilon", "episodes", "hyperparams", "own_hyperparams")


class FolderError(ValueError):
    """A folder cannot be used for a benchmark; the message names it and says why."""


@dataclass(frozen=True, order=True)
class Job:
    """
    One training with its evaluation.

    :param algorithm: as rl-zoo3 names it
    :param env: the environment's id
    :param seed: of everything random
    """

    algorithm: str
    env: str
    seed: int

    @property
    def name(self) -> str:
        """Of the job's files."""
        return f"{self.algorithm}_{self.env.replace('/', '-')}_{self.seed}"

    def __str__(self) -> str:
        return f"{self.algorithm} {self.env} seed {self.seed}"

    def result_file(self, folder: Path) -> Path:
        return folder / "results" / f"{self.name}.json"

    def failure_file(self, folder: Path) -> Path:
        return folder / "results" / f"{self.name}.failed.txt"

    def run_folder(self, folder: Path) -> Path:
        return folder / "runs" / self.name

    def state(self, folder: Path) -> str:
        """One of :data:`STATES`."""
        if self.result_file(folder).exists():
            return "done"
        lock = self.run_folder(folder) / "lock"
        if lock.exists():
            with locked(lock) as free:
                if not free:
                    return "running"
        return "failed" if self.failure_file(folder).exists() else "missing"

    def result(self, folder: Path) -> dict[str, Any]:
        """What the finished job has found, see :func:`sb3_mirl.benchmark.training.run_job`."""
        return json.loads(self.result_file(folder).read_text())

    def failure(self, folder: Path) -> str:
        """The last line of what the job has failed with."""
        lines = self.failure_file(folder).read_text().strip().splitlines()
        return lines[-1] if lines else "unknown"

    def progress(self, folder: Path) -> int:
        """Environment steps that the job has trained, to half a percent of all."""
        try:
            return int((self.run_folder(folder) / "steps.txt").read_text())
        except (OSError, ValueError):
            return 0

    def record_failure(self, folder: Path, reason: str) -> None:
        write_whole(self.failure_file(folder), reason.rstrip() + "\n")


@contextmanager
def locked(file: Path, patience: float = 0.0) -> Iterator[bool]:
    """
    Locks a file for the time of the context, and says whether that was possible. The lock ends with the process, however that
    ends.

    :param file: made if it is not there
    :param patience: seconds to wait for another who holds the lock; who only looks holds it for less than one
    """
    deadline = time.monotonic() + patience
    with open(file, "a") as handle:
        while not (free := _try_to_lock(handle)) and time.monotonic() < deadline:
            time.sleep(0.02)
        yield free


def _try_to_lock(handle: IO[str]) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_whole(file: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    files.write_whole(file, text.encode())


def planned_jobs(folder: Path, suite: Suite) -> list[Job]:
    """
    :param folder: of a benchmark, or one that is not there yet
    :param suite: that it is to hold
    :return: the jobs that were asked for so far
    :raises FolderError: if it holds another suite, or something else
    """
    if folder.exists() and not folder.is_dir():
        raise FolderError(f"{str(folder)!r} is not a folder")
    # Looked at before suite.json, which another process may be about to write. Hidden files may be that one's
    found = [file.name for file in folder.iterdir() if not file.name.startswith(".")] if folder.is_dir() else []
    if (folder / "suite.json").exists():
        there, planned = read_folder(folder)
        different = _differences(there, suite)
        if different:
            raise FolderError(f"{str(folder)!r} holds other results: {'; '.join(different)}. Choose another folder")
        return planned
    if found:
        raise FolderError(f"{str(folder)!r} is not empty, and has no suite.json. Choose another folder")
    return []


def open_folder(folder: Path, suite: Suite, jobs: Iterable[Job]) -> list[Job]:
    """
    Makes the folder, or checks that it holds the same suite, and adds jobs to those that are planned.

    :param folder: of the benchmark
    :param suite: with the steps that are wanted
    :param jobs: what is asked for
    :return: all planned jobs, those of earlier calls first
    :raises FolderError: if it cannot be written, or holds another suite or something else
    """
    planned_jobs(folder, suite)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Processes that begin at once must not forget each other's jobs
        with locked(folder / ".lock", patience=60.0):
            planned = planned_jobs(folder, suite)
            known = set(planned)
            planned += [job for job in jobs if job not in known]
            names = [[job.algorithm, job.env, job.seed] for job in planned]
            content = {"format": FORMAT, "suite": asdict(suite), "jobs": names}
            write_whole(folder / "suite.json", json.dumps(content, indent=1))
        (folder / "results").mkdir(exist_ok=True)
    except OSError as error:
        raise FolderError(f"{str(folder)!r} cannot be written ({error.strerror})") from error
    return planned


def read_folder(folder: Path) -> tuple[Suite, list[Job]]:
    """
    :param folder: of a benchmark
    :return: its suite, and the planned jobs
    :raises FolderError: if it is none
    """
    file = folder / "suite.json"
    try:
        content = json.loads(file.read_text())
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r} instead of {FORMAT}")
        data: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in content["suite"].items()
        }
        return Suite(**data), [Job(*job) for job in content["jobs"]]
    except OSError as error:
        raise FolderError(f"{str(folder)!r} is not the folder of a benchmark: suite.json cannot be read") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FolderError(f"{str(file)!r} is not what `sb3-mirl bench run` writes ({error})") from error


def _differences(there: Suite, wanted: Suite) -> list[str]:
    different = [
        f"{name} {getattr(there, name)!r} instead of {getattr(wanted, name)!r}"
        for name in (field.name for field in fields(Suite))
        if name in _COMPARED and getattr(there, name) != getattr(wanted, name)
    ]
    if there.name == wanted.name:
        different += [
            f"{there.steps[env]} steps of {env} instead of {steps}"
            for env, steps in wanted.steps.items()
            if there.steps.get(env, steps) != steps
        ][:1]
    return different
