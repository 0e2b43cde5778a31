"""``sb3-mirl gridworld``: its results are those of the learners, its intervals those of a hand calculation."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib import image

from sb3_mirl.bench import gridworld
from sb3_mirl.cli.main import main
from sb3_mirl.envs.gridworld import CORRIDOR, SQUARE, GridWorld
from sb3_mirl.tabular.solvers import TABULAR_ALGORITHMS, TabularLearners, TabularRun, TabularSettings

SHORT = ["--steps", "600", "--eval-every", "200", "--no-progress"]


@pytest.fixture
def few_betas(monkeypatch):
    """Of the exact solutions, which take most of the time."""
    monkeypatch.setattr(gridworld, "EXACT_BETAS", np.array([1.0]))


def test_everything_that_the_command_writes(tmp_path, capsys, monkeypatch):
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


def test_the_results_are_those_of_the_learners(tmp_path, few_betas):
    command = ["gridworld", *SHORT, "--seeds", "2", "--worlds", "square", "--algos", "ql", "mirl", "--no-plots"]
    numbers = ["--gamma", "0.9", "--prior-lr", "0.01", "--beta-lr", "0.1", "--beta-max", "5", "--exploration", "0.3"]
    numbers += [
        "--q-lr",
        "0.5",
        "--q-lr-decay",
        "0.1",
        "--extra-actions",
        "2",
        "--slip-probability",
        "0.1",
        "--beta-init",
        "1",
    ]
    evaluation = ["--eval-episodes", "7", "--eval-steps", "20", "--eval-exploration", "0.2"]
    assert main([*command, *numbers, *evaluation, "--out", str(tmp_path)]) == 0
    env = GridWorld(SQUARE, extra_actions=2, slip_probability=0.1)
    common = {"gamma": 0.9, "exploration": 0.3, "q_lr": 0.5, "q_lr_decay": 0.1}
    mirl = TabularSettings(prior_lr=0.01, beta_init=1.0, beta_lr=0.1, beta_max=5.0, **common)
    ql = TabularSettings(regularization="entropy", prior_lr=0.0, beta_init=np.inf, beta_lr=0.0, **common)
    results = pd.read_csv(tmp_path / "results.csv")
    for name, settings in {"ql": ql, "mirl": mirl}.items():
        learners = TabularLearners([TabularRun(env, settings, seed=1)])
        rows = results[(results.algorithm == name) & (results.seed == 1)].set_index("step")
        for step in (0, 200, 400, 600):
            learners.learn(step - learners.n_steps)
            assert learners.evaluate(7, 20, 0.2).mean() == pytest.approx(rows.mean_return[step], abs=1e-12)
            assert learners.prior[0, 1] == pytest.approx(rows.prior_RIGHT[step], abs=1e-12)
            assert learners.prior[0, 4:].sum() == pytest.approx(rows.prior_useless[step], abs=1e-12)


def test_a_sweep_runs_every_combination_and_draws_the_ablation(tmp_path):
    command = ["gridworld", *SHORT, "--seeds", "2", "--worlds", "corridor", "--out", str(tmp_path)]
    assert main([*command, "--extra-actions", "0", "3", "--gamma", "0.9", "0.99", "--prior-lr", "1e-2", "1e-3", "1e-4"]) == 0
    assert image.imread(tmp_path / "ablation.png").std() > 0.05
    assert not (tmp_path / "returns.png").exists()
    results = pd.read_csv(tmp_path / "results.csv")
    assert len(results.groupby(["extra_actions", "gamma", "prior_lr", "algorithm", "seed"])) == 2 * 2 * 3 * 4 * 2
    env, step = GridWorld(CORRIDOR, extra_actions=3), results[results.step == 600]
    for gamma, prior_lr in ((0.9, 1e-4), (0.99, 1e-3)):
        learners = TabularLearners([TabularRun(env, TabularSettings(gamma=gamma, prior_lr=prior_lr), seed=1)]).learn(600)
        chosen = (step.gamma == gamma) & (step.prior_lr == prior_lr) & (step.extra_actions == 3) & (step.seed == 1)
        row = step[chosen & (step.algorithm == "mirl")].iloc[0]
        assert row.prior_useless == pytest.approx(learners.prior[0, 4:].sum(), abs=1e-12)
        assert row.prior_RIGHT == pytest.approx(learners.prior[0, 1], abs=1e-12)
    # What does not learn a prior does not depend on its learning rate
    last = results[
        (results.algorithm == "sql") & (results.step == 600) & (results.gamma == 0.9) & (results.extra_actions == 0)
    ]
    assert last.groupby("seed").mean_return.nunique().tolist() == [1, 1]


def frame(returns):
    """Results of runs whose evaluations are given: {(algorithm, extra_actions, seed): returns}."""
    fixed = {"world": "square", "slip_probability": 0.0, "gamma": 0.9, "prior_lr": 0.1, "beta_lr": 0.1}
    return pd.DataFrame(
        {**fixed, "algorithm": algorithm, "extra_actions": extra, "seed": seed, "step": step, "mean_return": value}
        for (algorithm, extra, seed), values in returns.items()
        for step, value in enumerate(values)
    )


def test_summary_of_numbers_made_up():
    # An order of rows that no sorting leaves alone
    returns = {("mirl", 4, 1): [0, 6, 8], ("mirl", 4, 0): [0, 4, 6], ("ql", 4, 0): [0, 2, 2], ("ql", 4, 1): [0, 2, 3]}
    returns |= {("mirl", 0, 0): [1, 1, 1], ("mirl", 0, 1): [1, 1, 1], ("ql", 0, 0): [9, 9, 9], ("ql", 0, 1): [9, 9, 9]}
    summary, differences = gridworld.summarize(frame(returns), final=2)
    means = summary.set_index(["algorithm", "extra_actions", "measure"])["mean"]
    assert means["mirl", 4, "area"] == pytest.approx((14 / 3 + 10 / 3) / 2)
    assert means["mirl", 4, "final"] == pytest.approx((7 + 5) / 2)
    assert means["ql", 4, "final"] == pytest.approx((2 + 2.5) / 2)
    assert means["mirl", 0, "final"] == 1 and means["ql", 0, "final"] == 9
    assert (differences.algorithm == "mirl").all() and (differences.minus == "ql").all()
    by_setting = differences.set_index(["extra_actions", "measure"])
    assert by_setting.loc[(0, "final")][["mean", "low", "high"]].tolist() == [-8, -8, -8]
    # Seed 0: 5 - 2, seed 1: 7 - 2.5; resamples of two are as often one or the other alone as both
    assert by_setting.loc[(4, "final")][["mean", "low", "high"]].tolist() == pytest.approx([3.75, 3.0, 4.5])


def test_bootstrap_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(50, 400))  # 400 experiments of 50 values whose mean is 0
    low, high = gridworld.bootstrap_interval(samples)
    covered = ((low <= 0) & (0 <= high)).mean()
    assert 0.90 < covered < 0.98  # 0.95 give or take 3.6 standard errors, less what the percentile bootstrap lacks at n = 50
    assert (high - low).mean() == pytest.approx(2 * 1.96 / np.sqrt(50), rel=0.1)


def test_a_map_from_a_file(tmp_path, few_betas, capsys):
    file, out = tmp_path / "$ha\x1bll{$.txt", tmp_path / "out"
    file.write_text("#####\n#S.G#\n#####\n")
    assert main(["gridworld", *SHORT, "--seeds", "2", "--worlds", str(file), "--out", str(out)]) == 0
    assert (out / "$ha\x1bll{$.png").exists()  # the title is no formula
    assert all(line.isprintable() for line in capsys.readouterr().out.split("\n"))


def test_without_plots_and_with_one_seed(tmp_path, few_betas):
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


def test_best_return_of_the_square():
    assert gridworld.best_return(GridWorld(SQUARE)) == pytest.approx(23 / 6)


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
        (["--out", __file__], "is not a folder"),
        (["--algos", "ppo"], "invalid choice: 'ppo'"),
        (["--prior-lr", "nan"], "argument --prior-lr: 'nan' is not a number in [0, 1]"),
        (["--extra-actions", "-1"], "argument --extra-actions: '-1' is not a whole number"),
    ],
)
def test_bad_arguments(arguments, message, capsys, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        main(["gridworld", *([] if "--out" in arguments else ["--out", str(tmp_path / "out")]), *arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "grid_map", "message"),
    [("bad", "S..\n...\n", "at least one goal"), ("returns", "S.G\n", "would be named 'returns'")],
)
def test_a_bad_file_is_named_before_any_run(name, grid_map, message, tmp_path, capsys):
    (tmp_path / f"{name}.txt").write_text(grid_map)
    with pytest.raises(SystemExit):
        main(["gridworld", "--worlds", str(tmp_path / f"{name}.txt")])
    assert message in capsys.readouterr().err


def test_the_command_needs_no_rl_zoo3():
    code = "import sys; sys.modules['rl_zoo3'] = None; from sb3_mirl.cli.main import main; main(['gridworld', '--help'])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0 and "usage: sb3-mirl gridworld" in result.stdout


def test_algorithms_of_the_command_are_the_tabular_ones():
    assert list(gridworld.LABELS) == list(TABULAR_ALGORITHMS) == list(gridworld.COLORS)
