"""The experiment on grid worlds: results equal the learners, summaries equal a hand calculation."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import image

from sb3_mirl.bench import gridworld
from sb3_mirl.cli.main import main
from sb3_mirl.envs.gridworld import CORRIDOR, SQUARE, GridWorld
from sb3_mirl.tabular.learners import TabularLearners, TabularRun, TabularSettings

SHORT = ["--steps", "600", "--eval-every", "200", "--no-progress"]


@pytest.fixture
def few_betas(monkeypatch):
    """The exact solutions take most of the time."""
    monkeypatch.setattr(gridworld, "EXACT_BETAS", np.array([1.0]))


def test_results_equal_the_learners(tmp_path, few_betas):
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


def test_sweep_runs_every_combination(tmp_path):
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


def test_summary_by_hand():
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


def test_best_return_of_the_square():
    assert gridworld.best_return(GridWorld(SQUARE)) == pytest.approx(23 / 6)
