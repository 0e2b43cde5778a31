"""Reading a folder: results that count, and results that do not."""

from dataclasses import replace

import pytest
from bench_results import CLASSIC, fill, write_result, write_text

from sb3_mirl.bench.jobs import Job, open_folder
from sb3_mirl.bench.report.content import read
from sb3_mirl.bench.report.tables import score_rows


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"name": "minatar"}, "it is a result of suite minatar, not classic"),
        ({"steps": {"CartPole-v1": 500}}, "it is a result of n_timesteps 500, not 1000"),
        ({"epsilon": 0.5}, "it is a result of an evaluation with epsilon 0.5, not 0.0"),
        ({"episodes": 2}, "it is a result of an evaluation with episodes 2, not 30"),
    ],
)
def test_results_of_another_suite_are_unreadable(changes, reason, tmp_path):
    job = Job("mirl", "CartPole-v1", 0)
    open_folder(tmp_path, CLASSIC, [job])
    write_result(tmp_path, replace(CLASSIC, **changes), job)
    bench = read(tmp_path)
    assert bench.states == {job: "unreadable"} and bench.reasons == {job: reason}


def test_copied_results_count(tmp_path):
    fill(tmp_path, CLASSIC, [Job("mirl", "CartPole-v1", 0)])
    write_result(tmp_path, CLASSIC, Job("sql_m", "CartPole-v1", 7))
    write_text(tmp_path / "results" / "notes.json", "{}")
    assert {str(job) for job in read(tmp_path).states} == {"mirl CartPole-v1 seed 0", "sql_m CartPole-v1 seed 7"}
    assert [row["runs"] for row in score_rows(read(tmp_path))] == [1, 1]


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"format": 2}, "format 2 instead of 1"),
        ({"seed": 1}, "it is the result of mirl CartPole-v1 seed 1"),
        ({"curve": {"step": [1], "return": [], "episodes": []}}, "curve must be columns of equal length, got"),
        ({"evaluation": {}}, "evaluation must be settings, got {}"),
        ({"time": {}}, "time must be a dict of seconds, got {}"),
        ({"versions": []}, "versions must be a dict of texts, got []"),
        ({"history": {"step": [1]}}, "history must be columns of equal length, got"),
        ({"prior": [0.5, 0.5]}, "prior has 2 actions, action_names has 3"),
        ({"scores": []}, "scores must be finite numbers, got []"),
        ({"scores": [1.0, float("nan")]}, "scores must be finite numbers, got [1.0, nan]"),
    ],
)
def test_invalid_results_are_named_with_their_reason(changes, reason, tmp_path):
    job = Job("mirl", "CartPole-v1", 0)
    open_folder(tmp_path, CLASSIC, [job])
    write_result(tmp_path, CLASSIC, job, **changes)
    assert read(tmp_path).reasons[job].startswith(f"mirl_CartPole-v1_0.json: {reason}")
