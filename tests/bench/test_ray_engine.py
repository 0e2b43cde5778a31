"""``sb3-mirl bench run --engine ray``: results are those of the local engine, also if nodes die."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from contextlib import nullcontext
from dataclasses import replace

import psutil
import pytest
from bench_runs import TINY, without_time

from sb3_mirl.bench import run as bench
from sb3_mirl.bench.jobs import Job, open_folder
from sb3_mirl.bench.packs import run_pack
from sb3_mirl.bench.training import run_job
from sb3_mirl.cli.main import main
from sb3_mirl.common.files import locked

ray = pytest.importorskip("ray")

from ray.cluster_utils import Cluster  # noqa: E402

from sb3_mirl.bench import ray_engine  # noqa: E402

LONGER = replace(TINY, steps={"CartPole-v1": 3000}, hyperparams={"learning_starts": 100})
DQN, *MIRL = (Job("dqn", "CartPole-v1", 0), *(Job("mirl", "CartPole-v1", seed) for seed in range(3)))
COMMAND = ["bench", "run", "classic", "--envs", "CartPole-v1", "--steps", "600", "--algos", "dqn", "mirl", "--seeds", "1"]


def run_here(folder, suite, jobs):
    """A folder with results that this process has computed."""
    open_folder(folder, suite, jobs)
    assert all(run_job(job, folder, device="cpu") for job in jobs)
    return folder


# ---- one node ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one_node():
    """The engine on a new local node."""
    with ray_engine.connected("local", cpus=0.5) as engine:
        yield engine


@pytest.mark.slow
@pytest.mark.parametrize("fetch", [False, True], ids=["shared", "fetched"])
def test_result_is_the_same_on_a_node(one_node, fetch, tmp_path, capsys):
    jobs = [MIRL[0]] if fetch else [DQN, MIRL[0]]
    local, folder = run_here(tmp_path / "here", TINY, jobs), tmp_path / "out"
    assert bench.run(TINY, jobs, folder, engine=nullcontext(one_node), fetch=fetch, device="auto") == []
    assert [without_time(job, folder) for job in jobs] == [without_time(job, local) for job in jobs]
    assert {file.relative_to(folder) for file in folder.rglob("*")} == {file.relative_to(local) for file in local.rglob("*")}
    assert bench.status(folder) == [f"classic: {len(jobs)} jobs, {len(jobs)} done, 0 running, 0 failed, 0 missing"]
    assert f"[{len(jobs)}/{len(jobs)}] " in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("fetch", [False, True], ids=["shared", "fetched"])
def test_pack_is_trained_jointly_on_a_node(one_node, fetch, tmp_path):
    suite = replace(TINY, episodes=2, hyperparams={"learning_starts": 100})
    local, folder = tmp_path / "here", tmp_path / "out"
    open_folder(local, suite, MIRL)
    run_pack(MIRL, local, device="cpu")
    assert bench.run(suite, MIRL, folder, engine=nullcontext(one_node), joint=3, fetch=fetch, device="auto") == []
    assert [without_time(job, folder) for job in MIRL] == [without_time(job, local) for job in MIRL]
    assert {job.result(folder)["trained_jointly"] for job in MIRL} == {3}
    assert {file.relative_to(folder) for file in folder.rglob("*")} == {file.relative_to(local) for file in local.rglob("*")}


@pytest.mark.slow
def test_job_of_a_pack_that_another_process_runs_is_left_to_it(one_node, tmp_path):
    suite, folder = replace(TINY, episodes=2), tmp_path / "out"
    open_folder(folder, suite, MIRL)
    MIRL[0].run_folder(folder).mkdir()
    with locked(MIRL[0].lock_file(folder)):
        assert [job for job in one_node([tuple(MIRL)], folder, 1, fetch=True) if job] == MIRL
    assert [job.state(folder) for job in MIRL] == ["missing", "done", "done"]


@pytest.mark.parametrize("fetch", [pytest.param(False, id="shared"), pytest.param(True, id="fetched", marks=pytest.mark.slow)])
def test_failure_is_recorded_and_not_repeated(one_node, fetch, tmp_path):
    broken = replace(TINY, hyperparams={"policy_kwargs": {"net_arch": ["wide"]}})
    open_folder(tmp_path / "out", broken, [MIRL[0]])
    ended = [job for job in one_node([(MIRL[0],)], tmp_path / "out", 1, fetch=fetch) if job]
    assert ended == [MIRL[0]] and MIRL[0].state(tmp_path / "out") == "failed"
    assert "in _train_and_evaluate" in MIRL[0].failure_file(tmp_path / "out").read_text()


@pytest.mark.slow
def test_job_of_another_process_is_not_run(one_node, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "out"
    open_folder(folder, TINY, [DQN])
    DQN.run_folder(folder).mkdir(parents=True)
    with locked(DQN.lock_file(folder)):
        assert bench.run(TINY, [DQN], folder, engine=nullcontext(one_node), fetch=True) == [DQN]
    assert "another process runs it" in capsys.readouterr().out
    assert DQN.state(folder) == "missing"


def test_node_without_the_folder_is_refused(one_node, tmp_path):
    """As for a node that has another folder of the same name."""
    reason = r"\S+ does not see the folder '.*': choose --out .*, or add --fetch"
    with pytest.raises(ray_engine.ClusterError, match=rf"^node \S+ cannot run jobs: .*{reason}$"):
        ray_engine._check_nodes(0.5, 0, tmp_path / ".ray-of-another-node")


# ---- refusals ---------------------------------------------------------------------------------------------------------


def test_address_without_cluster_is_refused(tmp_path, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    assert main([*COMMAND, "--out", str(tmp_path / "out"), "--engine", "ray", "--address", address]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"sb3-mirl bench run: error: no Ray cluster at {address} (")
    assert not (tmp_path / "out").exists()


def test_address_of_another_service_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ray_engine, "REACH_PATIENCE_S", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        assert main([*COMMAND, "--out", str(tmp_path / "out"), "--engine", "ray", "--address", address]) == 2
    assert f"no Ray cluster at {address} (something listens there, " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_ray_says_of_a_cluster_is_passed_on(monkeypatch):
    """As for a cluster that requires a token where RAY_AUTH_MODE is not set."""

    def refuse(command, **options):
        raise subprocess.CalledProcessError(1, command, stderr=b"Traceback\nAuthenticationError: token is missing\n\n")

    monkeypatch.setattr(subprocess, "run", refuse)
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(ray_engine.ClusterError, match=r"Ray cluster does: AuthenticationError: token is missing\)$"):
            ray_engine.connected(address).__enter__()


def test_ray_client_is_refused(tmp_path, capsys):
    assert main([*COMMAND, "--out", str(tmp_path / "out"), "--engine", "ray", "--address", "ray://127.0.0.1:10001"]) == 2
    assert "no Ray cluster at ray://127.0.0.1:10001 (Ray's client is not supported, " in capsys.readouterr().err


def test_missing_ray_is_named_with_its_extra(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sb3_mirl.bench.ray_engine", None)
    assert main([*COMMAND, "--out", str(tmp_path / "out"), "--engine", "ray"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("pip install 'sb3-mirl[ray]'") and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--address", "10.0.0.1:6379"], "argument --address: only with --engine ray"),
        (["--fetch"], "argument --fetch: only with --engine ray"),
        (["--engine", "ray", "--cpus-per-job", "1.5"], "argument --cpus-per-job: '1.5' is neither a fraction between 0 and 1"),
        (["--engine", "ray", "--gpus-per-job", "-1"], "argument --gpus-per-job: '-1' is neither a fraction between 0 and 1"),
    ],
)
def test_invalid_arguments_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main([*COMMAND, *arguments])
    assert message in capsys.readouterr().err.splitlines()[-1]


# ---- several nodes ----------------------------------------------------------------------------------------------------


@pytest.fixture
def cluster():
    """Two nodes for one job each, and a head for none."""
    ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


class Killer(threading.Thread):
    """Kills the node of a job in mid-run, when another has finished; and counts the processes of each job."""

    def __init__(self, cluster, folder, jobs):
        super().__init__(daemon=True)
        self.cluster, self.folder, self.jobs = cluster, folder, jobs
        self.processes = defaultdict(set)
        self.killed = self.finished_before = None
        self.over = threading.Event()

    def run(self):
        while not self.over.wait(0.1):
            for job in self.jobs:
                for process in self.processes_of(job):
                    self.processes[job].add(process.pid)
            finished = {
                job: job.result_file(self.folder).stat().st_mtime_ns for job in self.jobs if job.state(self.folder) == "done"
            }
            under_way = [job for job in MIRL if job not in finished and job.progress(self.folder) > 1000]
            if self.killed is None and finished and under_way and (node := self.node(under_way[0])):
                self.killed, self.finished_before = under_way[0], finished
                self.kill(node)

    def kill(self, node):
        """All its processes at once, as when a machine goes down."""
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        for process in (raylet, *raylet.children(recursive=True)):
            process.kill()
        self.cluster.remove_node(node, allow_graceful=False)

    def processes_of(self, job):
        """The processes of a job without their children: a fork has its parent's command line until it calls exec."""
        found = {}
        for process in psutil.process_iter():
            try:
                command, parent = process.cmdline(), process.ppid()
            except psutil.Error:
                continue
            if command[-3:] == [job.algorithm, job.env, str(job.seed)]:
                found[process] = parent
        pids = {process.pid for process in found}
        return [process for process, parent in found.items() if parent not in pids]

    def node(self, job):
        for process in self.processes_of(job):
            try:
                parents = {parent.pid for parent in process.parents()}
            except psutil.Error:
                continue
            for node in self.cluster.worker_nodes:
                if node.all_processes["raylet"][0].process.pid in parents:
                    return node
        return None


@pytest.mark.slow
@pytest.mark.parametrize("fetch", [False, True], ids=["shared", "fetched"])
def test_jobs_of_a_dead_node_run_again_on_another(cluster, fetch, tmp_path):
    jobs = [DQN, *MIRL]
    local, folder = run_here(tmp_path / "here", LONGER, jobs), tmp_path / "out"
    killer = Killer(cluster, folder, jobs)
    killer.start()
    try:
        with ray_engine.connected(cluster.address, fetch=fetch) as engine:
            assert bench.run(LONGER, jobs, folder, engine=nullcontext(engine), save_freq=250, device="auto") == []
    finally:
        killer.over.set()
        killer.join()
    assert {job: len(killer.processes[job]) for job in jobs} == {job: 2 if job == killer.killed else 1 for job in jobs}
    for job, time_written in killer.finished_before.items():
        assert job.result_file(folder).stat().st_mtime_ns == time_written
    for job in jobs:
        assert without_time(job, folder) == without_time(job, local)
        assert (job.result(folder)["time"]["resumed_at"] > 0) == (job == killer.killed and not fetch)
    assert bench.status(folder) == ["classic: 4 jobs, 4 done, 0 running, 0 failed, 0 missing"]


@pytest.mark.slow
def test_interrupted_command_resumes_its_jobs(cluster, tmp_path):
    folder = tmp_path / "out"
    command = [*COMMAND, "--algos", "mirl", "--out", str(folder), "--engine", "ray", "--address", cluster.address]
    command += ["--steps", "6000", "--save-freq", "500"]
    killer = Killer(cluster, folder, [])
    process = subprocess.Popen([sys.executable, "-m", "sb3_mirl", *command], start_new_session=True)
    deadline = time.monotonic() + 120
    while MIRL[0].progress(folder) < 1200:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    assert MIRL[0].state(folder) == "running"
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(60) == 130
    while killer.processes_of(MIRL[0]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert MIRL[0].state(folder) == "missing"
    assert main(command) == 0
    assert MIRL[0].result(folder)["time"]["resumed_at"] > 0
    assert not list(folder.glob(".ray-*")) and json.loads((folder / "suite.json").read_text())["format"] == 1
