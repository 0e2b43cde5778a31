"""
Scores of many games as one number: normalised by human play, aggregated over games and seeds, with intervals.

Arrays of scores are [..., runs, games]: a run of a game is one seed. Normalised scores are shares of a human's, 1 being human.

Source of the statistics: Agarwal et al., *Deep Reinforcement Learning at the Edge of the Statistical Precipice*, NeurIPS 2021;
results are those of their package rliable.
"""

import csv
from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import NamedTuple

import numpy as np

#: Whose human scores: Mnih et al. 2015, as the paper's Table 1 does, or Wang et al. 2016, as most do since
CONVENTIONS = ("mnih2015", "wang2016")


class Estimate(NamedTuple):
    """A statistic, [...], and its interval."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


@cache
def _table(name: str) -> dict[str, dict[str, float]]:
    """A file of ``data/``, by game and column. Lines that begin with # say where its numbers are from."""
    text = resources.files("sb3_mirl.benchmark").joinpath("data").joinpath(name).read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {row.pop("game"): {key: float(value) for key, value in row.items()} for row in csv.DictReader(lines)}


def reference_scores(game: str) -> dict[str, float]:
    """
    :param game: its name (``"Alien"``) or the id of its environment (``"AlienNoFrameskip-v4"``, ``"ALE/Alien-v5"``)
    :return: raw scores: ``random``, ``human_mnih2015``, ``human_wang2016``, ``dqn_mnih2015``,
        ``dqn_adam_mse_dopamine`` and ``qrdqn_jax_dopamine``
    :raises ValueError: if the game is not one of the paper's 19
    """
    table = _table("atari_scores.csv")
    name = game.removeprefix("ALE/").rpartition("-v")[0] or game
    name = name.removesuffix("NoFrameskip")
    if name not in table:
        raise ValueError(f"game must be one of {', '.join(table)}, got {game!r}")
    return dict(table[name])


def human_normalized(game: str, scores: np.ndarray | float, convention: str = "mnih2015") -> np.ndarray:
    """
    (score − random) / (human − random).

    :param game: as in :func:`reference_scores`
    :param scores: raw, any shape
    :param convention: one of :data:`CONVENTIONS`
    :return: the same shape
    :raises ValueError: if the game or the convention is not known
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"convention must be one of {', '.join(CONVENTIONS)}, got {convention!r}")
    reference = reference_scores(game)
    random, human = reference["random"], reference[f"human_{convention}"]
    return (np.asarray(scores, dtype=np.float64) - random) / (human - random)


def paper_scores(algorithm: str) -> dict[str, float]:
    """
    Table 1 of the paper, normalised by ``"mnih2015"``.

    :param algorithm: ``"dqn"``, ``"sql"`` or ``"mirl"``
    :return: by game, as a share of a human's score
    :raises ValueError: if the table does not have the algorithm
    """
    table = _table("paper_table1.csv")
    known = next(iter(table.values()))
    if algorithm not in known:
        raise ValueError(f"algorithm must be one of {', '.join(known)}, got {algorithm!r}")
    return {game: row[algorithm] / 100.0 for game, row in table.items()}


# ---- statistics of scores [..., runs, games] -------------------------------------------------------------------------


def mean(scores: np.ndarray) -> np.ndarray:
    """Mean over games of the mean over runs."""
    return scores.mean(axis=(-2, -1))


def median(scores: np.ndarray) -> np.ndarray:
    """Median over games of the mean over runs."""
    return np.median(scores.mean(axis=-2), axis=-1)


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """Mean of the middle half of all runs of all games; the quarter cut off at each end is rounded down."""
    ordered = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    cut = ordered.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1)


def optimality_gap(scores: np.ndarray, target: float = 1.0) -> np.ndarray:
    """Mean amount by which runs miss the target; what is above it does not make up for others."""
    return target - np.minimum(scores, target).mean(axis=(-2, -1))


def probability_of_improvement(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """
    Probability that a run is better than one of another algorithm at the same game, a tie counting half; mean over games.

    :param scores: [..., runs, games]
    :param others: [..., other runs, games]
    """
    scores, others = scores[..., :, None, :], others[..., None, :, :]
    return ((scores > others) + 0.5 * (scores == others)).mean(axis=(-3, -2, -1))


def bootstrap(
    statistic: Callable[..., np.ndarray], *scores: np.ndarray, confidence: float = 0.95, samples: int = 2000, seed: int = 0
) -> Estimate:
    """
    A statistic with its percentile interval by the stratified bootstrap: runs are drawn anew for each game by itself, games
    are as they are. It speaks of other seeds, not of other games.

    :param statistic: one of those above, or any function of arrays [..., runs, games] that keeps the leading axes
    :param scores: its arguments, [runs, games] each; they are resampled independently
    :param confidence: of the interval, in (0, 1)
    :param samples: number of resamples
    :param seed: of the resamples
    :return: the statistic of the scores, [], and the ends of the interval; these are NaN for a single run, which says nothing
        of the spread
    :raises ValueError: if the scores are not [runs, games], with the same games
    """
    arrays = [np.asarray(array, dtype=np.float64) for array in scores]
    if any(array.ndim != 2 or array.size == 0 or array.shape[1] != arrays[0].shape[1] for array in arrays):
        raise ValueError(f"scores must be [runs, games] with the same games, got shapes {[array.shape for array in arrays]}")
    value = np.asarray(statistic(*arrays))
    if any(len(array) == 1 for array in arrays):
        return Estimate(value, np.full_like(value, np.nan), np.full_like(value, np.nan))
    random = np.random.default_rng(seed)
    resampled = [
        array[random.integers(len(array), size=(samples, *array.shape)), np.arange(array.shape[1])] for array in arrays
    ]
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(statistic(*resampled), [tail, 1.0 - tail], axis=0)
    return Estimate(value, low, high)
