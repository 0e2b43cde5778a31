"""
The paper's experiment on grid worlds: tabular QL, SQL, SQL_m and MIRL, and the exact solutions.

``args`` in this module is the parsed command line of :func:`sb3_mirl.bench.gridworld_command.parse`.

Source: Grau-Moya, Leibfried and Vrancx, ICLR 2019; settings and evaluation as its reproducers describe them.
"""

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from sb3_mirl.bench.scores import bootstrap_mean
from sb3_mirl.envs.gridworld import MOVES, GridWorld
from sb3_mirl.tabular.learners import TABULAR_ALGORITHMS, TabularLearners, TabularRun, TabularSettings
from sb3_mirl.tabular.solvers import (
    PriorOptimum,
    discounted_visitation,
    mutual_information,
    optimize_prior,
    soft_value_iteration,
)

PRIOR_COLUMNS = [*(f"prior_{name}" for name in MOVES), "prior_useless"]
#: Settings that may have several values; every combination is run
SWEPT = ("extra_actions", "slip_probability", "gamma", "prior_lr", "beta_lr")
#: Learners advanced together; more are not faster, and an evaluation needs memory for each
RUNS_AT_ONCE = 240
#: β of the exact solutions
EXACT_BETAS = np.logspace(-2, 2, 17)
#: Label, Q [S, A] and π [S, A] of a run at its end
RunEnd = tuple[dict[str, Any], np.ndarray, np.ndarray]


def _settings(algorithm: str, args: argparse.Namespace, combination: dict[str, float]) -> TabularSettings:
    """An algorithm's settings for one combination; a prior or β that it does not learn stays fixed."""
    base = TABULAR_ALGORITHMS[algorithm]
    settings = replace(
        base,
        gamma=combination["gamma"],
        exploration=args.exploration,
        q_lr=args.q_lr,
        q_lr_decay=args.q_lr_decay,
        prior_lr=combination["prior_lr"] if base.prior_lr > 0.0 else 0.0,
    )
    if base.beta_init < np.inf:
        settings = replace(settings, beta_init=args.beta_init, beta_lr=combination["beta_lr"], beta_max=args.beta_max)
    return settings


def _jobs(args: argparse.Namespace) -> Iterator[tuple[list[dict[str, Any]], list[TabularRun]]]:
    """Labels and runs of the whole experiment, in portions; the runs of a portion have the same number of actions."""
    for extra_actions in args.extra_actions:
        jobs = []
        for slip, world in itertools.product(args.slip_probability, args.worlds):
            env = GridWorld(args.maps[world], extra_actions=extra_actions, slip_probability=slip)
            for gamma, prior_lr, beta_lr in itertools.product(args.gamma, args.prior_lr, args.beta_lr):
                swept = dict(zip(SWEPT, (extra_actions, slip, gamma, prior_lr, beta_lr), strict=True))
                for algorithm, seed in itertools.product(args.algos, range(args.seeds)):
                    label = {"world": world, "algorithm": algorithm, **swept, "seed": seed}
                    jobs.append((label, TabularRun(env, _settings(algorithm, args, swept), seed)))
        for first in range(0, len(jobs), RUNS_AT_ONCE):
            labels, runs = zip(*jobs[first : first + RUNS_AT_ONCE], strict=True)
            yield list(labels), list(runs)


def run(args: argparse.Namespace) -> tuple[pd.DataFrame, list[RunEnd]]:
    """
    Train and evaluate everything that ``args`` asks for.

    :return: one row per run and evaluation; and the end of every run
    """
    portions = list(_jobs(args))
    evaluated_at = np.arange(0, args.steps + 1, args.eval_every)
    rows: list[pd.DataFrame] = []
    ends = []
    # disable=None: no bar unless the output is a terminal
    disable = None if args.progress else True
    with tqdm(total=len(portions) * args.steps, unit="step", unit_scale=True, disable=disable) as progress:
        for labels, runs in portions:
            learners = TabularLearners(runs)
            for step in evaluated_at:
                steps = int(step) - learners.n_steps
                learners.learn(steps)
                progress.update(steps)
                returns = learners.evaluate(args.eval_episodes, args.eval_steps, args.eval_exploration)
                frame = pd.DataFrame(labels)
                frame["step"], frame["mean_return"] = step, returns.mean(axis=1)
                rows.append(frame.join(pd.DataFrame(by_move(learners.prior), columns=PRIOR_COLUMNS)))
            ends += [(label, learners.q_values(k), learners.policy(k)) for k, label in enumerate(labels)]
    return pd.concat(rows, ignore_index=True), ends


def _area_and_final(results: pd.DataFrame, final: int) -> pd.DataFrame:
    """Per run: the mean return over all evaluations (``area``) and over the last ``final`` of them (``final``)."""
    keys = ["world", "algorithm", *SWEPT, "seed"]
    ordered = results.sort_values("step", kind="stable").groupby(keys, sort=False)["mean_return"]
    return pd.DataFrame({"area": ordered.mean(), "final": ordered.agg(lambda values: values.tail(final).mean())})


def summarize(results: pd.DataFrame, final: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """
    Means with 95% bootstrap intervals over seeds.

    :param results: of :func:`run`
    :param final: evaluations at the end that count as final
    :return: per algorithm and setting; and the paired differences of algorithms, which share the random numbers of a seed
    """
    per_run = _area_and_final(results, final)
    setting = ["world", *SWEPT]
    summary, differences = [], []
    for measure in ("area", "final"):
        for key, values in per_run[measure].groupby(level=[*setting, "algorithm"], sort=False):
            label = dict(zip([*setting, "algorithm"], key, strict=True))
            summary.append({**label, "measure": measure, **_interval(values.to_numpy())})
        for key, values in per_run[measure].groupby(level=setting, sort=False):
            runs = {name: own.droplevel([*setting, "algorithm"]) for name, own in values.groupby("algorithm")}
            label = dict(zip(setting, key, strict=True))
            for first, second in itertools.combinations([name for name in reversed(TABULAR_ALGORITHMS) if name in runs], 2):
                difference = runs[first] - runs[second]  # aligned by seed
                pair = {"algorithm": first, "minus": second, "measure": measure}
                differences.append({**label, **pair, **_interval(difference.to_numpy())})
    return pd.DataFrame(summary), pd.DataFrame(differences)


def _interval(values: np.ndarray) -> dict[str, float]:
    mean, low, high = map(float, bootstrap_mean(values))
    return {"mean": mean, "low": low, "high": high}


def best_return(env: GridWorld) -> float:
    """Mean return of the optimal policy without exploration, from a random start."""
    uniform = np.full(env.reward.shape[1], 1.0 / env.reward.shape[1])
    return float(env.initial_state_distrib @ soft_value_iteration(env.transition, env.reward, 1.0, np.inf, uniform).v)


def optimum(env: GridWorld, args: argparse.Namespace) -> PriorOptimum:
    """The best ρ and its Q, V, π for γ and the β of the last step."""
    last_beta = float(min(args.beta_init + args.beta_lr[0] * args.steps, args.beta_max))
    return optimize_prior(env.transition, env.reward, args.gamma[0], last_beta, env.initial_state_distrib)


def solve_exactly(args: argparse.Namespace) -> pd.DataFrame:
    """
    The exact value Σ ν₀ V by β, with the uniform prior and with the best one; that prior, and its I(S;A).

    :return: one row per world and β, from 0.01 to 100
    """
    rows = []
    gamma, envs = args.gamma[0], {world: make_env(args, world) for world in args.worlds}
    for (world, env), beta in itertools.product(envs.items(), EXACT_BETAS):
        uniform = np.full(env.reward.shape[1], 1.0 / env.reward.shape[1])
        initial = env.initial_state_distrib
        # This tolerance bounds the error of the objective by 1e-3
        tolerance = max(1e-3 * beta * (1.0 - gamma), 1e-9)
        best = optimize_prior(env.transition, env.reward, gamma, beta, initial, tolerance=tolerance)
        visits = discounted_visitation(env.transition, gamma, best.policy, initial)
        values = {
            "value_uniform": float(initial @ soft_value_iteration(env.transition, env.reward, gamma, beta, uniform).v),
            "value_best": best.objective[-1],
            "mutual_information": mutual_information(best.policy, visits),
        }
        rows.append({"world": world, "beta": beta, **values, **dict(zip(PRIOR_COLUMNS, by_move(best.prior), strict=True))})
    return pd.DataFrame(rows)


def by_move(prior: np.ndarray) -> np.ndarray:
    """ρ [..., A] → [..., 5]: the four moves, and the sum of all useless actions."""
    return np.concatenate([prior[..., : len(MOVES)], prior[..., len(MOVES) :].sum(axis=-1, keepdims=True)], axis=-1)


def make_env(args: argparse.Namespace, world: str) -> GridWorld:
    """A world with the first of the swept settings."""
    return GridWorld(args.maps[world], extra_actions=args.extra_actions[0], slip_probability=args.slip_probability[0])
