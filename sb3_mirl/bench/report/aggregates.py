"""
Rows of statistics over several environments, after Agarwal et al. 2021: aggregates, performance profiles, sample efficiency.

They cover the environments of :func:`~sb3_mirl.bench.report.scales.envs_with_scale`. If these have different numbers of runs,
the smallest number is used in all of them: the runs with the lowest seeds.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from sb3_mirl.bench.report.content import Bench, Row, columns
from sb3_mirl.bench.report.curves import learning_curve
from sb3_mirl.bench.report.scales import ALL, envs_with_scale, groups, matrices, on_scale, scales, useless_actions
from sb3_mirl.bench.scores import bootstrap, interquartile_mean, mean, median, optimality_gap, performance_profile

#: Thresholds of a performance profile, and points of a curve of sample efficiency
THRESHOLDS, STEPS = 101, 25


def statistics(scale: str) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """
    :param scale: one of :func:`sb3_mirl.bench.report.scales.scales`
    :return: statistics of scores [..., runs, envs] by name. The optimality gap is the mean amount by which runs miss the score
        of a human; on the relative scale, whose largest score is 1, it would be 1 − mean
    """
    found: dict[str, Callable[[np.ndarray], np.ndarray]] = {"mean": mean, "median": median, "IQM": interquartile_mean}
    if scale != "relative":
        found["optimality gap"] = optimality_gap
    return found


def aggregate_rows(bench: Bench) -> list[Row]:
    """Each of :func:`statistics` for each algorithm, over each of the :func:`~sb3_mirl.bench.report.scales.groups`."""
    rows = []
    common = envs_with_scale(bench)
    for scale in scales(bench):
        for group, members in groups(bench).items():
            envs = [env for env in members if env in common]
            by_algorithm = matrices(bench, scale, envs)
            for name, statistic in statistics(scale).items():
                for algorithm, scores in by_algorithm.items():
                    row: Row = {"scale": scale, "useless_actions": group, "statistic": name, "algorithm": algorithm}
                    row |= columns(bootstrap(statistic, scores))
                    rows.append(row | {"runs": len(scores), "environments": len(envs)})
    return rows


def useless_action_rows(bench: Bench) -> list[Row]:
    """
    The interquartile mean of each algorithm by the number of useless actions, over the environments in which every algorithm
    has runs with every number, so that the numbers are comparable. No rows if the suite has a single number.
    """
    common, scale = envs_with_scale(bench), scales(bench)[0]
    numbers = {group: [env for env in members if env in common] for group, members in groups(bench).items() if group != ALL}
    # The others have no runs yet
    numbers = {group: members for group, members in numbers.items() if members}
    bases = [{useless_actions(env)[0] for env in members} for members in numbers.values()]
    shared = set.intersection(*bases) if bases else set()
    rows = []
    for number, members in numbers.items():
        envs = [env for env in members if useless_actions(env)[0] in shared]
        for algorithm, scores in matrices(bench, scale, envs).items():
            row: Row = {"scale": scale, "useless_actions": int(number), "algorithm": algorithm}
            row |= columns(bootstrap(interquartile_mean, scores))
            rows.append(row | {"runs": len(scores), "environments": len(envs)})
    return rows


def profile_rows(bench: Bench) -> list[Row]:
    """
    Performance profiles: the share of runs above each of :data:`THRESHOLDS` thresholds on the first scale. These are from 0 to
    1 for relative scores, and from 0 to the larger of 1 and the 95 % quantile of all runs for human-normalised ones.
    """
    envs, scale = envs_with_scale(bench), scales(bench)[0]
    by_algorithm = matrices(bench, scale, envs)
    if not by_algorithm:
        return []
    pooled = np.concatenate([scores.ravel() for scores in by_algorithm.values()])
    thresholds = np.linspace(0.0, 1.0 if scale == "relative" else max(1.0, float(np.quantile(pooled, 0.95))), THRESHOLDS)
    rows = []
    for algorithm, scores in by_algorithm.items():
        shares = zip(*bootstrap(partial(performance_profile, thresholds=thresholds), scores), strict=True)
        for threshold, (value, low, high) in zip(thresholds, shares, strict=True):
            row: Row = {"scale": scale, "algorithm": algorithm, "threshold": float(threshold)}
            row |= {"value": float(value), "low": float(low), "high": float(high)}
            rows.append(row | {"runs": len(scores), "environments": len(envs)})
    return rows


def efficiency_rows(bench: Bench) -> list[Row]:
    """
    Sample efficiency: the interquartile mean over runs and environments of the return while training, at :data:`STEPS` equal
    shares of the training, on the first scale: returns are normalised as scores are, by the range of the scores.

    A run's return at a step is that of the last part of its learning curve with an episode. An algorithm's curve begins where
    each of its runs has one; there is no curve if a run has no episode. ``step`` is missing if environments have different
    numbers of steps. The same runs are drawn for all steps.
    """
    envs, scale, rows = envs_with_scale(bench), scales(bench)[0], []
    totals = {bench.suite.steps[env] for env in envs}
    for algorithm in bench.algorithms:
        if not envs or not bench.runs(algorithm, envs[0]):
            continue
        runs = min(len(bench.runs(algorithm, env)) for env in envs)
        by_env = []
        for env in envs:
            returns = [_carried(result, bench.suite.steps[env]) for result in bench.runs(algorithm, env)[:runs]]
            by_env.append(on_scale(bench, scale, env, np.stack(returns)))
        for k, scores in enumerate(np.moveaxis(np.stack(by_env, axis=-1), 1, 0)):
            if np.isfinite(scores).all():
                row: Row = {"scale": scale, "algorithm": algorithm, "share": (k + 1) / STEPS}
                row |= {"step": (k + 1) * max(totals) // STEPS} if len(totals) == 1 else {}
                row |= columns(bootstrap(interquartile_mean, scores))
                rows.append(row | {"runs": runs, "environments": len(envs)})
    return rows


def _carried(result: dict[str, Any], total: int) -> np.ndarray:
    """The last known return at each of :data:`STEPS` equal parts of a training, [STEPS]; NaN before the first one."""
    steps, returns = learning_curve(result, total)
    grid = np.arange(1, STEPS + 1) * total // STEPS
    # Before the first return the index is -1, which is the appended NaN
    return np.append(returns, np.nan)[np.searchsorted(steps, grid, side="right") - 1]
