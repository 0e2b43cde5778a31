"""
The folder of a benchmark: its suite, the planned jobs, and the state of each. Nothing here imports torch, so that
``sb3-mirl bench status`` answers at once.

- ``suite.json``: the suite as it was started, and all jobs that were asked for so far;
- ``results/<job>.json``: the result of a finished job, validated whenever it is read;
- ``results/<job>.failed.txt``: why a job failed; the next run tries it again. The file is empty if the disk was full;
- ``runs/<job>/``: rl-zoo3's log folder with the model, the output of the job, and its checkpoints until it is finished.
"""

import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sb3_mirl.bench import schema
from sb3_mirl.bench.suites import Suite
from sb3_mirl.common import files

#: Environment steps between two checkpoints of a job, at most
MAX_SAVE_FREQ_STEPS = 100_000
#: Seconds between two updates of a job's progress, at most
PROGRESS_PERIOD_S = 5.0
#: Seconds to wait while other processes add their jobs to ``suite.json``
PLAN_PATIENCE_S = 60.0
#: Characters of the last line of a failure
MAX_REASON_CHARS = 1000
#: States of a job, the first that applies; a result that is damaged or belongs to another job is ``unreadable``
STATES = ("done", "running", "unreadable", "failed", "missing")
#: Fields of a suite that decide whether results are comparable; ``steps`` are compared too
COMPARED_FIELDS = ("name", "epsilon", "episodes", "hyperparams", "own_hyperparams", "env_kwargs")


class FolderError(ValueError):
    """A folder cannot be used for a benchmark; the message names it and says why."""


@dataclass(frozen=True)
class Outcome:
    """
    What a folder holds of a job.

    :param state: one of :data:`STATES`
    :param reason: why there is no result, if that is known
    :param result: of a job that is done
    """

    state: str
    reason: str = ""
    result: dict[str, Any] | None = None


@dataclass(frozen=True, order=True)
class Job:
    """
    One training with its evaluation.

    :param algorithm: as rl-zoo3 names it
    :param env: the environment's id
    :param seed: of all random numbers
    """

    algorithm: str
    env: str
    seed: int

    @property
    def name(self) -> str:
        """The name of the job's files."""
        return f"{self.algorithm}_{self.env.replace('/', '-')}_{self.seed}"

    def __str__(self) -> str:
        return f"{self.algorithm} {self.env} seed {self.seed}"

    def result_file(self, folder: Path) -> Path:
        """The file of the result."""
        return folder / "results" / f"{self.name}.json"

    def failure_file(self, folder: Path) -> Path:
        """The file of the traceback, if the job failed."""
        return folder / "results" / f"{self.name}.failed.txt"

    def run_folder(self, folder: Path) -> Path:
        """The folder of the training."""
        return folder / "runs" / self.name

    def progress_file(self, folder: Path) -> Path:
        """The file of the number of steps so far."""
        return self.run_folder(folder) / "steps.txt"

    def log_file(self, folder: Path) -> Path:
        """What the job prints; of jobs that share a process, the first one's also has what belongs to none of them."""
        return self.run_folder(folder) / "log.txt"

    def lock_file(self, folder: Path) -> Path:
        """Locked by the process that runs the job."""
        return self.run_folder(folder) / "lock"

    def checkpoints(self, folder: Path) -> Path:
        """The folder of the checkpoints."""
        return self.run_folder(folder) / "checkpoints"

    def state(self, folder: Path) -> str:
        """One of :data:`STATES`."""
        return self.outcome(folder).state

    def outcome(self, folder: Path, suite: Suite | None = None) -> Outcome:
        """
        :param folder: of the benchmark
        :param suite: of the folder; if given, a result of another suite is ``unreadable``
        :return: the state of the job, with its result or the reason why there is none
        """
        outcome = self._outcome_in_files(folder, suite)
        if outcome.state == "done":
            return outcome
        # The job may have ended between reading its files and testing its lock
        return Outcome("running") if files.is_locked(self.lock_file(folder)) else self._outcome_in_files(folder, suite)

    def _outcome_in_files(self, folder: Path, suite: Suite | None) -> Outcome:
        try:
            result = self.result(folder)
            if suite is not None:
                check_suite(result, suite)
            return Outcome("done", result=result)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except (OSError, ValueError) as error:
            # A starting job removes earlier failures: a failure beside a damaged result is newer, and counts
            if not os.path.lexists(self.failure_file(folder)):
                return Outcome("unreadable", str(error))
        if os.path.lexists(self.failure_file(folder)):
            return Outcome("failed", self.failure(folder))
        if os.path.lexists(self.run_folder(folder)):
            steps = self.progress(folder)
            return Outcome("missing", f"begun, and ended after {steps:,} steps: interrupted, killed, or its disk was full")
        return Outcome("missing")

    def finished(self, folder: Path) -> bool:
        """
        Whether there is a valid result.

        :raises OSError: if the file is there but cannot be read
        """
        try:
            self.result(folder)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return False
        return True

    def result(self, folder: Path) -> dict[str, Any]:
        """
        The result of the finished job, see :func:`sb3_mirl.bench.training.run_job`.

        :raises OSError: if there is no result
        :raises ValueError: if the file is damaged or holds something else
        """
        file = self.result_file(folder)
        try:
            result = schema.read(file)
            schema.check_result(result)
            job = Job(result["algorithm"], result["environment"], result["seed"])
            if job != self:
                raise ValueError(f"it is the result of {job}")
        except ValueError as error:
            raise ValueError(f"{file.name}: {error}") from error
        return result

    def failure(self, folder: Path) -> str:
        """The last line of the recorded failure."""
        try:
            text = schema.read_bytes(self.failure_file(folder)).decode("utf-8", "backslashreplace").strip()
        except FileNotFoundError:
            return "unknown"  # the job has just been started again
        except (OSError, ValueError) as error:
            return f"unknown ({error})"
        return text.splitlines()[-1][:MAX_REASON_CHARS] if text else "its disk was full: no reason could be written"

    def progress(self, folder: Path) -> int:
        """Environment steps trained so far, up to half a percent of all steps or :data:`PROGRESS_PERIOD_S` behind."""
        try:
            text = schema.read_bytes(self.progress_file(folder), max_bytes=20).decode("ascii")
            return int(text) if text.isdecimal() else 0
        except (OSError, ValueError):
            return 0

    def record_failure(self, folder: Path, reason: str) -> None:
        """Write why the job failed. If that raises OSError, an empty file marks the failure if possible."""
        try:
            # Reasons may hold names of files that are not valid Unicode
            files.write_whole(self.failure_file(folder), f"{reason.rstrip()}\n".encode(errors="backslashreplace"))
        except OSError:
            with suppress(OSError):
                # An empty file can be created on a full disk, too
                self.failure_file(folder).touch()
            raise


#: Jobs that one process runs: a single one, or several that are trained jointly
Pack = tuple[Job, ...]


def write_progress(file: Path, steps: int) -> None:
    """Replaces a job's :meth:`Job.progress_file` atomically, without waiting for the disk. Errors are ignored."""
    unfinished = file.with_name(f".{file.name}{files.UNFINISHED}")
    with suppress(OSError):
        unfinished.unlink(missing_ok=True)
        unfinished.write_text(str(steps))
        os.replace(unfinished, file)


def check_suite(result: dict[str, Any], suite: Suite) -> None:
    """
    :param result: of a job, see :meth:`Job.result`
    :param suite: of the folder that holds the result
    :raises ValueError: if the job was trained or evaluated with other settings than the suite's
    """
    env = result["environment"]
    for setting, actual, expected in (
        ("suite", result["suite"], suite.name),
        ("n_timesteps", result["hyperparameters"].get("n_timesteps"), suite.steps.get(env)),
        ("env_kwargs", result["hyperparameters"].get("env_kwargs", {}), dict(suite.env_kwargs)),
        ("an evaluation with epsilon", result["evaluation"]["epsilon"], suite.epsilon),
        ("an evaluation with episodes", len(result["scores"]), suite.episodes),
    ):
        if actual != expected:
            raise ValueError(f"it is a result of {setting} {str(actual)[:80]}, not {expected}")
    if result["steps"] < suite.steps.get(env, 0):
        raise ValueError(f"it is a result of {result['steps']} steps, not {suite.steps[env]}")


def planned_jobs(folder: Path, suite: Suite) -> list[Job]:
    """
    :param folder: of a benchmark; need not exist
    :param suite: that the folder should hold
    :return: the jobs that were asked for so far
    :raises FolderError: if the folder holds another suite or something else
    """
    if folder.exists() and not folder.is_dir():
        raise FolderError(f"{str(folder)!r} is not a folder")
    # Listed before suite.json is tested, because another process may be creating it with hidden files beside it
    visible = [file.name for file in folder.iterdir() if not file.name.startswith(".")] if folder.is_dir() else []
    if (folder / "suite.json").exists():
        stored, planned = read_folder(folder)
        if found := _suite_differences(stored, suite):
            raise FolderError(f"{str(folder)!r} holds other results: {'; '.join(found)}. Choose another folder")
        if gone := [job.env for job in planned if job.env not in suite.steps]:
            raise FolderError(
                f"{str(folder)!r} has jobs of {gone[0]}, which {suite.name} does not have. Choose another folder"
            )
        return planned
    if visible:
        raise FolderError(f"{str(folder)!r} is not empty, and has no suite.json. Choose another folder")
    return []


def open_folder(folder: Path, suite: Suite, jobs: Iterable[Job]) -> list[Job]:
    """
    Create the folder, or check that it holds the same suite, and add jobs to the planned ones.

    :param folder: of the benchmark
    :param suite: of the jobs
    :param jobs: to be added
    :return: all planned jobs, those of earlier calls first
    :raises FolderError: if the folder cannot be written, or holds another suite or something else
    """
    planned_jobs(folder, suite)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Processes that start at the same time must keep each other's jobs
        with files.locked(folder / ".lock", PLAN_PATIENCE_S):
            planned = list(dict.fromkeys([*planned_jobs(folder, suite), *jobs]))
            names = [[job.algorithm, job.env, job.seed] for job in planned]
            content = {"format": schema.FORMAT, "suite": asdict(suite), "jobs": names}
            files.write_whole(folder / "suite.json", json.dumps(content, indent=1).encode())
        for name in ("results", "runs"):
            (folder / name).mkdir(exist_ok=True)
            # Fails now rather than after hours of training
            tempfile.TemporaryFile(dir=folder / name).close()
    except OSError as error:
        raise FolderError(f"{str(folder)!r} cannot be written ({error.strerror or error})") from error
    return planned


def read_folder(folder: Path) -> tuple[Suite, list[Job]]:
    """
    :param folder: of a benchmark
    :return: its suite, and the planned jobs
    :raises FolderError: if it is not the folder of a benchmark
    """
    file = folder / "suite.json"
    try:
        content = schema.read(file, schema.MAX_SUITE_BYTES)
        schema.check_suite_file(content)
    except OSError as error:
        raise FolderError(f"{str(folder)!r} is not the folder of a benchmark: suite.json cannot be read ({error})") from error
    except ValueError as error:
        raise FolderError(f"{str(file)!r} is not what `sb3-mirl bench run` writes ({error})") from error
    settings: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in content["suite"].items()
        if value is not None
    }
    return Suite(**settings), list(dict.fromkeys(Job(*job) for job in content["jobs"]))


def stored_jobs(folder: Path, suite: Suite) -> list[Job]:
    """
    :param folder: of a benchmark
    :param suite: of the folder
    :return: the jobs of all result files, by file name, including results that were not planned but copied from elsewhere
    """
    jobs = []
    for file in sorted((folder / "results").glob("*.json")):
        head, _, seed = file.stem.rpartition("_")
        for env in suite.steps:
            algorithm = head.removesuffix(f"_{env.replace('/', '-')}")
            if algorithm != head and schema.is_algorithm(algorithm) and re.fullmatch(r"0|[1-9][0-9]{0,11}", seed):
                jobs.append(Job(algorithm, env, int(seed)))
    return jobs


def outcomes(folder: Path, suite: Suite, jobs: Iterable[Job]) -> dict[Job, Outcome]:
    """
    :param folder: of a benchmark
    :param suite: of the folder
    :param jobs: that are planned
    :return: the outcome of each job, then those of copied results. Results that do not fit the suite or the other results are
        ``unreadable``
    """
    found = {job: job.outcome(folder, suite) for job in dict.fromkeys([*jobs, *stored_jobs(folder, suite)])}
    n_actions = {
        job: len(outcome.result["prior"]) for job, outcome in found.items() if outcome.result and outcome.result.get("prior")
    }
    for env in {job.env for job in n_actions}:
        counts = Counter(n for job, n in n_actions.items() if job.env == env)
        usual = max(counts, key=lambda n: (counts[n], n))
        for job, n in n_actions.items():
            if job.env == env and n != usual:
                reason = f"it has a prior of {n} actions, where most results of {env} have {usual}"
                found[job] = Outcome("unreadable", reason)
    return found


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    """A text for each of the keys whose values differ."""
    return [
        f"{key} {stored.get(key, 'not set')!r} instead of {wanted.get(key, 'not set')!r}"
        for key in keys
        if stored.get(key) != wanted.get(key)
    ]


def _suite_differences(stored: Suite, wanted: Suite) -> list[str]:
    found = differences(vars(stored), vars(wanted), COMPARED_FIELDS)
    if stored.name == wanted.name:
        found += [
            f"{stored.steps[env]} steps of {env} instead of {steps}"
            for env, steps in wanted.steps.items()
            if stored.steps.get(env, steps) != steps
        ][:1]
    return found
