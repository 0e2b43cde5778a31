"""Scripts that measure run to their end, and the figure of the README can be drawn."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_measurements_for_a_gpu_run_on_a_processor():
    command = [ROOT / "benchmarks" / "gpu.sh", "--device", "cpu", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHON": sys.executable})
    assert done.returncode == 0, done.stdout + done.stderr
    tests, solo, joint = done.stdout.split("## ")[1:]
    assert "skipped" in tests or "passed" in tests
    assert "| cartpole | steps/s |" in solo and "MIRL, compiled" in solo
    for name in ("SB3's DQN", "MIRL, compiled", "1 MIRL jointly", "2 MIRL jointly, compiled"):
        assert f"| minatar | {name} |" in joint


@pytest.mark.slow
def test_strength_of_the_regularisation_runs(tmp_path, run_script):
    script, options = ROOT / "benchmarks" / "regularisation_strength.py", ("--results", tmp_path / "results.json")
    done = run_script(script, "run", "--steps", "300", "--envs", "CartPole-v1", *options)
    assert done.returncode == 0 and "CartPole-v1: done" in done.stdout, done.stderr
    done = run_script(script, "report", *options, "--images", tmp_path)
    assert done.returncode == 0 and "| without useless actions | draws from π |" in done.stdout, done.stderr
    assert (tmp_path / "strength.png").exists()


@pytest.mark.slow
def test_exact_costs_of_the_penalty_are_those_of_the_page(tmp_path, run_script):
    done = run_script(ROOT / "benchmarks" / "regularisation_strength.py", "exact", "--images", tmp_path)
    assert done.returncode == 0 and (tmp_path / "strength_exact.png").exists(), done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith(("| corridor | 15", "| square | 15"))]
    page = (ROOT / "docs" / "results.md").read_text("utf-8")
    assert len(rows) == 12 and all(row in page for row in rows)


def test_figure_of_the_readme_shows_the_exact_optimum(tmp_path):
    spec = importlib.util.spec_from_file_location("prior_figure", ROOT / "benchmarks" / "prior_figure.py")
    figure = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figure)
    figure.BETAS = figure.BETAS[::14]
    steps, priors, greedy = figure.learned_priors(15_000, n_seeds=1, n_points=3)
    values = figure.exact_values()
    learned, best = figure.by_name(priors[-1, 0]), figure.by_name(values["prior"])
    assert learned["useless"] < 1e-3 and max(abs(learned[name] - best[name]) for name in best) < 0.05
    assert (values["uniform"] < values["best"]).all() and (values["best"] < values["no penalty"]).all()
    figure.draw(steps, priors, greedy, values, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
