"""The page: its numbers, missing runs, accessibility, and that it needs no other file."""

import pytest
from bench_reports import Page, page_of
from bench_results import CLASSIC, jobs_of, write_result

from sb3_mirl.bench.jobs import Job, open_folder
from sb3_mirl.bench.report.cells import duration, number
from sb3_mirl.bench.report.content import read
from sb3_mirl.bench.report.write import write_report
from sb3_mirl.bench.scores import human_normalized
from sb3_mirl.cli.main import main


def test_missing_runs_are_marked(classic):
    page = page_of(classic / "report")
    assert page.row("CartPole-v1")[1:] == ["2 of 3 runs, failed: 1", "2 of 3 runs, unreadable: 1", "3 runs", "3 runs"]
    assert page.row("Acrobot-v1")[1:] == ["3 runs", "1 of 3 runs", "no run", "3 runs"]
    assert "17 of 24 jobs are finished. Not finished: 1 failed, 5 missing, 1 unreadable." in page.text
    assert page.row("CartPole-v1", "DQN", "2")[3:] == ["failed", "ValueError: the loss was <nan>"]
    assert "Left out: Acrobot-v1 (no run of SQL_m)." in page.text


def test_page_names_environments_left_out_of_aggregates(atari):
    page = page_of(atari / "out")
    assert "Left out: Krull (no run of SQL, MIRL)." in page.text
    assert page.row("Krull")[1:] == ["4 runs", "not asked for", "no run"]


def test_table_1_has_the_numbers_of_the_paper_and_ours(atari):
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
    assert "which had 200 million frames, in 17 of the 19 games: its trainings were long" in page.text
    # Of Alien and Boxing: (40.23 + 2338.89) / 2
    assert page.row("mean of 2 games")[3] == "1,190"
    assert page.row("median of 2 games")[4:] == page.row("mean of 2 games")[4:]


def test_page_names_runs_with_other_steps_or_hyperparameters(tmp_path, without_figures):
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


def test_time_of_joint_trainings_counts_once(tmp_path, without_figures):
    """Three runs of 50 s: two in one process, and one of which the result does not say it."""
    jobs = jobs_of(("mirl",), ["CartPole-v1"], 3)
    open_folder(tmp_path, CLASSIC, jobs)
    for job in jobs:
        write_result(tmp_path, CLASSIC, job, **({} if job.seed == 0 else {"trained_jointly": 2}))
    write_report(tmp_path, tmp_path / "out")
    page = page_of(tmp_path / "out")
    assert duration(100.0) in page.row("MIRL", "3")
    (times,) = (table for caption, table in page.tables.items() if caption.startswith("Wall time of a training"))
    assert times[1][1].startswith(duration(50.0)) and times[1][1].endswith("1, 2 runs jointly")


def test_tuning_is_in_report_and_status(classic, atari, capsys, tmp_path, without_figures):
    page = page_of(classic / "report")
    assert "Tuning was not equal: differences of scores may come from it." in page.text
    assert "Hyper-parameters of DQN: rl-zoo3's settings, which its authors tuned for this algorithm." in page.text
    assert page.row("MIRL", CLASSIC.tuning["mirl"], "not recorded")
    assert "Tuning was not equal" not in page_of(atari / "out").text
    for command in ("status", "report"):
        assert main(["bench", command, str(atari), *(["--out", str(tmp_path)] if command == "report" else [])]) == 0
        said = "hyper-parameters of DQN, MIRL, SQL: what the algorithms share is alike, and tuned for none of them"
        assert capsys.readouterr().out.splitlines()[-1] == said


def test_hyperparameters_may_be_auto(tmp_path, without_figures):
    """``prior_lr="auto"``: the file of hyper-parameters has the word, the result the number that came of it."""
    jobs = jobs_of(("mirl",), ["CartPole-v1"], 2)
    open_folder(tmp_path, CLASSIC, jobs)
    for job in jobs:
        settings = {"n_timesteps": 1000, "prior_lr": "auto", "beta_lr": "auto"}
        write_result(tmp_path, CLASSIC, job, hyperparameters=settings, prior_lr="auto", beta_lr=1e-3)
    write_report(tmp_path, tmp_path / "out")
    assert "1 set of hyper-parameters" not in page_of(tmp_path / "out").text
    assert len(read(tmp_path).results) == 2


@pytest.mark.parametrize("algorithm", ["dqn", "ppo"])
def test_page_of_a_single_algorithm(algorithm, tmp_path):
    job = Job(algorithm, "CartPole-v1", 0)
    open_folder(tmp_path, CLASSIC, [job])
    write_result(tmp_path, CLASSIC, job, 1.0)
    assert main(["bench", "report", str(tmp_path)]) == 0
    assert "No probability of improvement" in page_of(tmp_path / "report").text


def test_page_is_self_contained(classic, atari):
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


def test_page_is_accessible_to_screen_readers(classic):
    elements = page_of(classic / "report").elements
    images = [attrs for tag, attrs in elements if tag == "img"]
    assert len(images) == 4 + 3 * 2 and all(len(attrs["alt"]) > 20 for attrs in images)
    assert all(attrs.get("scope") in ("row", "col", "colgroup") for tag, attrs in elements if tag == "th")
    tags = [tag for tag, _ in elements]
    assert tags.count("caption") == tags.count("table") > 5
    assert dict(elements)["html"] == {"lang": "en"}
