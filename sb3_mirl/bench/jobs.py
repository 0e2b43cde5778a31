"""
The folder of a benchmark: which suite it holds, which jobs are planned, and how far each of them is. Nothing here imports
torch, so that looking into a folder takes no time.

- ``suite.json``: the suite as it was started, and the jobs that were asked for so far;
- ``results/<job>.json``: what a finished job has found, checked whenever it is read, or
- ``results/<job>.failed.txt``: why it has not; the next run tries again. It is empty if a full disk had no room for more;
- ``runs/<job>/``: rl-zoo3's log folder of the job with its model, what it printed, and its checkpoints until it is finished.
"""

import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any

from sb3_mirl.bench import schema
from sb3_mirl.bench.schema import FORMAT
from sb3_mirl.bench.suites import Suite
from sb3_mirl.common import files

try:
    import fcntl
except ImportError:  # Windows: there, jobs under way count as missing
    fcntl = None  # type: ignore[assignment]

#: Environment steps from one checkpoint of a job to the next, at most
MAX_SAVE_FREQ = 100_000
#: Seconds between two notes of a job's progress, at most
PROGRESS_PERIOD = 5.0
#: Characters of a failure's last line
MAX_REASON = 1000
#: Of a job. The first that applies; ``unreadable`` is one whose result is damaged, or another job's
STATES = ("done", "running", "unreadable", "failed", "missing")
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

    def progress_file(self, folder: Path) -> Path:
        return self.run_folder(folder) / "steps.txt"

    def state(self, folder: Path) -> str:
        """One of :data:`STATES`."""
        return self.look(folder).state

    def look(self, folder: Path, suite: Suite | None = None) -> "Found":
        """
        :param folder: of the benchmark
        :param suite: that it holds: results of another one are ``unreadable``, too
        :return: what has become of the job
        """
        left = self._left(folder, suite)
        if left.state == "done":
            return left
        # It may end between the two looks
        return Found("running") if is_locked(self.run_folder(folder) / "lock") else self._left(folder, suite)

    def _left(self, folder: Path, suite: Suite | None) -> "Found":
        """What files say of the job."""
        try:
            result = self.result(folder)
            if suite is not None:
                check_suite(result, suite)
            return Found("done", result=result)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except (OSError, ValueError) as error:
            return Found("unreadable", str(error))
        if os.path.lexists(self.failure_file(folder)):
            return Found("failed", self.failure(folder))
        if os.path.lexists(self.run_folder(folder)):
            steps = self.progress(folder)
            return Found("missing", f"begun, and ended after {steps:,} steps: interrupted, killed, or its disk was full")
        return Found("missing")

    def finished(self, folder: Path) -> bool:
        """
        Whether there is a result. A damaged one is none.

        :raises OSError: if that cannot be said, because the file is there and its disk or its rights do not let it be read
        """
        try:
            self.result(folder)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return False
        return True

    def result(self, folder: Path) -> dict[str, Any]:
        """
        What the finished job has found, see :func:`sb3_mirl.bench.training.run_job`.

        :raises OSError: if there is no result
        :raises ValueError: if the file is damaged, or holds something else
        """
        file = self.result_file(folder)
        try:
            result = schema.read(file)
            schema.check_result(result)
            found = Job(result["algorithm"], result["environment"], result["seed"])
            if found != self:
                raise ValueError(f"it is the result of {found}")
        except ValueError as error:
            raise ValueError(f"{file.name}: {error}") from error
        return result

    def failure(self, folder: Path) -> str:
        """The last line of what the job has failed with."""
        try:
            text = schema.read_bytes(self.failure_file(folder)).decode("utf-8", "backslashreplace").strip()
        except FileNotFoundError:
            return "unknown"  # It has just begun again
        except (OSError, ValueError) as error:
            return f"unknown ({error})"
        return text.splitlines()[-1][:MAX_REASON] if text else "its disk was full: no reason could be written"

    def progress(self, folder: Path) -> int:
        """Environment steps that the job has trained, to half a percent of all or :data:`PROGRESS_PERIOD`."""
        try:
            text = schema.read_bytes(self.progress_file(folder), most=20).decode("ascii")
            return int(text) if text.isdecimal() else 0
        except (OSError, ValueError):
            return 0

    def record_progress(self, folder: Path, steps: int) -> None:
        """Whoever reads it meanwhile sees this number or the one before; where it cannot be written, that one stays."""
        write_progress(self.progress_file(folder), steps)

    def record_failure(self, folder: Path, reason: str) -> None:
        """:raises OSError: if the reason cannot be written; an empty file says so where that is possible"""
        try:
            write_whole(self.failure_file(folder), reason.rstrip() + "\n")
        except OSError:
            with suppress(OSError):
                # It needs no room on a disk that is full
                self.failure_file(folder).touch()
            raise


@dataclass(frozen=True)
class Found:
    """
    What has become of a job.

    :param state: one of :data:`STATES`
    :param reason: why it has no result, if that is known
    :param result: of one that is done
    """

    state: str
    reason: str = ""
    result: dict[str, Any] | None = None


def check_suite(result: dict[str, Any], suite: Suite) -> None:
    """
    :param result: of a job, see :meth:`Job.result`
    :param suite: of the folder that holds it
    :raises ValueError: if it was trained or evaluated otherwise than this suite's jobs are
    """
    evaluation, env = result["evaluation"], result["environment"]
    for what, found, asked in (
        ("of suite", result["suite"], suite.name),
        ("of n_timesteps", result["hyperparameters"].get("n_timesteps"), suite.steps.get(env)),
        ("of an evaluation with epsilon", evaluation["epsilon"], suite.epsilon),
        ("of an evaluation with episodes", len(result["scores"]), suite.episodes),
    ):
        if found != asked:
            raise ValueError(f"it is a result {what} {str(found)[:80]}, not {asked}")
    if result["steps"] < suite.steps.get(env, 0):
        raise ValueError(f"it is a result of {result['steps']} steps, not {suite.steps[env]}")


@contextmanager
def locked(file: Path, patience: float = 0.0) -> Iterator[bool]:
    """
    Locks a file for the time of the context, and says whether that was possible. The lock ends with the process, however that
    ends.

    :param file: made if it is not there
    :param patience: seconds to wait for another who holds the lock; who only looks holds it for less than one
    """
    deadline = time.monotonic() + patience
    with open(file, "a", opener=schema.regular) as handle:
        while not (free := _try_to_lock(handle)) and time.monotonic() < deadline:
            time.sleep(0.02)
        yield free


def is_locked(file: Path) -> bool:
    """Whether a process holds the file; it need not be there, nor may it be written. What cannot be opened is held by none."""
    try:
        with open(file, opener=schema.regular) as handle:
            # Shared, so that those who only look do not see each other
            return not _try_to_lock(handle, shared=True)
    except OSError:
        return False


def _try_to_lock(handle: IO[str], shared: bool = False) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_whole(file: Path, text: str) -> None:
    """Writes a text file whole or not at all. What is no Unicode, such as in a file's name, is written as ``\\udcff`` etc."""
    files.write_whole(file, text.encode(errors="backslashreplace"))


def write_progress(file: Path, steps: int) -> None:
    """See :meth:`Job.record_progress`. Unlike :func:`write_whole` it does not wait for the disk."""
    unfinished = file.with_name(f".{file.name}{files.UNFINISHED}")
    with suppress(OSError):
        unfinished.unlink(missing_ok=True)
        unfinished.write_text(str(steps))
        os.replace(unfinished, file)


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
        for name in ("results", "runs"):
            (folder / name).mkdir(exist_ok=True)
            # Whether files can be made there, before hours of training
            tempfile.TemporaryFile(dir=folder / name).close()
    except OSError as error:
        raise FolderError(f"{str(folder)!r} cannot be written ({error.strerror or error})") from error
    return planned


def read_folder(folder: Path) -> tuple[Suite, list[Job]]:
    """
    :param folder: of a benchmark
    :return: its suite, and the planned jobs
    :raises FolderError: if it is none
    """
    file = folder / "suite.json"
    try:
        content = schema.read(file, schema.MAX_SUITE_BYTES)
        schema.check_suite_file(content)
    except OSError as error:
        raise FolderError(f"{str(folder)!r} is not the folder of a benchmark: suite.json cannot be read ({error})") from error
    except ValueError as error:
        raise FolderError(f"{str(file)!r} is not what `sb3-mirl bench run` writes ({error})") from error
    known: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in content["suite"].items()
        if value is not None
    }
    return Suite(**known), list(dict.fromkeys(Job(*job) for job in content["jobs"]))


def look(folder: Path, suite: Suite, jobs: Iterable[Job]) -> dict[Job, Found]:
    """
    :param folder: of a benchmark
    :param suite: that it holds
    :param jobs: which to look at
    :return: what has become of each; ``unreadable`` are also results that do not fit the suite, or the others
    """
    found = {job: job.look(folder, suite) for job in jobs}
    priors = [(job.env, len(one.result["prior"])) for job, one in found.items() if one.result and one.result.get("prior")]
    counts = Counter(priors)
    for env in {env for env, _ in counts}:
        (_, usual), *others = sorted(((count, n) for (name, n), count in counts.items() if name == env), reverse=True)
        for job, one in found.items() if others else ():
            prior = one.result.get("prior") if one.result and job.env == env else None
            if prior and len(prior) != usual:
                reason = f"it has a prior of {len(prior)} actions, where most results of {env} have {usual}"
                found[job] = Found("unreadable", reason)
    return found


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
