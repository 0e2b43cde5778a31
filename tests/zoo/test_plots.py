"""rl-zoo3's plots."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from zoo_train import ENV

from sb3_mirl.zoo.command import main


def test_plots_leave_out_other_environments_of_ours(in_runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(in_runs / "logs" / "sql", "logs/sql")
    shutil.copytree(f"logs/sql/{ENV}_1", f"logs/sql/Useless15-{ENV}_1")
    # Of another result
    evaluations = f"logs/sql/Useless15-{ENV}_1/evaluations.npz"
    stored = dict(np.load(evaluations))
    np.savez(evaluations, **{**stored, "results": np.full_like(stored["results"], 1e6)})
    command = ["all-plots", "-a", "sql", "-f", "logs", "--no-display", "-print", "-e", ENV]
    for others in ([], [f"Useless15-{ENV}"]):
        assert main([*command, *others]) == 0
        rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith(f"|{ENV}")]
        assert len(rows) == 1 and "000" not in rows[0]
    assert main(["plot-train", "-a", "sql", "-f", "logs", "-e", ENV]) == 0
    shutil.rmtree(f"logs/sql/{ENV}_1")
    assert main(["all-plots", "-a", "sql", "-e", ENV, "-f", "logs", "--no-display"]) == 2
    assert f"-e must have runs in logs of sql, got '{ENV}'" in capsys.readouterr().err


def test_plots_of_single_runs_and_of_different_lengths(in_runs, tmp_path, monkeypatch, capsys):
    table = str(tmp_path / "plots")
    assert main(["all-plots", "-a", "mirl", "sql", "dqn", "-e", ENV, "-f", "logs", "-o", table, "--no-display"]) == 0
    monkeypatch.chdir(tmp_path)
    for algorithms in ([], ["--keep-keys", "SQL-logs"]):
        assert main(["plot-from-file", "-i", f"{table}.pkl", *algorithms, "-o", "figure", "--format", "png"]) == 0
    assert {path.name for path in tmp_path.glob("*")} >= {"figure", "plot-from-file-sensitivity-plot.png"}
    printed = capsys.readouterr().out
    assert printed.count("No display: wrote the figure to plot-from-file-results-cartpole-v1.png\n") == 2
    assert "Skipping" not in printed


@pytest.mark.filterwarnings("ignore:No artists with labels")
def test_plots_without_evaluations_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("logs", "ppo", f"{ENV}_1").mkdir(parents=True)
    assert main(["all-plots", "-a", "PPO", "-e", ENV, "-f", "logs", "-o", "none", "--no-display"]) == 0
    assert main(["plot-from-file", "-i", "none.pkl"]) == 2
    assert "none.pkl holds no evaluations: all-plots needs runs with two evaluations" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:No artists with labels")
def test_plots_without_a_display_are_written_to_files(in_runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = "plot-train-training-episodic-reward.png"
    for window, note in (("2", ""), ("1000", ", but found nothing to draw (--help)")):
        assert main(["plot-train", "-a", "mirl", "-e", ENV, "-f", str(in_runs / "logs"), "-w", window]) == 0
        assert capsys.readouterr().out == f"No display: wrote the figure to {file}{note}\n"
        assert Path(file).stat().st_size > 1000
