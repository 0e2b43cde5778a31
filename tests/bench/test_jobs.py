"""The folder of a benchmark: its plan, states of jobs, permissions and locks."""

import fcntl
import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from bench_runs import CARTPOLE, COMMAND, TINY

from sb3_mirl.bench.experiment import check
from sb3_mirl.bench.jobs import FolderError, Job, open_folder, read_folder
from sb3_mirl.bench.run import run, status
from sb3_mirl.bench.suites import SUITES
from sb3_mirl.cli.main import main
from sb3_mirl.common.files import is_locked, locked


@pytest.mark.parametrize("suite", SUITES.values(), ids=list(SUITES))
def test_suite_file_round_trip(suite, tmp_path):
    jobs = [Job("mirl", env, 1) for env in suite.steps]
    open_folder(tmp_path / "out", suite, jobs)
    assert read_folder(tmp_path / "out") == (suite, jobs)
    assert open_folder(tmp_path / "out", suite, jobs[:1]) == jobs


def test_sticky_actions_need_a_folder_of_their_own(tmp_path):
    suite = SUITES["atari-full"]
    sticky = replace(suite, env_kwargs={**suite.env_kwargs, "repeat_action_probability": 0.25})
    open_folder(tmp_path / "out", suite, [])
    with pytest.raises(FolderError, match=r"env_kwargs .* instead of .*'repeat_action_probability': 0.25"):
        open_folder(tmp_path / "out", sticky, [])


def test_concurrent_calls_plan_all_jobs(tmp_path):
    jobs = [Job("mirl", "CartPole-v1", seed) for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda job: open_folder(tmp_path / "out", TINY, [job]), jobs))
    assert sorted(read_folder(tmp_path / "out")[1]) == jobs


@pytest.mark.parametrize(
    "damage, reason",
    [
        (lambda text: "", "Expecting value"),
        (lambda text: text[:500], "mirl_CartPole-v1_0.json: "),
        (lambda text: "[]", "a dict was expected, got list"),
        (lambda text: text.replace('"curve"', '"curves"'), "it has no curve"),
        (lambda text: text.replace('"scores": [', '"scores": [NaN, '), "scores must be finite numbers"),
        (lambda text: text.replace('"scores": [', f'"scores": [{10**400}, '), "scores must be finite numbers"),
        (lambda text: text.replace('"mirl"', '"dqn"'), "it is the result of dqn CartPole-v1 seed 0"),
    ],
)
def test_damaged_result_is_unreadable_with_its_reason(finished, damage, reason, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("runs"))
    file = CARTPOLE.result_file(folder)
    file.write_text(damage(file.read_text()))
    lines = status(folder)
    assert " 0 running, 1 unreadable, 0 failed" in lines[0] and reason in lines[1]
    # The results of other jobs are not needed
    check(TINY, [Job("mirl", "CartPole-v1", 5)], folder)


def test_copied_results_are_in_the_status(finished, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("runs"))
    lines = status(folder)
    copied = replace_seed(CARTPOLE.result(folder), 7)
    Job("mirl", "CartPole-v1", 7).result_file(folder).write_text(json.dumps(copied))
    assert jobs_and_done(status(folder)) == [number + 1 for number in jobs_and_done(lines)]


def replace_seed(result, seed):
    return {**result, "seed": seed}


def jobs_and_done(lines):
    return [int(number) for number in re.findall(r"(\d+) (?:jobs|done)", lines[0])]


def test_failed_repetition_of_a_damaged_result_says_why(finished, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(finished, folder)
    CARTPOLE.result_file(folder).write_text("{")
    CARTPOLE.record_failure(folder, "MemoryError: out of memory")
    lines = status(folder)
    assert " 0 unreadable" not in lines[0] and " 1 failed" in lines[0] and "out of memory" in lines[1]


def test_folder_with_jobs_of_a_lost_environment_is_refused(tmp_path):
    old = replace(TINY, steps={**TINY.steps, "CartPole-v0": 10})
    folder = tmp_path / "out"
    open_folder(folder, old, [Job("mirl", "CartPole-v0", 0)])
    before = (folder / "suite.json").read_text()
    with pytest.raises(FolderError, match="has jobs of CartPole-v0, which classic does not have"):
        open_folder(folder, TINY, [CARTPOLE])
    assert (folder / "suite.json").read_text() == before and read_folder(folder)[0].steps == old.steps


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"suite": "gridworld"}, "it is a result of suite gridworld, not classic"),
        ({"scores": [9999.0]}, "it is a result of an evaluation with episodes 1, not 30"),
        ({"evaluation": {"epsilon": 0.5, "random actions from": "x"}}, "of an evaluation with epsilon 0.5, not 0.0"),
        ({"steps": 5}, "it is a result of 5 steps, not 600"),
        (
            {"hyperparameters": {"n_timesteps": 600, "env_kwargs": {"sutton_barto_reward": True}}},
            "it is a result of env_kwargs {'sutton_barto_reward': True}, not {}",
        ),
    ],
)
def test_result_of_another_suite_is_unreadable(finished, change, reason, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(finished, folder)
    file = CARTPOLE.result_file(folder)
    file.write_text(json.dumps(CARTPOLE.result(folder) | change))
    lines = status(folder)
    assert " 0 running, 1 unreadable, 0 failed" in lines[0] and reason in lines[1]
    with pytest.raises(FolderError, match=reason):
        run(TINY, [CARTPOLE], folder)


def test_folder_without_permissions(finished, tmp_path, capsys):
    folder = tmp_path / "out"
    shutil.copytree(finished, folder)
    CARTPOLE.result_file(folder).chmod(0)
    if os.access(CARTPOLE.result_file(folder), os.R_OK):
        pytest.skip("root reads and writes everything")
    CARTPOLE.result_file(folder).chmod(0o444)
    for path in (folder / "results", folder / "runs", folder):
        path.chmod(0o555)
    assert run(TINY, [CARTPOLE], folder) == [] and "nothing to do" in capsys.readouterr().out
    CARTPOLE.result_file(folder).chmod(0)
    for command in (["status", str(folder)], ["report", str(folder), "--out", str(tmp_path / "report")]):
        assert main(["bench", *command]) == 0
    assert f"unreadable {CARTPOLE}: [Errno 13] Permission denied" in capsys.readouterr().out
    assert CARTPOLE.state(folder) == "unreadable"
    assert main([*COMMAND, "--seeds", "2", "--out", str(folder)]) == 2 and "Permission denied" in capsys.readouterr().err


def test_shared_lock_of_a_reader_does_not_count_as_locked(tmp_path):
    file = tmp_path / "lock"
    with open(file, "w") as other:
        fcntl.flock(other, fcntl.LOCK_SH)  # as is_locked does for a moment
        assert not is_locked(file)


def test_is_locked_works_without_write_permission(tmp_path):
    file = tmp_path / "lock"
    assert not is_locked(file) and not file.exists()
    with locked(file):
        file.chmod(0o444)
        assert is_locked(file)
    assert not is_locked(file)
