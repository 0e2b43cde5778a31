"""``results/`` and what ``docs/results.md`` says of it."""

import json
import re
import shutil
from pathlib import Path

import pytest

from sb3_mirl.bench.report.content import read
from sb3_mirl.bench.suites import CHOSEN, SUITES, TUNINGS
from sb3_mirl.bench.tuning import chosen_settings
from sb3_mirl.cli.main import main

ROOT = Path(__file__).parent.parent
FOLDERS = sorted(file.parent.name for file in (ROOT / "results").glob("*/suite.json"))
PAGE = (ROOT / "docs" / "results.md").read_text("utf-8")


def test_results_page_matches_result_files(run_script):
    checked = run_script(ROOT / "benchmarks" / "results_page.py", "--check", cwd=ROOT)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.slow
def test_check_fails_for_changed_result(tmp_path, run_script):
    for name in ("docs/results.md", "benchmarks/results_page.py"):
        (tmp_path / name).parent.mkdir()
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "results", tmp_path / "results")
    file = next((tmp_path / "results").glob("*/results/mirl_*.json"))
    result = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps(result | {"scores": [score + 100.0 for score in result["scores"]]}), "utf-8")
    checked = run_script(tmp_path / "benchmarks" / "results_page.py", "--check")
    assert checked.returncode == 1 and "results_page.py" in checked.stderr


def test_images_of_results_page_exist():
    images = re.findall(r"\]\((images/[^)]+)\)", PAGE)
    assert images and all((ROOT / "docs" / image).is_file() for image in images)


@pytest.mark.parametrize("name", FOLDERS)
def test_results_match_current_suites(name):
    bench = read(ROOT / "results" / name)
    assert bench.suite == SUITES[name] and bench.suite.tuning
    assert bench.results and not bench.reasons
    for job, result in bench.results.items():
        assert (result["algorithm"], result["environment"], result["seed"]) == (job.algorithm, job.env, job.seed)
        assert len(result["scores"]) == bench.suite.episodes and result["evaluation"]["epsilon"] == bench.suite.epsilon
        assert result["steps"] >= bench.suite.steps[job.env]
        assert result["hyperparameters"]["n_timesteps"] == bench.suite.steps[job.env]


@pytest.mark.slow
def test_results_page_has_defaults_table(run_script):
    finished = run_script(ROOT / "benchmarks" / "defaults.py", "report")
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip() and finished.stdout.strip() in PAGE


#: Experiments: the script with its options, a file of results, a page, and what the report must not overwrite
REPORTS = {
    "regularisation_strength": ("regularisation_strength.json", "results", "--images"),
    "while_learning": ("while_learning.json", "results", "--figure"),
    "while_learning --plan repeat": ("acting.json", "results", "--figure"),
    "while_learning --plan without": ("without_useless.json", "results", "--figure"),
    "sql_with_mirl_settings": ("sql_with_mirl_settings.json", "results", None),
    "prior_influence": ("prior_influence.json", "results", None),
    "prior_transfer": ("prior_transfer.json", "results", None),
    "acting_in_minatar": ("acting_in_minatar.json", "results", None),
    "rare_rewards": ("rare_rewards.json", "results", None),
    "dead_units": ("dead_units.json", "results", None),
    "constant_actions": ("constant_actions.json", "results", None),
    "four_rooms_deep": ("four-rooms/deep.json", "priors", "--figure"),
    "action_masks": ("action_masks.json", "priors", None),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REPORTS)
def test_first_table_of_an_experiment_is_on_its_page(name, tmp_path, run_script):
    results, page, drawn = REPORTS[name]
    folder = tmp_path if drawn == "--images" else tmp_path / "figure.png"
    options = ["--results", ROOT / "results" / results, *([drawn, folder] if drawn else [])]
    script, *more = name.split()
    done = run_script(ROOT / "benchmarks" / f"{script}.py", "report", *more, *options)
    assert done.returncode == 0, done.stderr
    table = re.search(r"(?m)(^\|.*\n)+", done.stdout)[0]
    assert table.count("\n") > 3 and table in (ROOT / "docs" / f"{page}.md").read_text("utf-8")


def hypothesis_rows():
    """The rows about tested hypotheses: those of the overview, and those of the sections, as lists of cells."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"(?m)^\| H\d.*\|$", PAGE)]
    overview = [row for row in rows if len(row) == 4 and row[-1].startswith("[")]
    sections = [row for row in rows if row[-1] in ("open", "holds", "refuted")]
    return overview, sections


def test_overview_of_hypotheses_has_the_verdicts_of_the_sections():
    overview, sections = hypothesis_rows()
    finished = [row for row in overview if row[2]]
    assert {row[0] for row in sections} == {row[0] for row in finished} - {"H5"}
    for name, _, number, verdict in finished:
        found = [row for row in sections if row[0] == name and number in " ".join(row)]
        if name == "H5":
            assert f"{number}, p" in PAGE.replace("\n", " ") and "**H5 is open**" in PAGE and verdict.startswith("[open]")
        else:
            assert len(found) == 1 and verdict.startswith(f"[{found[0][-1]}]"), name


@pytest.mark.parametrize("name", CHOSEN)
def test_settings_of_a_suite_are_the_best_trials(name):
    folder, plan = ROOT / "results" / f"{name}-tuning", TUNINGS[name]
    best = {algorithm: chosen_settings(folder, plan, algorithm) for algorithm in SUITES[name].algorithms}
    assert best == CHOSEN[name]


@pytest.mark.parametrize("name", CHOSEN)
def test_results_page_has_tuned_settings(name, capsys):
    assert main(["bench", "tune", name, "--out", str(ROOT / "results" / f"{name}-tuning")]) == 0
    choices = [line for line in capsys.readouterr().out.splitlines() if "mean rank" in line]
    assert len(choices) == len(CHOSEN[name]) and "\n".join(choices) in PAGE
