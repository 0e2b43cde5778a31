"""``sb3-mirl bench report``: numbers are those of the results, what is missing is said, and the page needs nothing else."""

import csv
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from bench_results import ALL, CLASSIC, fill, jobs_of, write_result
from matplotlib import image

from sb3_mirl.bench import scores as statistics
from sb3_mirl.bench.jobs import Job, open_folder, write_whole
from sb3_mirl.bench.report.page import number
from sb3_mirl.bench.report.tables import POINTS, read, score_rows, write_report
from sb3_mirl.bench.scores import bootstrap, human_normalized, reference_scores
from sb3_mirl.bench.suites import SUITES
from sb3_mirl.cli.main import main

ATARI = SUITES["atari19-100k"]
ALIEN, BOXING, KRULL = (f"{game}NoFrameskip-v4" for game in ("Alien", "Boxing", "Krull"))
#: Elements of HTML that are never closed
VOID = {"meta", "img", "link", "br", "hr", "input"}


def table(report, name):
    with open(report / f"{name}.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def row_of(rows, **key):
    (row,) = [row for row in rows if all(row[name] == value for name, value in key.items())]
    return row


def numbers(row, *keys):
    return [float(row[key]) for key in keys or ("value", "low", "high")]


class Page(HTMLParser):
    """Elements with their attributes, text, and rows of cells of the tables by caption; every element must be closed."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.tables, self.text = [], [], {}, ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if "caption" in self.open:
            self.rows = self.tables[data] = []
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] = f"{self.rows[-1][-1]} {data}".strip()

    def row(self, *beginning):
        """The first row of any table that begins so."""
        rows = (row for table in self.tables.values() for row in table)
        return next(row for row in rows if row[: len(beginning)] == list(beginning))


@pytest.fixture(scope="module")
def classic(tmp_path_factory):
    """Two environments, four algorithms, up to three seeds: one failed, one unreadable, one without any run, one seed only."""
    folder = tmp_path_factory.mktemp("classic")
    jobs = jobs_of(ALL, ["CartPole-v1", "Acrobot-v1"], 3)
    failed, damaged = Job("dqn", "CartPole-v1", 2), Job("sql", "CartPole-v1", 1)
    none = [Job("sql_m", "Acrobot-v1", seed) for seed in range(3)]
    single = [Job("sql", "Acrobot-v1", seed) for seed in (1, 2)]
    fill(folder, CLASSIC, jobs, [failed, damaged, *none, *single])
    failed.record_failure(folder, "Traceback\nValueError: the loss was <nan>")
    write_whole(damaged.result_file(folder), '{"format": 1, "sco')
    assert main(["bench", "report", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def atari(tmp_path_factory):
    """Three games; DQN and MIRL have all runs of two, and MIRL none of the third. Nobody has asked for SQL there."""
    folder = tmp_path_factory.mktemp("atari")
    jobs = [*jobs_of(("dqn", "mirl"), [ALIEN, BOXING, KRULL], 4), *jobs_of(("sql",), [ALIEN, BOXING], 2)]
    fill(folder, ATARI, jobs, [Job("mirl", KRULL, seed) for seed in range(4)])
    assert main(["bench", "report", str(folder), "--out", str(folder / "out")]) == 0
    return folder


@pytest.fixture
def without_figures(monkeypatch):
    """Of a report, what takes most of its time."""
    monkeypatch.setattr("sb3_mirl.bench.report.figures.draw", lambda bench, tables: {})


def page_of(folder):
    return Page((folder / "report.html").read_text(encoding="utf-8"))


# ---- numbers ---------------------------------------------------------------------------------------------------------


def test_scores_are_means_with_intervals_over_runs(classic):
    row = row_of(table(classic / "report", "scores"), environment="CartPole-v1", algorithm="mirl")
    # 40 + seed²
    expected = bootstrap(statistics.mean, np.array([[40.0], [41.0], [44.0]]))
    assert numbers(row) == pytest.approx([125 / 3, expected.low, expected.high])
    assert 40 <= float(row["low"]) < 125 / 3 < float(row["high"]) <= 44
    assert (row["runs"], row["asked_for"]) == ("3", "3")


def test_one_run_has_no_interval(classic):
    row = row_of(table(classic / "report", "scores"), environment="Acrobot-v1", algorithm="sql")
    assert (row["value"], row["low"], row["high"], row["runs"]) == ("20.0", "", "", "1")
    scores = page_of(classic / "report").tables["Raw scores: mean over runs, 95% interval, and runs"]
    assert scores[0] == ["environment", "DQN", "SQL", "SQL_m", "MIRL"]
    assert scores[2][:3] == ["Acrobot-v1", "11.67 [10.00, 14.00] 3 runs", "20.00 1 of 3 runs"]


def test_every_job_has_a_row(classic):
    rows = table(classic / "report", "runs")
    assert len(rows) == 24
    row = row_of(rows, environment="CartPole-v1", algorithm="dqn", seed="2")
    assert (row["state"], row["score"], row["reason"]) == ("failed", "", "ValueError: the loss was <nan>")
    assert row_of(rows, environment="CartPole-v1", algorithm="sql", seed="1")["state"] == "unreadable"


def test_normalised_scores(atari):
    row = row_of(table(atari / "out", "scores"), environment=ALIEN, algorithm="mirl")
    assert float(row["value"]) == pytest.approx(43.5)  # 40 + (0, 1, 4, 9)
    for convention in statistics.CONVENTIONS:
        ours = numbers(row, *(f"human_{convention}_{key}" for key in ("value", "low", "high")))
        assert ours == pytest.approx(human_normalized(ALIEN, numbers(row), convention))


def test_aggregates_are_those_of_the_games_that_all_have(atari):
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


def test_improvement_rests_on_all_environments_of_both(classic):
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


def test_the_ablation_is_a_difference_of_means(classic):
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
def test_results_of_another_benchmark_are_named(changes, reason, tmp_path):
    job = Job("mirl", "CartPole-v1", 0)
    open_folder(tmp_path, CLASSIC, [job])
    write_result(tmp_path, replace(CLASSIC, **changes), job)
    bench = read(tmp_path)
    assert bench.states == {job: "unreadable"} and bench.reasons == {job: reason}


# With 4 runs p is 0.029 in one environment alone, and twice as much if it is one of two
@pytest.mark.parametrize("others, runs, one_of_two", [((), 5, True), (("ars",), 5, True), ((), 4, False)])
def test_the_claims_are_judged_by_a_test(others, runs, one_of_two, tmp_path, without_figures):
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


def test_one_game_alone_does_not_decide_for_all(tmp_path, without_figures):
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


def test_what_makes_runs_hard_to_compare_is_said(tmp_path, without_figures):
    jobs = jobs_of(("mirl", "ppo"), ["CartPole-v1"], 2)
    open_folder(tmp_path, CLASSIC, jobs)
    for job in jobs:
        changes = (
            {"steps": 2048} if job.algorithm == "ppo" else {"hyperparameters": {"n_timesteps": 1000, "gamma": job.seed / 2}}
        )
        write_result(tmp_path, CLASSIC, job, 1.0, **changes)
    write_report(tmp_path, tmp_path / "out")
    text = Page((tmp_path / "out" / "report.html").read_text()).text
    assert "PPO was trained for 2,048 steps on CartPole-v1, not 1,000: it takes whole rollouts." in text
    assert "MIRL was trained with 2 sets of hyper-parameters on CartPole-v1." in text


def test_single_runs_leave_the_claims_open(tmp_path, without_figures):
    suite, jobs = CLASSIC, jobs_of(("sql", "mirl"), ["CartPole-v1"], 1)
    write_report(fill(tmp_path, suite, jobs), tmp_path / "out")
    (row,) = table(tmp_path / "out", "claims")
    assert (row["than"], row["low"], row["verdict"], row["open_in"]) == ("sql", "", "open", "CartPole-v1")


def test_the_learning_curve_is_the_mean_of_the_episodes_in_each_part(classic):
    rows = [row for row in table(classic / "report", "curves") if row["algorithm"] == "mirl"]
    rows = [row for row in rows if row["environment"] == "CartPole-v1"]
    assert [int(row["step"]) for row in rows] == [20 * part for part in range(1, POINTS + 1)]
    # Returns are score · step / 1000 at steps 5, 10, 15 and 20
    assert float(rows[0]["value"]) == pytest.approx(125 / 3 * 12.5 / 1000)
    assert float(rows[0]["low"]) < float(rows[0]["value"]) < float(rows[0]["high"])


def test_curves_with_gaps_begin_where_all_have_begun(tmp_path, without_figures):
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


def test_versions_that_differ_are_counted(classic):
    rows = table(classic / "report", "versions")
    assert {row["version"]: row["runs"] for row in rows if row["package"] == "torch"} == {
        "2.8.0": "7",
        "2.9.0": "5",
        "2.10.0": "5",
    }


# ---- the page --------------------------------------------------------------------------------------------------------


def test_what_is_missing_is_marked(classic):
    page = page_of(classic / "report")
    assert page.row("CartPole-v1")[1:] == ["2 of 3 runs, failed: 1", "2 of 3 runs, unreadable: 1", "3 runs", "3 runs"]
    assert page.row("Acrobot-v1")[1:] == ["3 runs", "1 of 3 runs", "no run", "3 runs"]
    assert "17 of 24 jobs are finished. Not finished: 1 failed, 5 missing, 1 unreadable." in page.text
    assert page.row("CartPole-v1", "DQN", "2")[3:] == ["failed", "ValueError: the loss was <nan>"]
    assert "Left out: Acrobot-v1 (no run of SQL_m)." in page.text


def test_environments_that_not_all_have_are_left_out_of_aggregates(atari):
    page = page_of(atari / "out")
    assert "Left out: Krull (no run of SQL, MIRL)." in page.text
    assert page.row("Krull")[1:] == ["4 runs", "not asked for", "no run"]


def test_table_1_has_the_papers_numbers_beside_ours(atari):
    page = page_of(atari / "out")
    tables = [
        page.tables[f"Table 1: percent of a human's score, human scores of {name}"]
        for name in ("Mnih et al. 2015", "Wang et al. 2016")
    ]
    published = ["DQN, 2015", "DQN, Dopamine", "QR-DQN, Dopamine"]
    assert tables[0][0] == ["", "paper, Table 1", "this benchmark", "published"]
    assert tables[0][1] == ["game", "DQN", "SQL", "MIRL", "DQN", "SQL", "MIRL", *published]
    first, second = (table[2] for table in tables)
    # (3403 - 227.8) / (6875.4 - 227.8); the paper's numbers as they are printed
    assert first[:4] == ["Alien", "101.6", "51.02", "40.23"] and first[9] == "47.76"
    assert first[6].endswith("4 runs") and first[6].startswith(number(100 * float(human_normalized("Alien", 43.5))))
    # 40.23 · (6875.4 - 227.8) / (7127.7 - 227.8)
    assert second[3] == "38.76"
    # Of Alien and Boxing: (40.23 + 2338.89) / 2
    assert page.row("mean of 2 games")[3] == "1,190"
    assert page.row("median of 2 games")[4:] == page.row("mean of 2 games")[4:]


def test_the_page_needs_nothing_else(classic, atari):
    for report in (classic / "report", atari / "out"):
        html = (report / "report.html").read_text(encoding="utf-8")
        elements = Page(html).elements
        names = {tag for tag, _ in elements}
        assert not names & {"script", "link", "iframe", "object", "base"}
        assert all(attrs["src"].startswith("data:image/png;base64,") for _, attrs in elements if "src" in attrs)
        anchors = {attrs["id"] for _, attrs in elements if "id" in attrs}
        assert {attrs["href"] for _, attrs in elements if "href" in attrs} == {f"#{name}" for name in anchors}
        assert "url(" not in html and "@import" not in html and "http" not in html
        assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in elements


def test_the_page_can_be_read_aloud(classic):
    elements = page_of(classic / "report").elements
    images = [attrs for tag, attrs in elements if tag == "img"]
    assert len(images) == 2 + 3 * 2 and all(len(attrs["alt"]) > 20 for attrs in images)
    assert all(attrs.get("scope") in ("row", "col", "colgroup") for tag, attrs in elements if tag == "th")
    tags = [tag for tag, _ in elements]
    assert tags.count("caption") == tags.count("table") > 5
    assert dict(elements)["html"] == {"lang": "en"}


def test_figures_are_png_files_too(classic):
    names = {file.stem for file in (classic / "report").glob("*.png")}
    assert names == {"aggregates", "improvement"} | {
        f"{kind}_{env}" for kind in ("curve", "prior", "beta") for env in CLASSIC.steps
    }
    assert (classic / "report" / "aggregates.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "value, text", [(26102.4, "26,102"), (-137.25, "−137.2"), (40.23, "40.23"), (0.0, "0.00"), (-0.0123, "−0.012")]
)
def test_numbers_for_people(value, text):
    assert number(value) == text


# ---- what may be in a folder -----------------------------------------------------------------------------------------


def test_a_folder_in_which_nothing_has_run(tmp_path, capsys):
    open_folder(tmp_path, CLASSIC, jobs_of(("mirl",), ["CartPole-v1"], 2))
    assert main(["bench", "report", str(tmp_path)]) == 0
    page = page_of(tmp_path / "report")
    assert "Nothing has run to its end yet: of 2 jobs none has a result." in page.text
    assert page.row("CartPole-v1") == ["CartPole-v1", "no run"]
    assert "report.html" in capsys.readouterr().out


def test_a_folder_without_jobs(tmp_path):
    open_folder(tmp_path, CLASSIC, [])
    write_report(tmp_path, tmp_path / "report")
    assert "Nothing has run" in page_of(tmp_path / "report").text


def test_results_from_elsewhere_count(tmp_path):
    fill(tmp_path, CLASSIC, [Job("mirl", "CartPole-v1", 0)])
    write_result(tmp_path, CLASSIC, Job("sql_m", "CartPole-v1", 7))
    write_whole(tmp_path / "results" / "notes.json", "{}")
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
def test_results_that_cannot_be_used_are_named(changes, reason, tmp_path):
    job = Job("mirl", "CartPole-v1", 0)
    open_folder(tmp_path, CLASSIC, [job])
    write_result(tmp_path, CLASSIC, job, **changes)
    assert read(tmp_path).reasons[job].startswith(f"mirl_CartPole-v1_0.json: {reason}")


@pytest.mark.parametrize("algorithm", ["dqn", "ppo"])
def test_a_single_algorithm(algorithm, tmp_path):
    job = Job(algorithm, "CartPole-v1", 0)
    open_folder(tmp_path, CLASSIC, [job])
    write_result(tmp_path, CLASSIC, job, 1.0)
    assert main(["bench", "report", str(tmp_path)]) == 0
    assert "No probability of improvement" in page_of(tmp_path / "report").text


def test_a_second_report_replaces_the_first(tmp_path):
    jobs = jobs_of(("sql", "mirl"), ["CartPole-v1"], 1)
    fill(tmp_path, CLASSIC, jobs)
    write_report(tmp_path, tmp_path / "report")
    jobs[0].result_file(tmp_path).unlink()
    write_report(tmp_path, tmp_path / "report")
    assert not (tmp_path / "report" / "ablation.csv").exists()
    assert not (tmp_path / "report" / "improvement.png").exists()


@pytest.mark.parametrize(
    "prepare, arguments, message",
    [
        (lambda folder: None, [], "is not the folder of a benchmark"),
        (lambda folder: write_whole(folder / "suite.json", "{}"), [], "is not what `sb3-mirl bench run` writes"),
        (lambda folder: fill(folder, CLASSIC, []), ["--out", "{folder}/suite.json"], "cannot be written (File exists)"),
    ],
)
def test_what_is_no_benchmark_is_refused_in_a_line(prepare, arguments, message, tmp_path, capsys):
    prepare(tmp_path)
    assert main(["bench", "report", str(tmp_path), *(one.format(folder=tmp_path) for one in arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("sb3-mirl bench report: error: ") and message in line


def test_a_report_needs_no_torch(tmp_path):
    fill(tmp_path, CLASSIC, [Job("mirl", "CartPole-v1", 0)])
    arguments = ["bench", "report", str(tmp_path)]
    code = f"import sys; from sb3_mirl.cli.main import main; assert main({arguments}) == 0; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tuning_is_said_in_report_and_status(classic, atari, capsys):
    page = page_of(classic / "report")
    assert "Tuning was not equal: differences of scores may come from it." in page.text
    assert "Hyper-parameters of DQN: rl-zoo3's settings, which its authors tuned for this algorithm." in page.text
    assert page.row("MIRL", CLASSIC.tuning["mirl"], "not recorded")
    assert "Tuning was not equal" not in page_of(atari / "out").text
    for command in ("status", "report"):
        assert main(["bench", command, str(atari), *(["--out", str(atari / "out")] if command == "report" else [])]) == 0
        said = "hyper-parameters of DQN, MIRL, SQL: what the algorithms share is alike, and tuned for none of them"
        assert capsys.readouterr().out.splitlines()[-1] == said


def test_names_of_actions_are_no_formulas(tmp_path):
    job = Job("mirl", "CartPole-v1", 0)
    open_folder(tmp_path, CLASSIC, [job])
    names = ["$\\frac{$", "$x_1$ and \\$", "\x1b[31mred" + "d" * 10_000]
    write_result(tmp_path, CLASSIC, job, action_names=names)
    write_report(tmp_path, tmp_path / "out")
    assert (tmp_path / "out" / "prior_CartPole-v1.png").exists()
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "$\\frac{$ 0.500" in page and "\\x1b[31mred" in page and "\x1b" not in page


def test_of_many_actions_the_likeliest_are_drawn(tmp_path):
    job = Job("mirl", "CartPole-v1", 0)
    open_folder(tmp_path, CLASSIC, [job])
    write_result(tmp_path, CLASSIC, job, prior=[1 / 1000] * 1000, action_names=None)
    write_report(tmp_path, tmp_path / "out")
    assert len(table(tmp_path / "out", "prior")) == 1000
    assert image.imread(tmp_path / "out" / "prior_CartPole-v1.png").shape[0] < 3000


def test_learning_rates_may_be_words(tmp_path, without_figures):
    """``prior_lr="auto"``: the file of hyper-parameters has the word, the result the number that came of it."""
    jobs = jobs_of(("mirl",), ["CartPole-v1"], 2)
    open_folder(tmp_path, CLASSIC, jobs)
    for job in jobs:
        settings = {"n_timesteps": 1000, "prior_lr": "auto", "beta_lr": "auto"}
        write_result(tmp_path, CLASSIC, job, hyperparameters=settings, prior_lr="auto", beta_lr=1e-3)
    write_report(tmp_path, tmp_path / "out")
    assert "1 set of hyper-parameters" not in page_of(tmp_path / "out").text
    assert len(read(tmp_path).results) == 2
