"""The command ``sb3-mirl gridworld``: its files, and what it refuses."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib import image

from sb3_mirl.bench import gridworld
from sb3_mirl.cli.main import main

SHORT = ["--steps", "600", "--eval-every", "200", "--no-progress"]


@pytest.fixture
def few_betas(monkeypatch):
    """The exact solutions take most of the time."""
    monkeypatch.setattr(gridworld, "EXACT_BETAS", np.array([1.0]))


def test_command_writes_all_files(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gridworld, "EXACT_BETAS", np.logspace(-2, 2, 5))
    assert main(["gridworld", *SHORT, "--seeds", "3", "--out", str(tmp_path)]) == 0
    pictures = {"returns.png", "exact.png", "corridor.png", "wide_corridor.png", "square.png"}
    assert {file.name for file in tmp_path.iterdir()} == {
        "results.csv",
        "summary.csv",
        "differences.csv",
        "exact.csv",
        *pictures,
    }
    for picture in pictures:
        drawn = image.imread(tmp_path / picture)
        assert drawn.shape[0] > 200 and drawn.std() > 0.05
    results = pd.read_csv(tmp_path / "results.csv")
    assert len(results) == 3 * 4 * 3 * 4  # worlds, algorithms, seeds, evaluations at 0, 200, 400, 600
    np.testing.assert_allclose(results.filter(like="prior_").drop(columns="prior_lr").sum(axis=1), 1.0, atol=1e-9)
    exact = pd.read_csv(tmp_path / "exact.csv")
    assert (exact.value_best >= exact.value_uniform).all()
    corridor = exact[exact.world == "corridor"]
    # Going right is all it takes: no information, whatever β; 9 γᵈ⁻¹ less a step for every cell before, from 17 starts
    distances = np.arange(1, 18)
    values = 9 * 0.99 ** (distances - 1) - (1 - 0.99 ** (distances - 1)) / 0.01
    np.testing.assert_allclose(corridor.value_best[corridor.beta > 1], values.mean(), atol=1e-4)
    np.testing.assert_allclose(corridor.mutual_information[corridor.beta > 1], 0.0, atol=1e-4)
    summary = pd.read_csv(tmp_path / "summary.csv")
    assert len(summary) == 3 * 4 * 2
    assert (summary.low <= summary["mean"]).all() and (summary["mean"] <= summary.high).all()
    assert len(pd.read_csv(tmp_path / "differences.csv")) == 3 * 6 * 2
    assert "corridor" in capsys.readouterr().out


def test_map_from_a_file(tmp_path, few_betas, capsys):
    file, out = tmp_path / "$ha\x1bll{$.txt", tmp_path / "out"
    file.write_text("#####\n#S.G#\n#####\n")
    assert main(["gridworld", *SHORT, "--seeds", "2", "--worlds", str(file), "--out", str(out)]) == 0
    assert (out / "$ha\x1bll{$.png").exists()  # the title is no formula
    assert all(line.isprintable() for line in capsys.readouterr().out.split("\n"))


def test_no_plots_and_one_seed(tmp_path, few_betas):
    command = [
        "gridworld",
        *SHORT,
        "--seeds",
        "1",
        "--worlds",
        "corridor",
        "--algos",
        "ql",
        "--out",
        str(tmp_path),
        "--smoothing",
        "2",
    ]
    assert main([*command, "--no-plots"]) == 0
    assert {file.name for file in tmp_path.iterdir()} == {
        f"{name}.csv" for name in ("results", "summary", "differences", "exact")
    }
    assert pd.read_csv(tmp_path / "summary.csv")[["low", "high"]].isna().all(axis=None)
    assert main(command) == 0 and (tmp_path / "returns.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gamma", "1.5"], "argument --gamma: '1.5' is not a number in [0, 1]"),
        (["--seeds", "0"], "argument --seeds: '0' is not a whole number in [1, inf]"),
        (["--steps", "many"], "argument --steps: 'many' is not a whole number"),
        (["--steps", "500", "--eval-every", "600"], "argument --eval-every: 600 is more than --steps 500"),
        (["--steps", "500", "--eval-every", "200"], "argument --steps: 500 is no multiple of --eval-every 200"),
        (["--worlds", "nowhere"], "argument --worlds: 'nowhere' is neither one of corridor, wide_corridor, square nor a file"),
        (["--worlds", "square", "square"], "argument --worlds: more than one result would be named 'square'"),
        (["--beta-lr", "inf"], "argument --beta-lr: 'inf' is not a number"),
        (["--beta-init", "1e300"], "argument --beta-init: '1e300' is not a number in [0, 1e+100] or inf"),
        (["--beta-max", "1e300"], "argument --beta-max: '1e300' is not a number in [0, 1e+100] or inf"),
        (["--out", __file__], "is not a folder"),
        (["--out", f"{__file__}/out"], f"argument --out: {__file__!r} is not a folder"),
        (["--algos", "ppo"], "invalid choice: 'ppo'"),
        (["--prior-lr", "nan"], "argument --prior-lr: 'nan' is not a number in [0, 1]"),
        (["--extra-actions", "-1"], "argument --extra-actions: '-1' is not a whole number"),
    ],
)
def test_invalid_arguments_are_refused(arguments, message, capsys, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        main(["gridworld", *([] if "--out" in arguments else ["--out", str(tmp_path / "out")]), *arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "grid_map", "message"),
    [("bad", "S..\n...\n", "at least one goal"), ("returns", "S.G\n", "would be named 'returns'")],
)
def test_invalid_map_is_refused_before_any_run(name, grid_map, message, tmp_path, capsys):
    (tmp_path / f"{name}.txt").write_text(grid_map)
    with pytest.raises(SystemExit):
        main(["gridworld", "--worlds", str(tmp_path / f"{name}.txt")])
    assert message in capsys.readouterr().err


def test_help_works_without_rl_zoo3_and_pandas():
    hide = "sys.modules.update(rl_zoo3=None, pandas=None, matplotlib=None)"
    code = f"import sys; {hide}; from sb3_mirl.cli.main import main; main(['gridworld', '--help'])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0 and "usage: sb3-mirl gridworld" in result.stdout
