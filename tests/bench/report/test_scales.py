"""Scales of scores, and groups of environments."""

import numpy as np
import pytest
from bench_reports import row_of, table
from bench_results import CLASSIC, jobs_of, write_result

from sb3_mirl.bench.jobs import open_folder
from sb3_mirl.bench.report.content import read
from sb3_mirl.bench.report.scales import groups, on_scale, useless_actions
from sb3_mirl.bench.report.write import write_report


def test_relative_scores_by_hand(tmp_path, without_figures):
    suite, jobs = CLASSIC, jobs_of(("dqn", "mirl"), ["CartPole-v1", "Acrobot-v1"], 1)
    open_folder(tmp_path, suite, jobs)
    for job, score in zip(jobs, (100.0, 300.0, -80.0, -80.0), strict=True):
        write_result(tmp_path, suite, job, score)
    write_report(tmp_path, tmp_path / "out")
    rows = table(tmp_path / "out", "aggregates")
    # Worst and best in CartPole; Acrobot has no scale
    means = [row_of(rows, statistic="mean", algorithm=name) for name in ("dqn", "mirl")]
    assert [(row["value"], row["environments"]) for row in means] == [("0.0", "1"), ("1.0", "1")]
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "Over 1 environment," in page and "Left out: Acrobot-v1 (all runs have the same score)." in page
    # (1 + 1/2) / 2
    assert row_of(table(tmp_path / "out", "improvement"), than="dqn")["value"] == "0.75"


@pytest.mark.parametrize(
    "env, base, number",
    [
        ("CartPole-v1", "CartPole-v1", 0),
        ("MinAtar/Breakout-v1", "MinAtar/Breakout-v1", 0),
        ("Useless15/CartPole-v1", "CartPole-v1", 15),
        ("Useless63/LunarLander-v3", "LunarLander-v3", 63),
        ("Useless12/MinAtar-Breakout-v1", "MinAtar/Breakout-v1", 12),
        ("UselessActions-v0", "UselessActions-v0", 0),
    ],
)
def test_useless_actions_are_in_the_id(env, base, number):
    assert useless_actions(env) == (base, number)


def test_groups_are_by_number_of_useless_actions(useless, classic):
    assert groups(read(useless)) == {
        "all": ["CartPole-v1", "Useless15/CartPole-v1", "Acrobot-v1", "Useless15/Acrobot-v1"],
        "0": ["CartPole-v1", "Acrobot-v1"],
        "15": ["Useless15/CartPole-v1", "Useless15/Acrobot-v1"],
    }
    # Nothing to compare
    assert list(groups(read(classic))) == ["all"]


def test_range_of_relative_scores_is_that_of_the_base_environment(useless):
    """Scores are 0 to 3 (DQN), 10 to 13 (SQL) and 10 to 13 or, with useless actions, 40 to 43 (MIRL)."""
    for env in ("CartPole-v1", "Useless15/CartPole-v1"):
        assert on_scale(read(useless), "relative", env, np.array([0.0, 43.0, -43.0])) == pytest.approx([0.0, 1.0, -1.0])
