"""Jobs that are trained jointly: each has the result of a job that is run alone; interruptions and failures lose nothing."""

import os
import shutil
import signal
import subprocess
import time
from contextlib import nullcontext
from dataclasses import replace

import pytest
from bench_results import write_text
from bench_runs import EARLY, TINY, fresh, in_process, without_time

from sb3_mirl.bench import run as bench
from sb3_mirl.bench.jobs import Job
from sb3_mirl.bench.local_engine import process_command, run_locally
from sb3_mirl.bench.packs import plan_packs, run_pack
from sb3_mirl.bench.suites import SUITES
from sb3_mirl.bench.training import History, run_job
from sb3_mirl.common.files import locked

SUITE = replace(TINY, steps={"CartPole-v1": 600}, episodes=5, hyperparams=EARLY)
MIRL, SQL, DQN, QRDQN = ([Job(name, "CartPole-v1", seed) for seed in range(3)] for name in ("mirl", "sql", "dqn", "qrdqn"))
PACK = (MIRL[0], SQL[0], MIRL[1])


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A function from a job to the folder in which it was run alone; a job is run when it is asked for."""
    folder = fresh(tmp_path_factory.mktemp("alone"), SUITE, *MIRL, *SQL, *DQN, *QRDQN)

    def folder_of(job):
        assert job.state(folder) == "done" or run_job(job, folder)
        return folder

    return folder_of


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder of a pack that was run without interruptions."""
    folder = fresh(tmp_path_factory.mktemp("whole"), SUITE, *PACK)
    run_pack(PACK, folder, save_freq=250)
    return folder


def assert_same(joint, alone):
    """Results are equal up to rounding, which changes no action in so few steps."""
    rounded = ("prior", "beta", "history")
    exact = alone.keys() - {*rounded, "time"}
    assert {key: joint[key] for key in exact} == {key: alone[key] for key in exact}
    if alone["history"]:
        assert joint["prior"] == pytest.approx(alone["prior"], rel=1e-4)
        assert joint["beta"] == pytest.approx(alone["beta"], rel=1e-4)
        assert joint["history"]["step"] == alone["history"]["step"]
        assert joint["history"]["beta"] == pytest.approx(alone["history"]["beta"], rel=1e-4)
        for joint_prior, prior in zip(joint["history"]["prior"], alone["history"]["prior"], strict=True):
            assert joint_prior == pytest.approx(prior, rel=1e-4)


def fail_at(step, job):
    """In place of :meth:`History._on_step`: raises in one job."""
    on_step = History._on_step

    def on_step_or_fail(self):
        if self.num_timesteps >= step and job.name in str(self.steps_path):
            raise ZeroDivisionError("it was not to be")
        return on_step(self)

    return on_step_or_fail


def interrupted(folder, pack, monkeypatch):
    """A folder of a pack that ended at step 560, with checkpoints of the steps 256 and 512."""
    fresh(folder, SUITE, *pack)
    with monkeypatch.context() as patch:
        patch.setattr(History, "_on_step", fail_at(560, pack[0]))
        run_pack(pack, folder, save_freq=250)
    assert [job.failure(folder) for job in pack] == ["ZeroDivisionError: it was not to be"] * len(pack)
    return folder


# ---- planning ---------------------------------------------------------------------------------------------------------


def test_packs_are_of_equal_size_and_in_the_order_of_the_jobs():
    jobs = [Job(name, "CartPole-v1", seed) for seed in range(3) for name in ("qrdqn", "mirl", "sql")]
    packs, notes = plan_packs(SUITE, jobs, 4)
    ours = [job for job in jobs if job.algorithm != "qrdqn"]
    assert packs == [(jobs[0],), (*ours[:3],), (jobs[3],), (*ours[3:],), (jobs[6],)]
    assert len(notes) == 1 and notes[0].startswith("qrdqn is trained alone: models must be of sb3_mirl ")


def test_models_that_disagree_are_in_different_packs():
    suite, algorithms = SUITES["gridworld"], ("dqn_mse", "sql", "sql_m", "mirl")
    jobs = [Job(name, env, 0) for env in list(suite.steps)[:2] for name in algorithms]
    assert plan_packs(suite, jobs, 8)[0] == [(*jobs[:4],), (*jobs[4:],)]  # their observation spaces differ
    other = replace(suite, own_hyperparams={"sql": {"batch_size": 7}, "mirl": {"learning_rate": 0.1, "gamma": 0.5}})
    assert plan_packs(other, jobs[:4], 8)[0] == [(jobs[0], jobs[2], jobs[3]), (jobs[1],)]
    longer = replace(SUITE, steps={"CartPole-v1": 600, "CartPole-v0": 601})
    assert [len(pack) for pack in plan_packs(longer, [MIRL[0], replace(MIRL[0], env="CartPole-v0")], 8)[0]] == [1, 1]


def test_job_that_cannot_be_set_up_is_run_alone(tmp_path):
    broken = replace(SUITE, own_hyperparams={"sql": {"policy_kwargs": {"net_arch": ["wide"]}}})
    jobs = [*MIRL[:2], *SQL[:2]]
    packs, notes = plan_packs(broken, jobs, 8)
    assert packs == [(*MIRL[:2],), (SQL[0],), (SQL[1],)] and notes[0].startswith("sql is trained alone: ")


# ---- results ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_results_are_those_of_jobs_that_are_run_alone(alone, tmp_path, capsys):
    jobs = [job for seed in range(3) for job in (MIRL[seed], SQL[seed])] + [*DQN[:2], QRDQN[0]]
    folder = tmp_path / "out"
    assert bench.run(SUITE, jobs, folder, engine=nullcontext(in_process), joint=4, device="cpu") == []
    output = capsys.readouterr().out
    assert "9 jobs in 4 processes, each with 3 at most" in output and "steps/s, one of 3 trained jointly)" in output
    for job in jobs:
        result = job.result(folder)
        assert_same(result, job.result(alone(job)))
        assert result.get("trained_jointly", 1) == {"qrdqn": 1, "dqn": 2}.get(job.algorithm, 3)
        assert "trained_jointly" not in job.result(alone(job))
        files, others = ({file.relative_to(top) for file in job.run_folder(top).rglob("*")} for top in (folder, alone(job)))
        if job.algorithm == "dqn":  # BaseDQN can be resumed, and its settings are kept for that
            files = {file for file in files if file.name != "hyperparameters.json"}
        assert files == others and job.progress(folder) > 590
    assert "2 jobs in all" not in (jobs[0].run_folder(folder) / "log.txt").read_text()
    assert "Trained jointly, 3 jobs in all" in (jobs[1].run_folder(folder) / "log.txt").read_text()


def test_finished_and_locked_jobs_are_left_out(alone, tmp_path):
    folder = fresh(tmp_path / "out", SUITE, *MIRL, SQL[0])
    shutil.copy(MIRL[0].result_file(alone(MIRL[0])), folder / "results")
    MIRL[1].run_folder(folder).mkdir()
    with locked(MIRL[1].lock_file(folder)):
        run_pack([*MIRL, SQL[0]], folder)
    assert MIRL[0].result_file(folder).read_bytes() == MIRL[0].result_file(alone(MIRL[0])).read_bytes()
    assert MIRL[1].state(folder) == "missing"
    for job in (MIRL[2], SQL[0]):
        assert job.result(folder)["trained_jointly"] == 2
        assert_same(job.result(folder), job.result(alone(job)))


# ---- failures ---------------------------------------------------------------------------------------------------------


def test_run_that_diverges_fails_and_the_others_go_on(alone, tmp_path):
    suite = replace(SUITE, own_hyperparams={"sql": {"learning_rate": 1e30}})
    folder = fresh(tmp_path / "out", suite, *PACK)
    with pytest.warns(UserWarning, match="goes on without the SQL with seed 0"):
        run_pack(PACK, folder)
    assert [job.state(folder) for job in PACK] == ["done", "failed", "done"]
    assert SQL[0].failure(folder).startswith("ValueError: The mse loss was ")
    for job in MIRL[:2]:
        assert job.result(folder)["trained_jointly"] == 3
        assert_same(job.result(folder), job.result(alone(job)))


def test_job_that_cannot_be_prepared_fails_and_the_others_are_trained(alone, tmp_path):
    folder = fresh(tmp_path / "out", SUITE, *PACK)
    write_text(SQL[0].run_folder(folder) / "sql", "a file where a folder belongs")
    run_pack(PACK, folder)
    assert [job.state(folder) for job in PACK] == ["done", "failed", "done"]
    assert "FileExistsError" in SQL[0].failure(folder) or "NotADirectoryError" in SQL[0].failure(folder)
    assert MIRL[0].result(folder)["trained_jointly"] == 2
    assert_same(MIRL[0].result(folder), MIRL[0].result(alone(MIRL[0])))


# ---- interruptions ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_pack_resumes_to_the_same_results(whole, tmp_path):
    folder = fresh(tmp_path / "killed", SUITE, *PACK)
    process = subprocess.Popen(process_command(PACK, folder, {"save_freq": 250}), stdin=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not all(list(job.checkpoints(folder).glob("rl_model_*_steps.json")) for job in PACK):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    assert [job.state(folder) for job in PACK] == ["running"] * 3
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert [job.state(folder) for job in PACK] == ["missing"] * 3
    assert [job for job in run_locally([PACK], folder, 1, save_freq=250) if job] == [*PACK]
    for job in PACK:
        assert job.result(folder)["time"]["resumed_at"] > 0 and not job.checkpoints(folder).exists()
        assert without_time(job, folder) == without_time(job, whole)


def test_pack_goes_on_from_the_newest_common_step(whole, tmp_path, monkeypatch):
    folder = interrupted(tmp_path / "out", PACK, monkeypatch)
    # Interrupted while the checkpoints of step 512 were written
    (SQL[0].checkpoints(folder) / "rl_model_512_steps.json").unlink()
    run_pack(PACK, folder, save_freq=250)
    for job in PACK:
        assert job.result(folder)["time"]["resumed_at"] == 256
        assert without_time(job, folder) == without_time(job, whole)


@pytest.mark.slow
def test_jobs_without_a_common_step_are_trained_apart(whole, alone, tmp_path, monkeypatch):
    folder = interrupted(tmp_path / "out", PACK[:2], monkeypatch)
    write_text(SQL[1].checkpoints(folder) / "rl_model_500_steps.json", "{")
    run_pack([*PACK, SQL[1]], folder, save_freq=250)
    resumed = {job: (job.result(folder)["time"]["resumed_at"], job.result(folder)["trained_jointly"]) for job in PACK}
    assert resumed == {PACK[0]: (512, 2), PACK[1]: (512, 2), PACK[2]: (0, 2)}
    for job in (*PACK, SQL[1]):
        assert_same(job.result(folder), job.result(alone(job)))


@pytest.mark.slow
def test_pack_with_damaged_checkpoints_starts_again(whole, tmp_path, monkeypatch):
    folder = interrupted(tmp_path / "out", PACK, monkeypatch)
    for file in SQL[0].checkpoints(folder).glob("*.safetensors"):
        os.truncate(file, 10)
    with pytest.warns(UserWarning, match="trying an older step"):
        run_pack(PACK, folder, save_freq=250)
    for job in PACK:
        assert job.result(folder)["time"]["resumed_at"] == 0
        assert without_time(job, folder) == without_time(job, whole)


def test_job_may_go_on_alone_and_jointly(alone, tmp_path, monkeypatch):
    """Checkpoints of a joint training are those of a job that is run alone."""
    folder = interrupted(tmp_path / "out", PACK, monkeypatch)
    assert bench.run(SUITE, [MIRL[0]], folder, engine=nullcontext(in_process), save_freq=250) == []
    assert bench.run(SUITE, PACK, folder, engine=nullcontext(in_process), save_freq=250, joint=8) == []
    for job in PACK:
        assert job.result(folder)["time"]["resumed_at"] == 512
        assert_same(job.result(folder), job.result(alone(job)))
    assert [job.result(folder).get("trained_jointly") for job in PACK] == [None, 2, 2]
