"""Statistics over environments: numbers by hand."""

from dataclasses import replace

import numpy as np
import pytest
from bench_reports import ALIEN, BOXING, numbers, row_of, table
from bench_results import CLASSIC, USELESS, jobs_of, write_result

from sb3_mirl.bench import scores as statistics
from sb3_mirl.bench.jobs import Job, open_folder
from sb3_mirl.bench.report.aggregates import efficiency_rows, useless_action_rows
from sb3_mirl.bench.report.content import grouped, read
from sb3_mirl.bench.scores import bootstrap, human_normalized


def test_aggregates_are_over_games_that_all_algorithms_have(atari):
    rows = table(atari / "out", "aggregates")
    assert len(rows) == 2 * 4 * 3
    scores = np.array([[40.0], [41.0], [44.0], [49.0]])
    for convention in statistics.CONVENTIONS:
        matrix = np.hstack([human_normalized(game, scores, convention) for game in (ALIEN, BOXING)])
        for name, statistic in {"mean": np.mean, "IQM": statistics.interquartile_mean}.items():
            row = row_of(rows, scale=f"human_{convention}", statistic=name, algorithm="mirl")
            assert float(row["value"]) == pytest.approx(float(statistic(matrix)))
            assert (row["runs"], row["environments"]) == ("4", "2")
    row = row_of(rows, scale="human_mnih2015", statistic="mean", algorithm="mirl")
    estimate = bootstrap(statistics.mean, np.hstack([human_normalized(game, scores) for game in (ALIEN, BOXING)]))
    assert numbers(row) == pytest.approx([float(number) for number in estimate])
    assert row_of(rows, scale="human_mnih2015", statistic="mean", algorithm="sql")["runs"] == "2"


def test_aggregates_of_each_group(useless):
    rows = table(useless / "report", "aggregates")
    iqm = {(row["useless_actions"], row["algorithm"]): row for row in rows if row["statistic"] == "IQM"}
    # Two environments with scores 10 to 13, or 40 to 43; the range is 0 to 43
    assert float(iqm["0", "mirl"]["value"]) == pytest.approx(11.5 / 43) and iqm["0", "mirl"]["environments"] == "2"
    assert float(iqm["15", "mirl"]["value"]) == pytest.approx(41.5 / 43)
    # Of 10, 10, 11, 11 ... 43, 43 the middle half is 12, 12, 13, 13, 40, 40, 41, 41
    assert float(iqm["all", "mirl"]["value"]) == pytest.approx(26.5 / 43) and iqm["all", "mirl"]["environments"] == "4"


def test_interquartile_mean_by_number_of_useless_actions(useless):
    rows = table(useless / "report", "useless_actions")
    found = {name: [float(row["value"]) for row in own] for name, own in grouped(rows).items()}
    assert [row["useless_actions"] for row in rows] == ["0"] * 3 + ["15"] * 3
    for name, expected in {"dqn": [1.5, 1.5], "sql": [11.5, 11.5], "mirl": [11.5, 41.5]}.items():
        assert found[name] == pytest.approx(np.array(expected) / 43)


def test_numbers_of_useless_actions_are_compared_in_the_same_environments(tmp_path, without_figures):
    """Acrobot has no run with useless actions, so it does not count without them either."""
    jobs = [Job("mirl", env, seed) for env in ("CartPole-v1", "Useless15/CartPole-v1", "Acrobot-v1") for seed in range(2)]
    open_folder(tmp_path, USELESS, jobs)
    for job in jobs:
        write_result(tmp_path, USELESS, job, 7.0 if job.env == "Acrobot-v1" else float(job.seed))
    rows = useless_action_rows(read(tmp_path))
    assert [(row["useless_actions"], row["value"], row["environments"]) for row in rows] == [(0, 0.5, 1), (15, 0.5, 1)]


def test_performance_profile_by_hand(useless):
    rows = [row for row in table(useless / "report", "profiles") if row["algorithm"] == "mirl"]
    assert [float(row["threshold"]) for row in rows] == pytest.approx(np.linspace(0, 1, 101))
    share = [numbers(row) for row in rows]
    # All are above 0 and none is above 1. Half of them have 40 to 43 of 43, in each resample
    assert (share[0], share[50], share[100]) == ([1.0] * 3, [0.5] * 3, [0.0] * 3)
    # Above 12.04: one of four runs in two environments, and all in the others
    assert share[28][0] == 5 / 8 and share[28][1] < 5 / 8 < share[28][2]


def test_profile_of_human_scores_ends_at_the_best_runs(atari):
    rows = [row for row in table(atari / "out", "profiles") if row["algorithm"] == "mirl"]
    # 43.5 points are ten times a human's score in Boxing
    assert float(rows[-1]["threshold"]) > 5 and 0 < float(rows[50]["value"]) <= 0.5


def test_sample_efficiency_by_hand(tmp_path):
    """Two environments with 1000 and 2000 steps; the range of the scores is 0 to 10."""
    suite = replace(CLASSIC, steps={"CartPole-v1": 1000, "Acrobot-v1": 2000})
    jobs = jobs_of(("sql", "mirl"), list(suite.steps), 2)
    open_folder(tmp_path, suite, jobs)
    for job in jobs:
        total = suite.steps[job.env]
        # SQL's runs finish the first episode after 0.4 and 0.8 of the training, MIRL's after 0.2; the next one at its end
        first = int((0.2 if job.algorithm == "mirl" else 0.4 * (1 + job.seed)) * total)
        curve = {"step": [first, total], "return": [-5.0 + 10.0 * job.seed, 20.0], "episodes": [1, 1]}
        write_result(tmp_path, suite, job, 10.0 * job.seed, curve=curve)
    rows = efficiency_rows(read(tmp_path))
    mirl, sql = ([row for row in rows if row["algorithm"] == name] for name in ("mirl", "sql"))
    assert (mirl[0]["share"], sql[0]["share"]) == (0.2, 0.8) and "step" not in mirl[0]
    # Of −0.5, −0.5, 0.5, 0.5, and at the end of 2, 2, 2, 2
    assert [row["value"] for row in mirl] == [0.0] * 20 + [2.0] and [row["value"] for row in sql] == [0.0] * 5 + [2.0]
    # The mean of the middle two of four
    assert (mirl[0]["low"], mirl[0]["high"]) == (-0.5, 0.5) and {row["low"] for row in mirl[:-1]} == {-0.5}


def test_sample_efficiency_has_steps_if_they_are_the_same(useless):
    rows = [row for row in table(useless / "report", "efficiency") if row["algorithm"] == "mirl"]
    assert [int(row["step"]) for row in rows] == list(range(40, 1001, 40))


def test_runs_without_episodes_have_no_sample_efficiency(tmp_path):
    jobs = jobs_of(("sql", "mirl"), ["CartPole-v1"], 1)
    open_folder(tmp_path, CLASSIC, jobs)
    for job in jobs:
        changes = {"curve": {"step": [], "return": [], "episodes": []}} if job.algorithm == "sql" else {}
        write_result(tmp_path, CLASSIC, job, **changes)
    assert {row["algorithm"] for row in efficiency_rows(read(tmp_path))} == {"mirl"}
