"""Learning curves, β and ρ."""

import pytest
from bench_reports import numbers, table
from bench_results import CLASSIC, jobs_of, write_result

from sb3_mirl.bench.jobs import open_folder
from sb3_mirl.bench.report.curves import POINTS
from sb3_mirl.bench.report.write import write_report


def test_learning_curve_is_the_mean_of_the_episodes_in_each_part(classic):
    rows = [row for row in table(classic / "report", "curves") if row["algorithm"] == "mirl"]
    rows = [row for row in rows if row["environment"] == "CartPole-v1"]
    assert [int(row["step"]) for row in rows] == [20 * part for part in range(1, POINTS + 1)]
    # Returns are score · step / 1000 at steps 5, 10, 15 and 20
    assert float(rows[0]["value"]) == pytest.approx(125 / 3 * 12.5 / 1000)
    assert float(rows[0]["low"]) < float(rows[0]["value"]) < float(rows[0]["high"])


def test_mean_of_curves_starts_when_all_have_started(tmp_path, without_figures):
    jobs = jobs_of(("mirl",), ["CartPole-v1"], 2)
    open_folder(tmp_path, CLASSIC, jobs)
    curves = {"step": [20, 100], "return": [0.0, 8.0], "episodes": [1, 1]}, {"step": [40], "return": [6.0], "episodes": [3]}
    for job, curve in zip(jobs, curves, strict=True):
        write_result(tmp_path, CLASSIC, job, curve=curve)
    write_report(tmp_path, tmp_path / "out")
    rows = table(tmp_path / "out", "curves")
    # At 40 the first is a quarter of the way from 0 to 8; the second stays at 6
    assert [(row["step"], row["value"], row["runs"]) for row in rows] == [("40", "4.0", "2"), ("100", "7.0", "2")]


def test_prior_and_beta(classic):
    rows = table(classic / "report", "prior")
    of_mirl = [row for row in rows if (row["environment"], row["algorithm"]) == ("CartPole-v1", "mirl")]
    assert [row["name"] for row in of_mirl] == ["LEFT", "<UP>", "A & B"]
    assert [float(row["value"]) for row in of_mirl] == pytest.approx([0.5, 0.2, 0.3])
    assert numbers(of_mirl[0], "low", "high") == [0.5, 0.5]
    betas = [row for row in table(classic / "report", "beta") if row["algorithm"] == "mirl"][:2]
    assert [(row["step"], row["value"]) for row in betas] == [("1", "2.0"), ("501", "6.0")]
    assert "dqn" not in {row["algorithm"] for row in rows}
