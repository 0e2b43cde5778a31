"""Comparisons of two algorithms, and verdicts on claims."""

import pytest
from bench_reports import ATARI, BOXING, Page, page_of, row_of, table
from bench_results import CLASSIC, fill, jobs_of, write_result

from sb3_mirl.bench.jobs import Job, open_folder
from sb3_mirl.bench.report.claims import advantages, claim_rows
from sb3_mirl.bench.report.content import grouped, read
from sb3_mirl.bench.report.write import write_report
from sb3_mirl.bench.scores import detectable_improvement, holm, reference_scores


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
    row = page.tables["Claims"][2]
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


def test_claims_of_several_algorithms(tmp_path, without_figures):
    jobs = jobs_of(("dqn_mse", "sql", "sql_decoupled", "sql_m", "mdqn", "mirl"), ["CartPole-v1"], 4)
    open_folder(tmp_path, CLASSIC, jobs)
    for job in jobs:
        # MIRL has the four largest scores; all others have the same ones
        write_result(tmp_path, CLASSIC, job, 10.0 * (job.algorithm == "mirl") + job.seed)
    write_report(tmp_path, tmp_path / "out")
    rows = {(row["algorithm"], row["than"]): row for row in table(tmp_path / "out", "claims")}
    better = [("mirl", other) for other in ("sql", "sql_m", "dqn_mse", "sql_decoupled", "mdqn")]
    assert set(rows) == {*better, ("sql_m", "sql"), ("sql_decoupled", "sql")}
    for pair, row in rows.items():
        # 2 of 70 exchanges of 4 and 4 runs are as extreme: significant for a single claim, but not for one of seven
        assert float(row["p"]) == pytest.approx(2 / 70 if pair in better else 1.0, abs=0.006)
        assert float(row["p_adjusted"]) == pytest.approx(7 * float(rows["mirl", "sql"]["p"]) if pair in better else 1.0)
        assert row["verdict"] == "open"


def test_claims_of_each_group_are_adjusted_alone(useless):
    rows = grouped(table(useless / "report", "claims"), "useless_actions")
    assert list(rows) == ["all", "0", "15"]
    for group, runs in (("all", "16"), ("0", "8"), ("15", "8")):
        assert [(row["algorithm"], row["than"], row["runs"]) for row in rows[group]] == [
            ("mirl", "sql", runs),
            ("sql", "dqn", runs),
            ("mirl", "dqn", runs),
        ]
        p, adjusted = ([float(row[key]) for row in rows[group]] for key in ("p", "p_adjusted"))
        assert adjusted == pytest.approx(holm(p))
    # MIRL is better with useless actions only
    assert [rows[group][0]["verdict"] for group in rows] == ["holds", "open", "holds"]
    assert rows["15"][0]["better_in"] == "Useless15/CartPole-v1 Useless15/Acrobot-v1"


def test_advantages_are_of_the_same_environments(useless):
    claims = claim_rows(read(useless))
    assert [row["useless_actions"] for row in advantages(claims) if row["than"] == "sql"] == ["0", "15"]
    # As if Acrobot had no runs with useless actions yet
    for row in claims:
        if row["useless_actions"] == "15" and row["than"] == "sql":
            row["better_in"] = row["better_in"].replace("Useless15/Acrobot-v1", "")
    assert [row["useless_actions"] for row in advantages(claims) if row["than"] == "sql"] == ["0"]
    assert [row["useless_actions"] for row in advantages(claims) if row["than"] == "dqn"] == ["0", "15"]


def test_trend_is_the_change_from_the_fewest_to_the_most_useless_actions(useless):
    rows = {(row["algorithm"], row["than"]): row for row in table(useless / "report", "trends")}
    assert [*rows] == [("mirl", "sql"), ("sql", "dqn"), ("mirl", "dqn")]
    # From equal to always better; always better before and after
    rising, constant = rows["mirl", "sql"], rows["sql", "dqn"]
    assert float(rising["value"]) == 0.5 and rising["verdict"] == "rises" and float(rising["low"]) > 0
    assert float(constant["value"]) == 0.0 and constant["verdict"] == "open"
    assert (rising["from"], rising["to"], rising["environments"]) == ("0", "15", "2")
    shown = page_of(useless / "report").tables[
        "Change of the probability of improvement from the fewest to the most useless actions"
    ]
    assert shown[1][:3] == ["MIRL better than SQL", "0", "15"] and shown[1][4:] == ["rises", "2"]


def test_there_is_no_trend_without_useless_actions(classic):
    assert (classic / "report" / "claims.csv").exists() and not (classic / "report" / "trends.csv").exists()


def test_detectable_effect_depends_on_the_number_of_runs(useless, tmp_path, without_figures):
    rows = table(useless / "report", "claims")
    # Three claims in each group
    assert float(rows[0]["detectable"]) == detectable_improvement([4] * 4, [4] * 4, level=0.05 / 3)
    assert float(rows[3]["detectable"]) == detectable_improvement([4] * 2, [4] * 2, level=0.05 / 3)
    # The smallest p of two single runs is 1
    write_report(fill(tmp_path, CLASSIC, jobs_of(("sql", "mirl"), ["CartPole-v1"], 1)), tmp_path / "out")
    assert row_of(table(tmp_path / "out", "claims"))["detectable"] == ""
    assert "none" in page_of(tmp_path / "out").row("MIRL better than SQL")
