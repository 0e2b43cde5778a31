"""The tables of a report: numbers by hand, and results that do not count."""

from dataclasses import replace

import numpy as np
import pytest
from bench_reports import ALIEN, ATARI, BOXING, Page, numbers, page_of, row_of, table
from bench_results import CLASSIC, fill, jobs_of, write_result, write_text

from sb3_mirl.bench import scores as statistics
from sb3_mirl.bench.jobs import Job, open_folder
from sb3_mirl.bench.report.tables import POINTS, read, score_rows
from sb3_mirl.bench.report.write import write_report
from sb3_mirl.bench.scores import bootstrap, human_normalized, reference_scores


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


def test_aggregates_are_over_games_that_all_algorithms_have(atari):
    rows = table(atari / "out", "aggregates")
    assert len(rows) == 2 * 3 * 3
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


def test_relative_scores_by_hand(tmp_path, without_figures):
    suite, jobs = CLASSIC, jobs_of(("dqn", "mirl"), ["CartPole-v1", "Acrobot-v1"], 1)
    open_folder(tmp_path, suite, jobs)
    for job, score in zip(jobs, (100.0, 300.0, -80.0, -80.0), strict=True):
        write_result(tmp_path, suite, job, score)
    write_report(tmp_path, tmp_path / "out")
    rows = table(tmp_path / "out", "aggregates")
    # Worst and best in CartPole; a tie in Acrobot
    assert [row_of(rows, statistic="mean", algorithm=name)["value"] for name in ("dqn", "mirl")] == ["0.25", "0.75"]
    # (1 + 1/2) / 2
    assert row_of(table(tmp_path / "out", "improvement"), than="dqn")["value"] == "0.75"


def test_improvement_is_over_all_shared_environments(classic):
    rows = table(classic / "report", "improvement")
    over = {(row["algorithm"], row["than"]): (row["value"], row["environments"], row["other_runs"]) for row in rows}
    # Scores of an algorithm are 10 above those of the one before it, and spread by at most 4
    assert over == {
        ("mirl", "dqn"): ("1.0", "2", "5"),
        ("mirl", "sql"): ("1.0", "2", "3"),
        ("mirl", "sql_m"): ("1.0", "1", "3"),
        ("sql_m", "sql"): ("1.0", "1", "2"),
        ("sql", "dqn"): ("1.0", "2", "5"),
    }


def test_ablation_is_a_difference_of_means(classic):
    rows = table(classic / "report", "ablation")
    row = row_of(rows, environment="CartPole-v1", algorithm="mirl", minus="sql")
    # (40 + 41 + 44) / 3 - (20 + 24) / 2, with the ends at most 40 - 24 and 44 - 20
    assert float(row["value"]) == pytest.approx(125 / 3 - 22)
    assert 16 <= float(row["low"]) < float(row["value"]) < float(row["high"]) <= 24
    assert (row["runs"], row["other_runs"]) == ("3", "2")
    assert not [row for row in rows if row["environment"] == "Acrobot-v1" and "sql_m" in (row["algorithm"], row["minus"])]


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


# With 4 runs p is 0.029 in one environment alone, and twice as much if it is one of two
@pytest.mark.parametrize("others, runs, one_of_two", [((), 5, True), (("ars",), 5, True), ((), 4, False)])
def test_verdicts_on_claims_are_those_of_the_permutation_test(others, runs, one_of_two, tmp_path, without_figures):
    suite, jobs = CLASSIC, jobs_of(("dqn", "sql", "mirl"), ["CartPole-v1", "Acrobot-v1"], runs)
    # What else is in the folder, on other scales and with other numbers of runs, changes nothing
    more = [Job(name, "CartPole-v1", 0) for name in others]
    open_folder(tmp_path, suite, [*jobs, *more])
    # MIRL is better than SQL in one environment and worse in the other; SQL is better than DQN in one
    level = {("CartPole-v1", "mirl"): 4000, ("CartPole-v1", "sql"): 20, ("CartPole-v1", "dqn"): 20}
    level |= {("Acrobot-v1", "mirl"): 0, ("Acrobot-v1", "sql"): 40, ("Acrobot-v1", "dqn"): -40}
    for job in [*jobs, *more]:
        write_result(tmp_path, suite, job, level.get((job.env, job.algorithm), 1e6) + float(job.seed))
    write_report(tmp_path, tmp_path / "out")
    rows = table(tmp_path / "out", "claims")
    said = {
        (row["algorithm"], row["than"]): [row[key] for key in ("verdict", "better_in", "worse_in", "open_in")] for row in rows
    }
    assert said == {
        ("mirl", "sql"): ["open", "CartPole-v1", "Acrobot-v1", ""],
        ("sql", "dqn"): ["open", "Acrobot-v1", "", "CartPole-v1"]
        if one_of_two
        else ["open", "", "", "CartPole-v1 Acrobot-v1"],
        ("mirl", "dqn"): ["holds", "CartPole-v1 Acrobot-v1", "", ""],
    }
    assert [float(row["value"]) for row in rows] == [0.5, 0.75, 1.0]
    # 80 of the range from -40 to 40 + runs - 1 in one of two environments, and nothing in the other
    assert float(rows[1]["mean_value"]) == pytest.approx(80 / (79 + runs) / 2)
    assert {(row["runs"], row["other_runs"], row["environments"]) for row in rows} == {(str(2 * runs), str(2 * runs), "2")}
    page = Page((tmp_path / "out" / "report.html").read_text())
    row = page.tables["The paper's claim: MIRL better than SQL better than DQN"][2]
    assert row[0] == "SQL better than DQN" and row[-4] == "open"
    assert row[-3:] == (["Acrobot-v1", "–", "CartPole-v1"] if one_of_two else ["–", "–", "CartPole-v1, Acrobot-v1"])


def test_single_game_does_not_decide_a_claim(tmp_path, without_figures):
    """In Boxing a point is 24 % of a human's score, which makes the difference of means whatever it makes of it."""
    jobs = jobs_of(("sql", "mirl"), list(ATARI.steps), 3)
    open_folder(tmp_path, ATARI, jobs)
    for job in jobs:
        better = (job.algorithm == "mirl") == (job.env == BOXING)
        write_result(tmp_path, ATARI, job, reference_scores(job.env)["random"] + (50.0 if better else 1.0) + job.seed / 10)
    write_report(tmp_path, tmp_path / "out")
    (row,) = table(tmp_path / "out", "claims")
    assert row["verdict"] == "the opposite" and row["better_in"] == ""
    assert float(row["value"]) == pytest.approx(1 / 19) and float(row["mean_value"]) > 0.3


def test_claims_are_open_with_single_runs(tmp_path, without_figures):
    suite, jobs = CLASSIC, jobs_of(("sql", "mirl"), ["CartPole-v1"], 1)
    write_report(fill(tmp_path, suite, jobs), tmp_path / "out")
    (row,) = table(tmp_path / "out", "claims")
    assert (row["than"], row["low"], row["verdict"], row["open_in"]) == ("sql", "", "open", "CartPole-v1")


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


def test_versions_are_counted(classic):
    rows = table(classic / "report", "versions")
    assert {row["version"]: row["runs"] for row in rows if row["package"] == "torch"} == {
        "2.8.0": "7",
        "2.9.0": "5",
        "2.10.0": "5",
    }


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
