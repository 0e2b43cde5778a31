"""
The engine for a cluster: packs of jobs as tasks of `Ray <https://docs.ray.io>`_. A task runs its pack in a process with
:func:`~sb3_mirl.bench.local_engine.run_locally`, so results are those of the local engine.

Either all nodes share the folder of the benchmark, or the calling process fetches the files of each job and writes them.

- If a node dies, Ray runs its jobs again on another node: from their last checkpoint if the folder is shared, else from the
  beginning.
- An exception within a job is recorded as its failure; the job is not repeated.
- In a shared folder each job locks itself. Otherwise the calling process holds its lock from its first progress report on.
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
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError, TaskCancelledError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sb3_mirl.bench.jobs import Job, Pack, open_folder, read_folder, write_progress
from sb3_mirl.bench.local_engine import Engine, record_failure, run_locally
from sb3_mirl.bench.suites import Suite
from sb3_mirl.common.files import locked, write_whole

#: Retries of a job whose node or Ray worker died
RETRIES = 20
#: Seconds in which the head of a cluster must answer
REACH_PATIENCE_S = 30.0
#: Seconds in which all nodes must answer whether they can run jobs
NODE_PATIENCE_S = 60.0
#: Seconds that a job waits for its lock, which a process may still hold on a node that Ray has just given up
LOCK_PATIENCE_S = 60.0
#: Seconds in which cancelled tasks can end
CANCEL_PATIENCE_S = 5.0
#: Seconds between two updates of the progress
PERIOD_S = 1.0


class ClusterError(ValueError):
    """A Ray cluster cannot be used as asked."""


@contextmanager
def connected(address: str | None, cpus: float = 1, gpus: float = 0, fetch: bool = False) -> Iterator[Engine]:
    """
    Connect to Ray for the time of the context.

    :param address: ``host:port`` of a cluster's head; None for ``RAY_ADDRESS``, this machine's cluster, or a new local one
    :param cpus: of each pack; a fraction or a whole number
    :param gpus: of each pack; a fraction or a whole number
    :param fetch: whether the nodes do not share the folder, so that the files of each job are fetched at its end
    :return: the engine
    :raises ClusterError: if there is no cluster
    """
    named = address or os.environ.get("RAY_ADDRESS")
    try:
        _reach(named)
        # A new local cluster sends no usage statistics
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
        raise ValueError("Ray's client is not supported, give the host:port that `ray start` prints")
    # Ray itself tries for minutes, and then ends this process
    host, separator, port = (address or "").rpartition(":")
    if separator and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=5.0).close()
        try:
            command = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", f"{host}:{port}"]
            subprocess.run(command, timeout=REACH_PATIENCE_S, check=True, capture_output=True)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            reason = "".join(f": {line}" for line in _lines((error.stderr or b"").decode(errors="replace"))[-1:])
            raise ValueError(
                f"something listens there, but it does not answer as the head of a Ray cluster does{reason}"
            ) from error


def run_on_ray(
    packs: Sequence[Pack], folder: Path, workers: int | None, *, cpus: float, gpus: float, fetch: bool, **options: Any
) -> Iterator[Job | None]:
    """
    The engine; Ray must be connected.

    :param packs: to be run, in about this order
    :param folder: of the benchmark
    :param workers: packs at once; None for as many as the cluster can run
    :param cpus: of each pack
    :param gpus: of each pack; with 0, jobs run on the CPU unless ``options`` has a device
    :param fetch: whether the nodes do not share the folder
    :param options: of :func:`sb3_mirl.bench.packs.run_pack`
    :raises ClusterError: if a node cannot run jobs
    """
    folder = folder.resolve()
    if not gpus and options.get("device") == "auto":
        options["device"] = "cpu"
    with _marked(folder) as mark:
        _check_nodes(cpus, gpus, None if fetch else mark)
        files = _FetchedFiles(folder, options) if fetch else None
        task, *arguments = files.task if files else (_run_in_shared_folder, mark, options)
        submit = task.options(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES, retry_exceptions=False)
        waiting = deque(packs)
        running: dict[ray.ObjectRef, Pack] = {}
        try:
            while waiting or running:
                while waiting and (workers is None or len(running) < workers):
                    pack = waiting.popleft()
                    running[submit.remote(pack, *arguments)] = pack
                ended, _ = ray.wait(list(running), timeout=PERIOD_S)
                if files:
                    files.update(running)
                for reference in ended:
                    pack = running.pop(reference)
                    _finish(pack, folder, reference, files)
                    yield from pack
                if not ended:
                    yield None
        finally:
            _cancel(list(running))
            if files:
                files.close()


def _finish(pack: Pack, folder: Path, reference: ray.ObjectRef, files: "_FetchedFiles | None") -> None:
    reason, returned = "", None
    try:
        returned = ray.get(reference)
    except TaskCancelledError:
        pass  # by _FetchedFiles.update, because another process runs the job
    except RayError as error:
        reason = f"Ray could not run the job: {_last_line(error)}"
    for job in pack:
        reason_of_job = reason
        try:
            if files:
                files.finish(job, returned)
        except OSError as error:
            reason_of_job = f"The files of the job cannot be written: {error}"
        if reason_of_job and job.state(folder) in ("missing", "failed", "unreadable"):
            record_failure(job, folder, reason_of_job)


def _cancel(tasks: list[ray.ObjectRef]) -> None:
    """Ends tasks by a KeyboardInterrupt, so that they can end their processes and remove their files."""
    for task in tasks:
        ray.cancel(task)
    if tasks:
        ray.wait(tasks, num_returns=len(tasks), timeout=CANCEL_PATIENCE_S)


def _last_line(error: BaseException) -> str:
    lines = _lines(str(error.cause if isinstance(error, RayTaskError) else error))
    return lines[-1] if lines else type(error).__name__


def _lines(text: str) -> list[str]:
    """Without spaces around them and without empty ones."""
    return [line for line in map(str.strip, text.splitlines()) if line]


# ---- nodes ------------------------------------------------------------------------------------------------------------


@contextmanager
def _marked(folder: Path) -> Iterator[Path]:
    """A file in the folder with a unique name, by which nodes recognise the folder."""
    mark = folder / f".ray-{uuid.uuid4().hex}"
    mark.touch()
    try:
        yield mark
    finally:
        mark.unlink(missing_ok=True)


def _check_nodes(cpus: float, gpus: float, mark: Path | None) -> None:
    """
    Ask each node that has the resources whether it can run jobs. On a node that joins later, jobs fail instead.

    :param cpus: of a job
    :param gpus: of a job
    :param mark: a file that all nodes should see, if any
    :raises ClusterError: if a node cannot run jobs
    """
    nodes = {
        node["NodeID"]: node["NodeManagerAddress"]
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU", 0) >= cpus and node["Resources"].get("GPU", 0) >= gpus
    }
    if not nodes:
        print(f"No node has {cpus:g} CPUs and {gpus:g} GPUs for a job: waiting for one that has", file=sys.stderr)
    answers = {
        node: _check_node.options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            mark
        )
        for node in nodes
    }
    deadline = time.monotonic() + NODE_PATIENCE_S
    for node, answer in answers.items():
        try:
            ray.get(answer, timeout=max(deadline - time.monotonic(), 0.1))
        except RayTaskError as error:
            raise ClusterError(f"node {nodes[node]} cannot run jobs: {_last_line(error)}") from error
        except RayError:
            continue  # the node is slow or has died


def _check_folder(mark: Path | None) -> None:
    if mark is not None and not mark.exists():
        raise ClusterError(
            f"{socket.gethostname()} does not see the folder {str(mark.parent)!r}: choose --out on a file system that all "
            "nodes share, or add --fetch"
        )


@ray.remote
def _check_node(mark: Path | None) -> None:
    import sb3_mirl.bench.process  # noqa: F401  as a job does

    _check_folder(mark)


# ---- a folder that all nodes share ------------------------------------------------------------------------------------


@ray.remote
def _run_in_shared_folder(pack: Pack, mark: Path, options: dict[str, Any]) -> None:
    folder = mark.parent
    _check_folder(mark)
    deadline = time.monotonic() + LOCK_PATIENCE_S
    to_be_run = []
    for job in pack:
        job.run_folder(folder).mkdir(parents=True, exist_ok=True)
        with locked(job.lock_file(folder), max(deadline - time.monotonic(), 0.0)) as free:
            if free and not job.finished(folder):
                to_be_run.append(job)
    for _ in run_locally([tuple(to_be_run)] if to_be_run else [], folder, 1, **options):
        pass


# ---- a folder that nodes do not see -----------------------------------------------------------------------------------


@ray.remote(num_cpus=0)
class _Mailbox:
    """The progress of jobs, posted by their nodes."""

    def __init__(self) -> None:
        self.steps: dict[Job, int] = {}

    def post(self, steps: dict[Job, int]) -> None:
        self.steps |= steps

    def empty(self) -> dict[Job, int]:
        news, self.steps = self.steps, {}
        return news


@ray.remote
def _run_in_temporary_folder(pack: Pack, suite: Suite, options: dict[str, Any], mailbox: Any) -> dict[str, bytes]:
    """
    :return: the files of the jobs, by path within the folder
    """
    with TemporaryDirectory(prefix="sb3-mirl-") as name:
        folder = Path(name)
        open_folder(folder, suite, pack)
        posted: dict[Job, int] = {}
        read_at = 0.0
        for _ in run_locally([pack], folder, 1, **options):
            if not posted or time.monotonic() - read_at > PERIOD_S:
                read_at, progress = time.monotonic(), {job: job.progress(folder) for job in pack}
                if progress != posted:
                    mailbox.post.remote(progress)
                    posted = progress
        for job in pack:
            shutil.rmtree(job.checkpoints(folder), ignore_errors=True)
            job.lock_file(folder).unlink(missing_ok=True)
        paths = [path for part in ("results", "runs") for path in (folder / part).rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


class _FetchedFiles:
    """Jobs write into folders of their nodes. This process holds their locks and writes the files that they return."""

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        self.folder = folder
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.mailbox = _Mailbox.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]
        #: The remote function, and its arguments after the pack
        self.task = (_run_in_temporary_folder, read_folder(folder)[0], options, self.mailbox)
        self.locks: dict[Job, ExitStack] = {}

    def update(self, running: dict[ray.ObjectRef, Pack]) -> None:
        """Locks the jobs that have begun, and writes their progress. A pack whose jobs are all run elsewhere is cancelled."""
        news = ray.get(self.mailbox.empty.remote())
        for task, pack in running.items():
            if pack[0] not in news:
                continue
            to_be_run = [job for job in pack if self._lock(job)]
            for job in to_be_run:
                write_progress(job.progress_file(self.folder), news[job])
            if not to_be_run:
                ray.cancel(task)

    def _lock(self, job: Job) -> bool:
        """Whether this process may run the job: it is not finished, and no other process runs it."""
        if job in self.locks:
            return True
        job.run_folder(self.folder).mkdir(parents=True, exist_ok=True)
        lock = ExitStack()
        if not lock.enter_context(locked(job.lock_file(self.folder), patience_s=1.0)) or job.finished(self.folder):
            lock.close()
            return False
        self.locks[job] = lock
        job.failure_file(self.folder).unlink(missing_ok=True)
        return True

    def finish(self, job: Job, returned: dict[str, bytes] | None) -> None:
        """Writes the files of one job of a pack, its result last."""
        try:
            if returned is not None and self._lock(job):
                self._write(job, returned)
        finally:
            if job in self.locks:
                self.locks.pop(job).close()

    def _write(self, job: Job, returned: dict[str, bytes]) -> None:
        own = {job.result_file(self.folder), job.failure_file(self.folder)}
        for old in (job.run_folder(self.folder) / job.algorithm, job.checkpoints(self.folder)):
            shutil.rmtree(old, ignore_errors=True)
        for name in sorted(returned, reverse=True):
            file = self.folder / name
            if file not in own and not file.is_relative_to(job.run_folder(self.folder)):
                continue
            if file.parent.name == "results":
                write_whole(file, returned[name])
            else:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(returned[name])

    def close(self) -> None:
        for lock in self.locks.values():
            lock.close()
        ray.kill(self.mailbox)
