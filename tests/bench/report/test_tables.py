"""The tables of a report: numbers by hand."""

import numpy as np
import pytest
from bench_reports import ALIEN, numbers, page_of, row_of, table

from sb3_mirl.bench import scores as statistics
from sb3_mirl.bench.scores import bootstrap, human_normalized


def test_scores_are_means_over_runs_with_intervals(classic):
    row = row_of(table(classic / "report", "scores"), environment="CartPole-v1", algorithm="mirl")
    # 40 + seed²
    expected = bootstrap(statistics.mean, np.array([[40.0], [41.0], [44.0]]))
    assert numbers(row) == pytest.approx([125 / 3, expected.low, expected.high])
    assert 40 <= float(row["low"]) < 125 / 3 < float(row["high"]) <= 44
    assert (row["runs"], row["asked_for"]) == ("3", "3")


def test_single_run_has_no_interval(classic):
    row = row_of(table(classic / "report", "scores"), environment="Acrobot-v1", algorithm="sql")
    assert (row["value"], row["low"], row["high"], row["runs"]) == ("20.0", "", "", "1")
    scores = page_of(classic / "report").tables["Raw scores: mean over runs, 95% interval, and runs"]
    assert scores[0] == ["environment", "DQN", "SQL", "SQL_m", "MIRL"]
    assert scores[2][:3] == ["Acrobot-v1", "11.67 [10.00, 14.00] 3 runs", "20.00 1 of 3 runs"]


def test_runs_have_a_row_for_each_job(classic):
    rows = table(classic / "report", "runs")
    assert len(rows) == 24
    row = row_of(rows, environment="CartPole-v1", algorithm="dqn", seed="2")
    assert (row["state"], row["score"], row["reason"]) == ("failed", "", "ValueError: the loss was <nan>")
    assert row_of(rows, environment="CartPole-v1", algorithm="sql", seed="1")["state"] == "unreadable"


def test_human_normalised_scores(atari):
    row = row_of(table(atari / "out", "scores"), environment=ALIEN, algorithm="mirl")
    assert float(row["value"]) == pytest.approx(43.5)  # 40 + (0, 1, 4, 9)
    for convention in statistics.CONVENTIONS:
        ours = numbers(row, *(f"human_{convention}_{key}" for key in ("value", "low", "high")))
        assert ours == pytest.approx(human_normalized(ALIEN, numbers(row), convention))


def test_versions_are_counted(classic):
    rows = table(classic / "report", "versions")
    assert {row["version"]: row["runs"] for row in rows if row["package"] == "torch"} == {
        "2.8.0": "7",
        "2.9.0": "5",
        "2.10.0": "5",
    }
