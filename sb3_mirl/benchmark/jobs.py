"""
The folder of a benchmark: which suite it holds, which jobs are planned, and how far each of them is. Nothing here imports
torch, so that looking into a folder takes no time.

- ``suite.json``: the suite as it was started, and the jobs that were asked for so far;
- ``results/<job>.json``: what a finished job has found, checked whenever it is read, or
- ``results/<job>.failed.txt``: why it has not; the next run tries again;
- ``runs/<job>/``: rl-zoo3's log folder of the job with its model, what it printed, and its checkpoints until it is finished.
"""

import json
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
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
#: Environment steps from one checkpoint of a job to the next, at most
MAX_SAVE_FREQ = 100_000
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

    def state(self, folder: Path) -> str:
        """One of :data:`STATES`."""
        left = self._left(folder)
        if left == "done":
            return left
        # It may end between the two looks
        return "running" if is_locked(self.run_folder(folder) / "lock") else self._left(folder)

    def _left(self, folder: Path) -> str:
        """What files say of the job."""
        try:
            self.result(folder)
            return "done"
        except (FileNotFoundError, NotADirectoryError):
            return "failed" if self.failure_file(folder).exists() else "missing"
        except (OSError, ValueError):
            return "unreadable"

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
        What the finished job has found, see :func:`sb3_mirl.benchmark.training.run_job`.

        :raises OSError: if there is no result
        :raises ValueError: if the file is damaged, or holds something else
        """
        file = self.result_file(folder)
        try:
            result = json.loads(file.read_bytes())
            _check_result(result)
            found = Job(result["algorithm"], result["environment"], result["seed"])
            if found != self:
                raise ValueError(f"it is the result of {found}")
        except ValueError as error:
            raise ValueError(f"{file.name}: {error}") from error
        return result

    def failure(self, folder: Path) -> str:
        """The last line of what the job has failed with."""
        try:
            lines = self.failure_file(folder).read_text().strip().splitlines()
        except FileNotFoundError:
            lines = []  # It has just begun again
        return lines[-1] if lines else "unknown"

    def progress(self, folder: Path) -> int:
        """Environment steps that the job has trained, to half a percent of all."""
        try:
            return int((self.run_folder(folder) / "steps.txt").read_text())
        except (OSError, ValueError):
            return 0

    def record_failure(self, folder: Path, reason: str) -> None:
        write_whole(self.failure_file(folder), reason.rstrip() + "\n")


def _check_result(result: Any) -> None:
    """:raises ValueError: if a file's content is not what a job writes, or has changed since"""
    if not isinstance(result, dict):
        raise ValueError(f"a dict was expected, got {type(result).__name__}")
    if result.get("format") != FORMAT:
        raise ValueError(f"format {result.get('format')!r} instead of {FORMAT}")
    missing = [key for key in _RESULT if key not in result]
    if missing:
        raise ValueError(f"it has no {', '.join(missing)}")
    for key, (what, fits) in {**_RESULT, **_RESULT_OF_MIRL}.items():
        value = result.get(key)
        if not fits(value) and not (key in _RESULT_OF_MIRL and value is None):
            raise ValueError(f"{key} must be {what}, got {str(value)[:80]}")
    if result.get("prior") and result.get("action_names") and len(result["prior"]) != len(result["action_names"]):
        raise ValueError(f"prior has {len(result['prior'])} actions, action_names has {len(result['action_names'])}")


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
            raise ValueError(f"it is a result {what} {found}, not {asked}")
    if result["steps"] < suite.steps[env]:
        raise ValueError(f"it is a result of {result['steps']} steps, not {suite.steps[env]}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(map(_is_number, values))


def _are_columns(value: Any, *keys: str) -> bool:
    """Numbers, and as many of each."""
    return (
        isinstance(value, dict)
        and all(_are_numbers(value.get(key)) for key in keys)
        and len({len(value[k]) for k in keys}) == 1
    )


def _has(value: Any, **kinds: type | tuple[type, ...]) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), kind) for key, kind in kinds.items())


_RESULT: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "suite": ("a name", lambda value: isinstance(value, str)),
    "algorithm": ("a name", lambda value: isinstance(value, str)),
    "environment": ("a name", lambda value: isinstance(value, str)),
    "seed": ("an integer", lambda value: isinstance(value, int)),
    "steps": ("an integer", lambda value: isinstance(value, int)),
    "scores": ("finite numbers", lambda value: _are_numbers(value) and len(value) > 0),
    "evaluation": ("settings", lambda value: _has(value, epsilon=(int, float)) and "random actions from" in value),
    "hyperparameters": ("a dict", lambda value: isinstance(value, dict)),
    "curve": ("columns of equal length", lambda value: _are_columns(value, "step", "return", "episodes")),
    "versions": ("a dict", lambda value: isinstance(value, dict)),
    "machine": ("a dict with device", lambda value: _has(value, device=str)),
    "time": ("a dict of seconds", lambda value: _has(value, training=(int, float), steps_per_second=(int, float))),
}
_RESULT_OF_MIRL: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "prior": ("finite numbers", lambda value: _are_numbers(value) and len(value) > 0),
    "history": ("columns of equal length", lambda value: _are_columns(value, "step", "beta")),
    "action_names": ("names", lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value)),
}


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


def is_locked(file: Path) -> bool:
    """Whether a process holds the file; it need not be there, nor may it be written."""
    try:
        with open(file) as handle:
            # Shared, so that those who only look do not see each other
            return not _try_to_lock(handle, shared=True)
    except (FileNotFoundError, NotADirectoryError):
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
        for name in ("results", "runs"):
            (folder / name).mkdir(exist_ok=True)
            # Whether files can be made there, before hours of training
            tempfile.TemporaryFile(dir=folder / name).close()
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
        suite, jobs = Suite(**data), [Job(*job) for job in content["jobs"]]
        if not isinstance(suite.steps, dict) or not all(isinstance(steps, int) for steps in suite.steps.values()):
            raise ValueError(f"steps must be numbers by environment, got {str(suite.steps)[:80]}")
        for job in jobs:
            if not isinstance(job.algorithm, str) or job.env not in suite.steps or not isinstance(job.seed, int):
                raise ValueError(f"jobs must be [algorithm, environment, seed], got {str(job)[:80]}")
        return suite, jobs
    except OSError as error:
        raise FolderError(f"{str(folder)!r} is not the folder of a benchmark: suite.json cannot be read") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FolderError(f"{str(file)!r} is not what `sb3-mirl bench run` writes ({error})") from error


def look(folder: Path, suite: Suite, jobs: Iterable[Job]) -> tuple[dict[Job, str], dict[Job, dict[str, Any]], dict[Job, str]]:
    """
    :param folder: of a benchmark
    :param suite: that it holds
    :param jobs: which to look at
    :return: the states of all jobs, with ``unreadable`` for results that are not of this suite; the results of those that are
        done; and why others are failed or unreadable
    """
    states, results, reasons = {}, {}, {}
    for job in jobs:
        state = job.state(folder)
        if state == "failed":
            reasons[job] = job.failure(folder)
        elif state in ("done", "unreadable"):
            try:
                result = job.result(folder)
                check_suite(result, suite)
                state, results[job] = "done", result
            except (OSError, ValueError) as error:
                state, reasons[job] = "unreadable", str(error)
        states[job] = state
    return states, results, reasons


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
