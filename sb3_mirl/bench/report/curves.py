"""Rows of what changes during a training, for each environment and algorithm: return, β and ρ."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sb3_mirl.bench.report.content import Bench, Row
from sb3_mirl.bench.scores import bootstrap_mean

#: Points of a learning curve; results have more, with few episodes each
POINTS = 50
#: Largest number of points of the mean of several curves
MAX_POINTS = 400


def _band(series: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[Row]:
    """
    The mean of several runs' curves with its interval, at each step of any curve after all have begun. Curves are interpolated
    linearly, and constant after their last point.

    :param series: steps and values of each run
    """
    series = [(steps, values) for steps, values in series if len(steps)]
    if not series:
        return []
    grid = np.unique(np.concatenate([steps for steps, _ in series]))
    grid = grid[grid >= max(steps[0] for steps, _ in series)]
    if len(grid) > MAX_POINTS:  # if the runs have different steps
        grid = grid[np.linspace(0, len(grid) - 1, MAX_POINTS).astype(int)]
    values = np.stack([np.interp(grid, *curve) for curve in series])
    return [{"step": int(step), **row} for step, row in zip(grid, _mean_rows(values), strict=True)]


def _mean_rows(values: np.ndarray) -> list[Row]:
    """Of values [runs, n], a row for each of the n means over runs."""
    columns = zip(*(part.tolist() for part in bootstrap_mean(values)), strict=True)
    return [{"value": value, "low": low, "high": high, "runs": len(values)} for value, low, high in columns]


def learning_curve(result: dict[str, Any], total: int) -> tuple[np.ndarray, np.ndarray]:
    """The last steps of :data:`POINTS` equal parts of a training, and the mean return of the episodes that ended in each."""
    steps, returns, episodes = (np.array(result["curve"][key], dtype=float) for key in ("step", "return", "episodes"))
    part = np.clip(np.ceil(steps * POINTS / total).astype(int) - 1, 0, POINTS - 1)
    count = np.bincount(part, episodes, minlength=POINTS)
    returns = np.bincount(part, episodes * returns, minlength=POINTS)
    ends = np.arange(1, POINTS + 1) * total // POINTS
    return ends[count > 0], returns[count > 0] / count[count > 0]


def curve_rows(bench: Bench) -> list[Row]:
    """Return over the training, for each environment and algorithm."""
    return [
        {**pair, **row}
        for pair, results in bench.pairs_with_runs()
        for row in _band([learning_curve(result, bench.suite.steps[pair["environment"]]) for result in results])
    ]


def beta_rows(bench: Bench) -> list[Row]:
    """β over the training, for each environment and each algorithm that has a β."""
    rows = []
    for pair, results in bench.pairs_with_runs():
        histories = [result["history"] for result in results if result.get("history")]
        series = [(np.array(history["step"]), np.array(history["beta"])) for history in histories]
        rows += [{**pair, **row} for row in _band(series)]
    return rows


def prior_rows(bench: Bench) -> list[Row]:
    """ρ at the end of the training, for each environment, each algorithm that has a ρ, and each action."""
    rows = []
    for pair, results in bench.pairs_with_runs():
        results = [result for result in results if result.get("prior")]
        if results:
            priors = np.array([result["prior"] for result in results])
            names = next(filter(None, (result.get("action_names") for result in results)), None)
            names = names or [f"action {action}" for action in range(priors.shape[1])]
            actions = enumerate(zip(names, _mean_rows(priors), strict=True))
            rows += [{**pair, "action": action, "name": name, **row} for action, (name, row) in actions]
    return rows
