"""``results/`` and what ``docs/results.md`` says of it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sb3_mirl.benchmark.report import read
from sb3_mirl.benchmark.suites import SUITES

ROOT = Path(__file__).parent.parent
FOLDERS = sorted(folder.name for folder in (ROOT / "results").iterdir())
PAGE = (ROOT / "docs" / "results.md").read_text("utf-8")


def test_the_page_has_the_numbers_of_the_results():
    command = [sys.executable, str(ROOT / "benchmarks" / "results_page.py"), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert checked.returncode == 0, checked.stderr


def test_a_changed_result_is_noticed(tmp_path):
    for name in ("benchmarks", "docs", "results"):
        (tmp_path / name).mkdir()
    script = tmp_path / "benchmarks" / "results_page.py"
    script.write_text((ROOT / "benchmarks" / "results_page.py").read_text("utf-8"), "utf-8")
    (tmp_path / "docs" / "results.md").write_text(PAGE, "utf-8")
    for file in sorted((ROOT / "results").rglob("*.json")):
        copy = tmp_path / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    result = json.loads(copy.read_text("utf-8"))
    copy.write_text(json.dumps(result | {"scores": [score + 100.0 for score in result["scores"]]}), "utf-8")
    checked = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True)
    assert checked.returncode == 1 and "results_page.py" in checked.stderr


def test_the_page_shows_images_that_are_there():
    images = re.findall(r"\]\((images/[^)]+)\)", PAGE)
    assert images and all((ROOT / "docs" / image).is_file() for image in images)


@pytest.mark.parametrize("name", FOLDERS)
def test_results_are_of_the_suite_as_it_is(name):
    bench = read(ROOT / "results" / name)
    assert bench.suite == SUITES[name]
    assert bench.results and not bench.reasons
    for job, result in bench.results.items():
        assert (result["algorithm"], result["environment"], result["seed"]) == (job.algorithm, job.env, job.seed)
        assert len(result["scores"]) == bench.suite.episodes and result["evaluation"]["epsilon"] == bench.suite.epsilon
        assert result["steps"] >= bench.suite.steps[job.env]
        assert result["hyperparameters"]["n_timesteps"] == bench.suite.steps[job.env]
