"""
Scores of many games: normalised by human play, aggregated over games and runs, with bootstrap intervals.

Scores are arrays [..., runs, games]; a run has one seed. Normalised scores are 0 for random play and 1 for a human.

Source of the statistics: Agarwal et al., *Deep Reinforcement Learning at the Edge of the Statistical Precipice*, NeurIPS 2021.
Results agree with their package rliable.
"""

import csv
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib import resources
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

#: Sources of human scores: Mnih et al. 2015, as in the paper's Table 1, or Wang et al. 2016, as in most later papers
CONVENTIONS = ("mnih2015", "wang2016")
#: Confidence level of all intervals
CONFIDENCE = 0.95
#: Resamples of a bootstrap; more in :func:`bootstrap_mean`, where they are cheaper
SAMPLES, SAMPLES_OF_MEANS = 2000, 5000
#: Permutations of a test
SAMPLES_OF_TESTS = 10_000
#: Pairs of runs in a simulation of tests, which bounds its time and memory
MAX_SIMULATED_PAIRS = 10_000_000


class Estimate(NamedTuple):
    """A statistic, [...], and its interval."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


@cache
def _table(name: str) -> dict[str, dict[str, float]]:
    """A file of ``data/``, by game and column. Lines that begin with # state the sources."""
    text = resources.files("sb3_mirl.bench").joinpath("data").joinpath(name).read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {row.pop("game"): {key: float(value) for key, value in row.items()} for row in csv.DictReader(lines)}


def game_name(env: str) -> str:
    """``"Alien"`` for ``"AlienNoFrameskip-v4"`` and ``"ALE/Alien-v5"``; a name without a version stays as it is."""
    return (env.removeprefix("ALE/").rpartition("-v")[0] or env).removesuffix("NoFrameskip")


def reference_scores(game: str) -> dict[str, float]:
    """
    :param game: its name (``"Alien"``) or the id of its environment (``"AlienNoFrameskip-v4"``, ``"ALE/Alien-v5"``)
    :return: raw scores: ``random``, ``human_mnih2015``, ``human_wang2016``, ``dqn_mnih2015``,
        ``dqn_adam_mse_dopamine`` and ``qrdqn_jax_dopamine``
    :raises ValueError: if the game is not one of the paper's 19
    """
    table = _table("atari_scores.csv")
    name = game_name(game)
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
    Table 1 of the paper, normalised with the human scores of ``"mnih2015"``.

    :param algorithm: ``"dqn"``, ``"sql"`` or ``"mirl"``
    :return: by game, as a share of a human's score
    :raises ValueError: if the table does not have the algorithm
    """
    table = _table("paper_table1.csv")
    known = next(iter(table.values()))
    if algorithm not in known:
        raise ValueError(f"algorithm must be one of {', '.join(known)}, got {algorithm!r}")
    return {game: row[algorithm] / 100.0 for game, row in table.items()}


def raw_paper_scores(algorithm: str) -> dict[str, float]:
    """
    Table 1 of the paper, turned back into raw scores.

    :param algorithm: as in :func:`paper_scores`
    :return: by game
    :raises ValueError: if the table does not have the algorithm
    """
    raw = {}
    for game, share in paper_scores(algorithm).items():
        reference = reference_scores(game)
        raw[game] = reference["random"] + share * (reference["human_mnih2015"] - reference["random"])
    return raw


# ---- statistics of scores [..., runs, games] -------------------------------------------------------------------------


def mean(scores: np.ndarray) -> np.ndarray:
    """Mean over games of the mean over runs."""
    return scores.mean(axis=(-2, -1))


def median(scores: np.ndarray) -> np.ndarray:
    """Median over games of the mean over runs."""
    return np.median(scores.mean(axis=-2), axis=-1)


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """Mean of the middle half of all runs of all games; the number cut off at each end is rounded down."""
    ordered = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    cut = ordered.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1)


def optimality_gap(scores: np.ndarray, target: float = 1.0) -> np.ndarray:
    """Mean amount by which runs miss the target; runs above the target count as 0."""
    return target - np.minimum(scores, target).mean(axis=(-2, -1))


def performance_profile(scores: np.ndarray, thresholds: Sequence[float] | np.ndarray) -> np.ndarray:
    """
    Share of the runs of all games with a score above each threshold.

    :param thresholds: [n]
    :return: [..., n]
    """
    return np.stack([(scores > threshold).mean(axis=(-2, -1)) for threshold in thresholds], axis=-1)


def probability_of_improvement(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """
    Probability that a run is better than one of another algorithm at the same game, a tie counting half; mean over games.

    :param scores: [..., runs, games]
    :param others: [..., other runs, games]
    """
    # Run by run: all pairs at once would take too much memory
    better = [((run > others) + 0.5 * (run == others)).sum(axis=-2) for run in np.moveaxis(scores[..., :, None, :], -3, 0)]
    return (sum(better) / (len(better) * others.shape[-2])).mean(axis=-1)


def bootstrap(statistic: Callable[..., np.ndarray], *scores: np.ndarray, samples: int = SAMPLES, seed: int = 0) -> Estimate:
    """
    A statistic with its percentile interval by the stratified bootstrap: the runs of each game are resampled independently,
    the games are fixed. The interval is about other seeds, not about other games.

    With few runs such intervals are too narrow: for two equal algorithms with 3 runs each at one game, the interval of the
    difference of means excludes 0 in a fifth of all cases. :func:`compare` has an exact test.

    :param statistic: one of the above, or any function of arrays [..., runs, games] that keeps the leading axes
    :param scores: its arguments, [runs, games] each, resampled independently
    :param samples: number of resamples
    :param seed: of the resamples
    :return: the statistic, [], and the ends of the interval, which are NaN for a single run
    :raises ValueError: if the scores are not [runs, games] with the same games
    """
    arrays = [np.asarray(array, dtype=np.float64) for array in scores]
    if any(array.ndim != 2 or array.size == 0 or array.shape[1] != arrays[0].shape[1] for array in arrays):
        raise ValueError(f"scores must be [runs, games] with the same games, got shapes {[array.shape for array in arrays]}")
    random = np.random.default_rng(seed)
    resampled = [_resampled(array, samples, random) for array in arrays]
    single = any(len(array) == 1 for array in arrays)
    return _estimate(statistic(*arrays), statistic(*resampled), single)


@cache
def _draws(n: int) -> np.ndarray:
    """How often each of ``n`` values is drawn in each resample, [SAMPLES_OF_MEANS, n]."""
    return np.random.default_rng(0).multinomial(n, np.full(n, 1.0 / n), size=SAMPLES_OF_MEANS).astype(np.float64)


def bootstrap_mean(values: np.ndarray) -> Estimate:
    """
    The mean over runs with its percentile interval, for values of any shape, such as curves. The same runs are drawn for all
    values, and in all calls, so that bands around curves are smooth.

    :param values: [runs, ...]
    :return: the mean, [...], and the ends of the interval, which are NaN for a single run
    """
    values = np.asarray(values, dtype=np.float64)
    resampled = np.tensordot(_draws(len(values)), values, axes=1) / len(values)
    return _estimate(values.mean(axis=0), resampled, single=len(values) == 1)


def over_games(
    statistic: Callable[..., np.ndarray],
    *scores: Sequence[np.ndarray],
    seed: int = 0,
) -> Estimate:
    """
    The mean over games of a statistic of each game, with its interval by the stratified bootstrap. Unlike in
    :func:`bootstrap`, games may have different numbers of runs.

    :param statistic: a function of arrays [..., runs, 1]
    :param scores: its arguments: the scores [runs] of each game
    :param seed: of the resamples
    :return: the mean, [], and the ends of the interval, which are NaN if a game has a single run
    :raises ValueError: if a game has no run, if there is no game, or if the numbers of games differ
    """
    games = _games(*scores)
    random = np.random.default_rng(seed)
    values = np.mean([statistic(*columns) for columns in games], axis=0)
    resampled = np.mean([statistic(*(_resampled(column, SAMPLES, random) for column in columns)) for columns in games], axis=0)
    return _estimate(values, resampled, any(len(column) == 1 for columns in games for column in columns))


class Comparison(NamedTuple):
    """Probability of improvement with its interval, and the p-value of the test whether both algorithms are equal."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: float


def compare(
    scores: Sequence[np.ndarray], others: Sequence[np.ndarray], samples: int = SAMPLES_OF_TESTS, seed: int = 0
) -> Comparison:
    """
    Compare two algorithms with few runs. The scales of the games do not matter.

    :param scores: the scores [runs] of each game
    :param others: those of the other algorithm at the same games, [other runs]
    :param samples: permutations of the test
    :param seed: of resamples and permutations
    :return: :func:`probability_of_improvement` with the interval of :func:`over_games`; and the two-sided p of the permutation
        test, which exchanges runs of the two algorithms within each game. With 3 runs each at one game p is at least 0.1
    :raises ValueError: as :func:`over_games`
    """
    estimate = over_games(probability_of_improvement, scores, others, seed=seed)
    permuted = _permuted(_games(scores, others), samples, np.random.default_rng(seed))
    return _tested(estimate, permuted)


def compare_by_seed(
    scores: Sequence[np.ndarray], others: Sequence[np.ndarray], samples: int = SAMPLES_OF_TESTS, seed: int = 0
) -> Comparison:
    """
    As :func:`compare`, for games with several conditions, such as several settings, that have the same seeds. Runs with one
    seed are resampled and exchanged together: they begin with the same weights in each condition, and are not independent.

    :param scores: the scores of each game, [seeds, conditions]; all conditions of all games weigh the same
    :param others: those of the other algorithm, [other seeds, conditions]
    :param samples: permutations of the test
    :param seed: of resamples and permutations
    :return: as :func:`compare`; the interval is too narrow for few seeds
    :raises ValueError: if the scores are not [seeds, conditions] of the same games and conditions
    """
    shapes = [[np.shape(game) for game in games] for games in (scores, others)]
    pairs = list(zip(*shapes, strict=False))
    if (
        len(shapes[0]) != len(shapes[1])
        or not pairs
        or any(len(ours) != 2 or len(theirs) != 2 or ours[1:] != theirs[1:] or 0 in ours + theirs for ours, theirs in pairs)
    ):
        raise ValueError(f"scores must be [seeds, conditions] of the same games and conditions, got shapes {shapes}")
    random = np.random.default_rng(seed)
    values, resampled, permuted = [], [], []
    for ours, theirs in zip(scores, others, strict=True):
        values.append(probability_of_improvement(ours, theirs))
        drawn = (own[random.integers(len(own), size=(SAMPLES, len(own)))] for own in (ours, theirs))
        resampled.append(probability_of_improvement(*drawn))
        both = np.concatenate([ours, theirs])
        order = random.permuted(np.tile(np.arange(len(both)), (samples, 1)), axis=1)
        permuted.append(probability_of_improvement(both[order[:, : len(ours)]], both[order[:, len(ours) :]]))
    average = partial(np.average, axis=0, weights=[ours[1] for ours, _ in pairs])
    single = any(1 in (ours[0], theirs[0]) for ours, theirs in pairs)
    estimate = _estimate(average(values), average(resampled), single)
    return _tested(estimate, average(permuted))


def _tested(estimate: Estimate, permuted: np.ndarray) -> Comparison:
    """A probability of improvement with the p-value of its permutations, [samples]."""
    # The observed scores count as one permutation. The tolerance 1e-9 is for sums that differ by rounding
    as_far = np.abs(permuted - 0.5) >= np.abs(estimate.value - 0.5) - 1e-9
    return Comparison(*estimate, p=float((1 + as_far.sum()) / (1 + len(permuted))))


def _permuted(games: list[list[np.ndarray]], samples: int, random: np.random.Generator) -> np.ndarray:
    """The probability of improvement after exchanges of runs of the two algorithms within each game, [samples]."""
    permuted = np.zeros(samples)
    for ours, theirs in games:
        pooled = np.concatenate([ours, theirs])[:, 0]
        # The number of runs that each run beats, itself counting half. Pairs within any choice of n runs add n² / 2 wins
        better = (pooled[:, None] > pooled).sum(axis=1) + 0.5 * (pooled[:, None] == pooled).sum(axis=1)
        drawn = random.permuted(np.tile(better, (samples, 1)), axis=1)[:, : len(ours)].sum(axis=1)
        permuted += (drawn - len(ours) ** 2 / 2) / (len(ours) * len(theirs)) / len(games)
    return permuted


def detectable_improvement(
    runs: Sequence[int], other_runs: Sequence[int], power: float = 0.8, level: float = 0.05, seed: int = 0
) -> float:
    """
    The smallest probability of improvement that the test of :func:`compare` detects with the given power: it rejects that both
    algorithms are equal at the given level, and the better one is found to be better.

    The model: scores are normal with the same standard deviation, and those of the better algorithm are shifted by δ standard
    deviations in every game, so that a run of it is better with probability Φ(δ / √2). Ranks decide, so the scores of a game
    may also be any increasing function of such scores. Results are by simulation, with a standard error below 0.01.

    :param runs: the number of runs of each game
    :param other_runs: those of the other algorithm
    :param power: probability of detection, in (level, 1)
    :param level: of the two-sided test
    :param seed: of the simulation
    :return: the probability of improvement; NaN if there are so few runs that no result is significant
    :raises ValueError: as :func:`over_games`, for numbers of runs
    """
    counts = list(zip(runs, other_runs, strict=False))
    if len(runs) != len(other_runs) or not counts or min(map(min, counts)) < 1:
        shown = f"{list(runs)} and {list(other_runs)}"
        raise ValueError(f"runs must be at least 1 of each game, the same games for both algorithms, got {shown}")
    # The order of the games does not matter
    return _detectable(tuple(sorted(counts)), power, level, seed)


@cache
def _detectable(counts: tuple[tuple[int, int], ...], power: float, level: float, seed: int) -> float:
    random = np.random.default_rng(seed)
    # Without ties the distribution under equality depends on the numbers of runs only
    games = [np.split(np.arange(float(ours + theirs))[:, None], [ours]) for ours, theirs in counts]
    distances = np.sort(np.abs(_permuted(games, SAMPLES_OF_TESTS, random) - 0.5))
    # The p of each distance, as in compare
    p = (1 + len(distances) - np.searchsorted(distances, distances - 1e-9)) / (1 + len(distances))
    if not (p < level).any():
        return float("nan")
    needed = 0.5 + float(distances[p < level].min())
    pairs = sum(ours * theirs for ours, theirs in counts)
    experiments = int(np.clip(MAX_SIMULATED_PAIRS // pairs, 500, 5000))
    # Some at a time, for less memory
    sizes = [len(part) for part in np.array_split(np.arange(experiments), 10)]
    shifts = np.concatenate([_shifts_for(needed, counts, size, random) for size in sizes])
    return NormalDist().cdf(float(np.quantile(shifts, power)) / 2**0.5)


def _shifts_for(needed: float, counts: Sequence[tuple[int, int]], size: int, random: np.random.Generator) -> np.ndarray:
    """The smallest shift of our scores with the needed probability of improvement, in each of ``size`` experiments."""
    # The shift from which on our run is better in a pair: their score minus ours
    won_from = [random.normal(size=(size, theirs, 1)) - random.normal(size=(size, 1, ours)) for ours, theirs in counts]
    all_won_from = np.concatenate([game.reshape(size, -1) for game in won_from], axis=1)
    weights = np.concatenate([np.full(ours * theirs, 1.0 / (ours * theirs * len(counts))) for ours, theirs in counts])
    order = np.argsort(all_won_from, axis=1)
    place = (np.cumsum(weights[order], axis=1) < needed - 1e-9).sum(axis=1)
    return all_won_from[np.arange(size), order[np.arange(size), place]]


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """
    p-values adjusted for their number (Holm, 1979): the probability that any true hypothesis is rejected is at most the level,
    however the tests depend on each other.

    :param p: [n]
    :return: [n], at most 1
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)), 1.0)
    return adjusted


def _games(*scores: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """For each game a column of runs [runs, 1] of each argument."""
    columns = [[np.asarray(runs, dtype=np.float64).reshape(-1, 1) for runs in games] for games in scores]
    lengths = [[len(column) for column in games] for games in columns]
    if not lengths[0] or len({len(games) for games in lengths}) > 1 or not all(map(all, lengths)):
        raise ValueError(f"scores must be of the same games, with at least one run of each, got {lengths} runs")
    return [list(games) for games in zip(*columns, strict=True)]


def _resampled(array: np.ndarray, samples: int, random: np.random.Generator) -> np.ndarray:
    """[runs, games] → [samples, runs, games], each game independently."""
    return array[random.integers(len(array), size=(samples, *array.shape)), np.arange(array.shape[1])]


def _estimate(value: np.ndarray, resampled: np.ndarray, single: bool) -> Estimate:
    value = np.asarray(value)
    if single:
        return Estimate(value, np.full_like(value, np.nan), np.full_like(value, np.nan))
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(resampled, [tail, 1.0 - tail], axis=0)
    return Estimate(value, low, high)
