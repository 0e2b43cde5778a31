"""
The engine for a cluster: jobs as tasks of `Ray <https://docs.ray.io>`_. A task runs its job in a process of its own, as the
engine for one machine does, and so to the same numbers.

Nodes either see the folder of the benchmark, or what a job leaves is fetched and written by the process that asked for it.

- A node that dies takes its jobs with it. Ray runs them again on another: from their last checkpoint if the folder is shared,
  else from the beginning.
- An exception within a job is its failure, and recorded as such.
- In a shared folder a job holds its own lock; of a fetched one this process holds it, from when the job begins.
"""

import logging
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError, TaskCancelledError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sb3_mirl.bench.jobs import Job, locked, open_folder, read_folder, write_whole
from sb3_mirl.bench.run import Engine, record, run_locally
from sb3_mirl.bench.suites import Suite

#: Of a job, after its node or Ray's worker there has died. More than this is hardly the nodes' fault
RETRIES = 20
#: Seconds in which the head of a cluster must answer
REACH_PATIENCE = 30.0
#: Seconds that a job waits for its lock, which a process may still hold on a node that has just been given up
LOCK_PATIENCE = 60.0
#: Seconds between two looks at how far a job is
PERIOD = 1.0


class ClusterError(ValueError):
    """A Ray cluster cannot be used as asked."""


@contextmanager
def connected(address: str | None, cpus: float = 1, gpus: float = 0, fetch: bool = False) -> Iterator[Engine]:
    """
    Connects to Ray for the time of the context.

    :param address: ``host:port`` of a cluster's head, or None for what Ray finds: ``RAY_ADDRESS``, the cluster to which this
        machine belongs, or else a new one of this machine alone
    :param cpus: of each job; a fraction, or a whole number
    :param gpus: the same
    :param fetch: whether nodes do not see the folder, so that the files of a job come back when it has ended
    :return: the engine
    :raises ClusterError: if no cluster is there
    """
    named = address or os.environ.get("RAY_ADDRESS")
    try:
        _reach(named)
        # Of a cluster that is started here: it tells nobody about itself
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise ClusterError(f"no Ray cluster at {named or 'this machine'} ({_last_line(error)})") from error
    try:
        yield partial(run_on_ray, cpus=cpus, gpus=gpus, fetch=fetch)
    finally:
        ray.shutdown()


def _reach(address: str | None) -> None:
    if (address or "").startswith("ray://"):
        raise ValueError("Ray's client is not supported, host:port is that of `ray start`")
    # Ray itself would try for minutes, and then end this process
    host, separator, port = (address or "").rpartition(":")
    if separator and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=5.0).close()
        try:
            command = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", f"{host}:{port}"]
            subprocess.run(command, timeout=REACH_PATIENCE, check=True, capture_output=True)
        except subprocess.SubprocessError as error:
            raise ValueError("something listens there, but it does not answer as the head of a Ray cluster does") from error


def run_on_ray(
    jobs: Sequence[Job], folder: Path, workers: int | None, *, cpus: float, gpus: float, fetch: bool, **options: Any
) -> Iterator[Job | None]:
    """
    The engine. Ray is connected already.

    :param jobs: to be run, begun in about this order
    :param folder: of the benchmark
    :param workers: jobs at once; None for as many as the cluster has room for
    :param cpus: of each job
    :param gpus: of each job. Without, jobs are on the CPU unless ``options`` has another device
    :param fetch: whether nodes do not see the folder
    :param options: of :func:`sb3_mirl.bench.training.run_job`
    :raises ClusterError: if a node cannot run jobs
    """
    folder = folder.resolve()
    if not gpus and options.get("device") == "auto":
        options["device"] = "cpu"
    with _marked(folder) as mark:
        _check_nodes(cpus, gpus, None if fetch else mark)
        where = _Fetched(folder, options) if fetch else _Shared(mark, options)
        submit = where.task.options(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES, retry_exceptions=False)
        waiting = deque(jobs)
        running: dict[ray.ObjectRef, Job] = {}
        try:
            while waiting or running:
                while waiting and (workers is None or len(running) < workers):
                    job = waiting.popleft()
                    running[submit.remote(job, *where.arguments)] = job
                ended, _ = ray.wait(list(running), timeout=PERIOD)
                where.look(running)
                for task in ended:
                    job = running.pop(task)
                    _end(job, folder, task, where.end)
                    yield job
                if not ended:
                    yield None
        finally:
            _cancel(list(running))
            where.close()


def _end(job: Job, folder: Path, task: ray.ObjectRef, end: Callable[[Job, Any], None]) -> None:
    reason, returned = "", None
    try:
        returned = ray.get(task)
    except TaskCancelledError:
        pass  # by Fetched.look, because the job is another's
    except RayError as error:
        reason = f"Ray could not run the job: {_last_line(error)}"
    try:
        end(job, returned)
    except OSError as error:
        reason = f"What the job has left cannot be written: {error}"
    if reason and job.state(folder) in ("missing", "failed", "unreadable"):
        record(job, folder, reason)


def _cancel(tasks: list[ray.ObjectRef]) -> None:
    """Ends tasks by a KeyboardInterrupt, so that they can end their processes and remove what they have written."""
    for task in tasks:
        ray.cancel(task)
    if tasks:
        ray.wait(tasks, num_returns=len(tasks), timeout=5.0)


def _last_line(error: BaseException) -> str:
    text = str(error.cause if isinstance(error, RayTaskError) else error).strip()
    return text.splitlines()[-1].strip() if text else type(error).__name__


# ---- nodes ------------------------------------------------------------------------------------------------------------


@contextmanager
def _marked(folder: Path) -> Iterator[Path]:
    """A file in the folder that no other folder has, to tell by it who sees the folder."""
    mark = folder / f".ray-{uuid.uuid4().hex}"
    mark.touch()
    try:
        yield mark
    finally:
        mark.unlink(missing_ok=True)


def _check_nodes(cpus: float, gpus: float, mark: Path | None) -> None:
    """
    Lets each node that can have jobs say whether it can run them. One that joins later says so by a failed job.

    :param cpus: of a job
    :param gpus: of a job
    :param mark: a file that all of them should see, if any
    :raises ClusterError: if one cannot
    """
    nodes = {
        node["NodeID"]: node["NodeManagerAddress"]
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU", 0) >= cpus and node["Resources"].get("GPU", 0) >= gpus
    }
    if not nodes:
        print(f"No node has {cpus:g} CPUs and {gpus:g} GPUs for a job: waiting for one that has", file=sys.stderr)
    answers = {
        node: _look.options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(mark)
        for node in nodes
    }
    deadline = time.monotonic() + 60.0
    for node, answer in answers.items():
        try:
            ray.get(answer, timeout=max(deadline - time.monotonic(), 0.1))
        except RayTaskError as error:
            raise ClusterError(f"node {nodes[node]} cannot run jobs: {_last_line(error)}") from error
        except RayError:
            continue  # It is slow, or died


def _see(mark: Path | None) -> None:
    if mark is not None and not mark.exists():
        raise ClusterError(
            f"{socket.gethostname()} does not see the folder {str(mark.parent)!r}: choose --out on a file system that all "
            "nodes share, or add --fetch"
        )


@ray.remote
def _look(mark: Path | None) -> None:
    import sb3_mirl.bench.training  # noqa: F401  as a job does

    _see(mark)


# ---- a folder that all nodes see --------------------------------------------------------------------------------------


@ray.remote
def _run_here(job: Job, mark: Path, options: dict[str, Any]) -> None:
    folder = mark.parent
    _see(mark)
    job.run_folder(folder).mkdir(parents=True, exist_ok=True)
    with locked(job.run_folder(folder) / "lock", LOCK_PATIENCE) as free:
        if not free or job.finished(folder):
            return
    for _ in run_locally([job], folder, 1, **options):
        pass


class _Shared:
    """Jobs write where they are to be."""

    task = _run_here

    def __init__(self, mark: Path, options: dict[str, Any]) -> None:
        self.arguments = (mark, options)

    def look(self, running: dict[ray.ObjectRef, Job]) -> None:
        pass

    def end(self, job: Job, returned: None) -> None:
        pass

    def close(self) -> None:
        pass


# ---- files that are fetched -------------------------------------------------------------------------------------------


@ray.remote(num_cpus=0)
class _Mailbox:
    """How far jobs are, by their nodes."""

    def __init__(self) -> None:
        self.steps: dict[Job, int] = {}

    def post(self, job: Job, steps: int) -> None:
        self.steps[job] = steps

    def empty(self) -> dict[Job, int]:
        news, self.steps = self.steps, {}
        return news


@ray.remote
def _run_there(job: Job, suite: Suite, options: dict[str, Any], mailbox: Any) -> dict[str, bytes]:
    """
    :return: what the job has left, by path within the folder
    """
    with TemporaryDirectory(prefix="sb3-mirl-") as name:
        folder = Path(name)
        open_folder(folder, suite, [job])
        posted, looked_at = -1, 0.0
        for _ in run_locally([job], folder, 1, **options):
            if posted < 0 or time.monotonic() - looked_at > PERIOD:
                looked_at, steps = time.monotonic(), job.progress(folder)
                if steps != posted:
                    mailbox.post.remote(job, steps)
                    posted = steps
        runs = job.run_folder(folder)
        shutil.rmtree(runs / "checkpoints", ignore_errors=True)
        (runs / "lock").unlink(missing_ok=True)
        left = [file for part in ("results", "runs") for file in (folder / part).rglob("*") if file.is_file()]
        return {str(file.relative_to(folder)): file.read_bytes() for file in left}


class _Fetched:
    """Jobs write into folders of their nodes. This process holds their locks, and writes what they return."""

    task = _run_there

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        self.folder = folder
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.mailbox = _Mailbox.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]
        self.arguments = (read_folder(folder)[0], options, self.mailbox)
        self.locks: dict[Job, ExitStack] = {}

    def look(self, running: dict[ray.ObjectRef, Job]) -> None:
        """Locks the jobs that have begun, and writes down how far they are."""
        news = ray.get(self.mailbox.empty.remote())
        for task, job in running.items():
            if job in news:
                if self._begin(job):
                    job.record_progress(self.folder, news[job])
                else:
                    ray.cancel(task)

    def _begin(self, job: Job) -> bool:
        """Whether the job is this process's: not finished, and of no other process."""
        if job in self.locks:
            return True
        runs = job.run_folder(self.folder)
        runs.mkdir(parents=True, exist_ok=True)
        lock = ExitStack()
        if not lock.enter_context(locked(runs / "lock", patience=1.0)) or job.finished(self.folder):
            lock.close()
            return False
        self.locks[job] = lock
        job.failure_file(self.folder).unlink(missing_ok=True)
        return True

    def end(self, job: Job, returned: dict[str, bytes] | None) -> None:
        """Writes what the job has left, its result last."""
        try:
            self._write(job, returned)
        finally:
            if job in self.locks:
                self.locks.pop(job).close()

    def _write(self, job: Job, returned: dict[str, bytes] | None) -> None:
        if returned is not None and self._begin(job):
            runs = job.run_folder(self.folder)
            for old in (job.algorithm, "checkpoints"):
                shutil.rmtree(runs / old, ignore_errors=True)
            for name in sorted(returned, reverse=True):
                file = self.folder / name
                file.parent.mkdir(parents=True, exist_ok=True)
                if file.parent.name == "results":
                    write_whole(file, returned[name].decode())
                else:
                    file.write_bytes(returned[name])

    def close(self) -> None:
        for lock in self.locks.values():
            lock.close()
        ray.kill(self.mailbox)
