"""
The tables of a benchmark's report, from a folder whose jobs may be unfinished.

A run is one training; its score is the mean over the episodes of its evaluation. Intervals are those of
:mod:`sb3_mirl.bench.scores`, NaN for a single run. Each number comes with the number of runs that it is computed from.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import false_discovery_control

from sb3_mirl.bench.jobs import Job, outcomes, read_folder, stored_jobs
from sb3_mirl.bench.scores import (
    CONVENTIONS,
    Estimate,
    bootstrap,
    bootstrap_mean,
    compare,
    human_normalized,
    interquartile_mean,
    mean,
    median,
    over_games,
    reference_scores,
)
from sb3_mirl.bench.suites import LABELS, Suite, label

#: The components of MIRL, step by step: an algorithm and the one that it is compared with
ABLATION = (("sql_m", "sql"), ("mirl", "sql_m"), ("mirl", "sql"))
#: The paper's claim MIRL > SQL > DQN
CLAIMS = (("mirl", "sql"), ("sql", "dqn"), ("mirl", "dqn"))
STATISTICS = {"mean": mean, "median": median, "IQM": interquartile_mean}
#: Significance level of each claim, and of single environments with p adjusted for their number
LEVEL = 0.05
#: Points of a learning curve; results have more, with few episodes each
POINTS = 50
#: Largest number of points of the mean of several curves
MAX_POINTS = 400

Row = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """
    The content of a folder.

    :param suite: as it was started
    :param states: of all jobs that were asked for or have a result, one of :data:`~sb3_mirl.bench.jobs.STATES`
    :param results: of the jobs that are done
    :param reasons: why other jobs have no result, if known
    """

    suite: Suite
    states: dict[Job, str]
    results: dict[Job, dict[str, Any]]
    reasons: dict[Job, str]

    @property
    def algorithms(self) -> list[str]:
        """The algorithms of the jobs, in the order of their labels."""
        names = dict.fromkeys(job.algorithm for job in self.states)
        return [name for name in LABELS if name in names] + [name for name in names if name not in LABELS]

    @property
    def envs(self) -> list[str]:
        """The environments of the jobs, in the suite's order."""
        asked = {job.env for job in self.states}
        return [env for env in self.suite.steps if env in asked]

    @property
    def atari(self) -> bool:
        """Whether all environments are among the paper's games, so that scores can be normalised."""
        try:
            return all(reference_scores(env) for env in self.suite.steps)
        except ValueError:
            return False

    def runs(self, algorithm: str, env: str) -> list[dict[str, Any]]:
        """The results of a pair, by seed."""
        jobs = sorted(job for job in self.results if (job.algorithm, job.env) == (algorithm, env))
        return [self.results[job] for job in jobs]

    def pairs_with_runs(self) -> Iterator[tuple[Row, list[dict[str, Any]]]]:
        """The first columns of a row, and the results, of each pair that has results."""
        for env in self.envs:
            for algorithm in self.algorithms:
                if results := self.runs(algorithm, env):
                    yield {"environment": env, "algorithm": algorithm}, results

    def scores(self, algorithm: str, env: str) -> np.ndarray:
        """The score of each run, [runs]."""
        return np.array([np.mean(result["scores"]) for result in self.runs(algorithm, env)])

    def coverage(self, algorithm: str, env: str) -> Counter[str]:
        """The number of jobs of a pair in each state."""
        return Counter(state for job, state in self.states.items() if (job.algorithm, job.env) == (algorithm, env))

    def common_envs(self) -> list[str]:
        """Environments in which every algorithm with any run has a run, so that all can be compared."""
        started = {job.algorithm for job in self.results}
        return [env for env in self.envs if all(self.runs(algorithm, env) for algorithm in started)] if started else []

    def shared_envs(self, algorithm: str, other: str) -> list[str]:
        """Environments in which both algorithms have runs."""
        return [env for env in self.envs if self.runs(algorithm, env) and self.runs(other, env)]

    def matrix(self, algorithm: str, envs: Sequence[str]) -> np.ndarray:
        """Scores [runs, envs], with the smallest number of runs in any of the environments."""
        columns = [self.scores(algorithm, env) for env in envs]
        return np.stack([column[: min(map(len, columns))] for column in columns], axis=-1)


def read(folder: Path) -> Bench:
    """
    :param folder: of a benchmark
    :return: all readable results, and the reasons why others are not readable
    :raises FolderError: if it is not the folder of a benchmark
    """
    suite, jobs = read_folder(folder)
    found = outcomes(folder, suite, dict.fromkeys([*jobs, *stored_jobs(folder, suite)]))
    return Bench(
        suite,
        states={job: outcome.state for job, outcome in found.items()},
        results={job: outcome.result for job, outcome in found.items() if outcome.result is not None},
        reasons={job: outcome.reason for job, outcome in found.items() if outcome.reason},
    )


def comparability_warnings(bench: Bench) -> list[str]:
    """Why runs of a pair may not be comparable: more steps than asked for, or different hyper-parameters."""
    found = []
    for row, results in bench.pairs_with_runs():
        name, env = label(row["algorithm"]), row["environment"]
        asked, most = bench.suite.steps[env], max(result["steps"] for result in results)
        if most > 1.02 * asked:
            found.append(f"{name} was trained for {most:,} steps on {env}, not {asked:,}: it takes whole rollouts.")
        settings = {json.dumps(result["hyperparameters"], sort_keys=True) for result in results}
        if len(settings) > 1:
            found.append(f"{name} was trained with {len(settings)} sets of hyper-parameters on {env}.")
    return found


def grouped(rows: Iterable[Row], key: str = "algorithm") -> dict[str, list[Row]]:
    """Rows by the value of a column, in order."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return groups


# ---- tables ----------------------------------------------------------------------------------------------------------


def _columns(estimate: Estimate) -> Row:
    return {"value": float(estimate.value), "low": float(estimate.low), "high": float(estimate.high)}


def run_rows(bench: Bench) -> list[Row]:
    """One row for each job, in whatever state."""
    rows = []
    for job, state in bench.states.items():
        row: Row = {"environment": job.env, "algorithm": job.algorithm, "seed": job.seed, "state": state}
        if job in bench.results:
            result = bench.results[job]
            score = float(np.mean(result["scores"]))
            row |= {"score": score, "episodes": len(result["scores"]), "steps": result["steps"]}
            if bench.atari:
                row |= {f"human_{name}": float(human_normalized(job.env, score, name)) for name in CONVENTIONS}
            row["training_seconds"] = result["time"]["training"]
        rows.append({**row, "reason": bench.reasons.get(job, "")})
    return rows


def score_rows(bench: Bench) -> list[Row]:
    """Mean score with its interval for each environment and algorithm, and the numbers of runs by state."""
    rows = []
    for env in bench.envs:
        for algorithm in bench.algorithms:
            scores, coverage = bench.scores(algorithm, env), bench.coverage(algorithm, env)
            row: Row = {"environment": env, "algorithm": algorithm, "runs": len(scores), "asked_for": coverage.total()}
            row |= {state: coverage[state] for state in ("running", "failed", "missing", "unreadable")}
            if len(scores):
                estimate = bootstrap(mean, scores[:, None])
                row |= _columns(estimate)
                for name in CONVENTIONS if bench.atari else ():
                    normalized = _columns(Estimate(*human_normalized(env, np.array(estimate), name)))
                    row |= {f"human_{name}_{key}": number for key, number in normalized.items()}
            rows.append(row)
    return rows


def scales(bench: Bench) -> list[str]:
    """Scales on which scores of different environments are comparable, see :func:`on_scale`."""
    return [f"human_{name}" for name in CONVENTIONS] if bench.atari else ["relative"]


def on_scale(bench: Bench, scale: str, env: str, scores: np.ndarray) -> np.ndarray:
    """
    :param scale: one of :func:`scales`. For Atari, shares of a human's score by either convention; else ``"relative"``, the
        place between the lowest (0) and the highest (1) score of any run in the environment
    :param env: of the scores
    :param scores: raw, any shape
    :return: the same shape
    """
    if scale != "relative":
        return human_normalized(env, scores, scale.removeprefix("human_"))
    pooled = np.concatenate([bench.scores(algorithm, env) for algorithm in bench.algorithms])
    low, span = pooled.min(), np.ptp(pooled)
    # All runs are in the middle if their scores are equal
    return (scores - low) / span if span else np.full_like(scores, 0.5)


def aggregate_rows(bench: Bench) -> list[Row]:
    """Each of :data:`STATISTICS` for each algorithm, over :meth:`Bench.common_envs`."""
    envs = bench.common_envs()
    if not envs:
        return []
    raw = {algorithm: bench.matrix(algorithm, envs) for algorithm in bench.algorithms if bench.runs(algorithm, envs[0])}
    rows = []
    for scale in scales(bench):
        matrices = {
            algorithm: np.stack([on_scale(bench, scale, env, scores[:, k]) for k, env in enumerate(envs)], axis=-1)
            for algorithm, scores in raw.items()
        }
        for name, statistic in STATISTICS.items():
            for algorithm, scores in matrices.items():
                row: Row = {"scale": scale, "statistic": name, "algorithm": algorithm}
                row |= _columns(bootstrap(statistic, scores))
                rows.append(row | {"runs": len(scores), "environments": len(envs)})
    return rows


def improvement_rows(bench: Bench) -> list[Row]:
    """Probability of improvement of MIRL over each other algorithm, and of the pairs of :data:`ABLATION` and `CLAIMS`."""
    with_mirl = (("mirl", name) for name in bench.algorithms if name != "mirl")
    pairs = dict.fromkeys([*with_mirl, *ABLATION, *CLAIMS])
    return [_compared(bench, *pair, envs) for pair in pairs if (envs := bench.shared_envs(*pair))]


def _compared(bench: Bench, algorithm: str, other: str, envs: Sequence[str]) -> Row:
    ours, others = ([bench.scores(name, env) for env in envs] for name in (algorithm, other))
    comparison = compare(ours, others)
    row: Row = {"algorithm": algorithm, "than": other, **_columns(Estimate(*comparison[:3])), "p": comparison.p}
    return row | {"runs": sum(map(len, ours)), "other_runs": sum(map(len, others)), "environments": len(envs)}


def claim_rows(bench: Bench) -> list[Row]:
    """
    A verdict on each of :data:`CLAIMS`, over the environments in which both algorithms have runs.

    The verdict is that of the permutation test of the probability of improvement: ``"holds"`` or ``"the opposite"`` if
    p < :data:`LEVEL`, else ``"open"``. ``better_in``, ``worse_in`` and ``open_in`` are the verdicts on single environments,
    with p adjusted for their number (Benjamini and Hochberg, 1995). The verdict depends neither on the scales of environments
    nor on other runs in the folder. The difference of mean scores, in columns ``mean_...``, does; it is on the first of the
    :func:`scales`, which for Atari is the paper's.
    """
    rows = []
    for algorithm, other in CLAIMS:
        envs = bench.shared_envs(algorithm, other)
        if envs:
            row = _compared(bench, algorithm, other, envs)
            row["verdict"] = {1: "holds", -1: "the opposite", 0: "open"}[_side(row)]
            by_env = [_compared(bench, algorithm, other, [env]) for env in envs]
            adjusted = false_discovery_control([single["p"] for single in by_env])
            sides = {env: _side(single | {"p": p}) for env, single, p in zip(envs, by_env, adjusted, strict=True)}
            for side, name in ((1, "better_in"), (-1, "worse_in"), (0, "open_in")):
                row[name] = " ".join(env for env in envs if sides[env] == side)
            ours, others = (
                [on_scale(bench, scales(bench)[0], env, bench.scores(name, env)) for env in envs]
                for name in (algorithm, other)
            )
            difference = _columns(over_games(_difference, ours, others))
            rows.append(row | {f"mean_{key}": number for key, number in difference.items()})
    return rows


def _side(row: Row) -> int:
    """1 if the probability of improvement is significantly above ½, -1 if below, else 0."""
    return 0 if row["p"] >= LEVEL else 1 if row["value"] > 0.5 else -1


def _difference(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    return mean(scores) - mean(others)


def ablation_rows(bench: Bench) -> list[Row]:
    """Differences of mean scores for each pair of :data:`ABLATION`; for Atari, shares of a human's score, as in the paper."""
    rows = []
    for env in bench.envs:
        for algorithm, other in ABLATION:
            scores = [bench.scores(name, env)[:, None] for name in (algorithm, other)]
            if all(map(len, scores)):
                if bench.atari:
                    scores = [human_normalized(env, raw) for raw in scores]
                row: Row = {"environment": env, "algorithm": algorithm, "minus": other}
                row |= _columns(bootstrap(_difference, *scores))
                rows.append(row | {"runs": len(scores[0]), "other_runs": len(scores[1])})
    return rows


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


def _learning_curve(result: dict[str, Any], total: int) -> tuple[np.ndarray, np.ndarray]:
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
        for row in _band([_learning_curve(result, bench.suite.steps[pair["environment"]]) for result in results])
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


def setting_rows(bench: Bench) -> list[Row]:
    """
    The settings of the runs of each environment and algorithm, and the means of their times. ``process_seconds`` is the sum of
    the training times, each divided by the number of runs that were trained jointly.
    """
    return [
        {
            **pair,
            "runs": len(results),
            "steps": _join(result["steps"] for result in results),
            "episodes": _join(len(result["scores"]) for result in results),
            "epsilon": _join(result["evaluation"]["epsilon"] for result in results),
            "random_actions_from": _join(result["evaluation"]["random actions from"] for result in results),
            "training_seconds": float(np.mean([result["time"]["training"] for result in results])),
            "steps_per_second": float(np.mean([result["time"]["steps_per_second"] for result in results])),
            "trained_jointly": _join(result.get("trained_jointly") or 1 for result in results),
            "process_seconds": sum(result["time"]["training"] / (result.get("trained_jointly") or 1) for result in results),
            "device": _join(result["machine"]["device"] for result in results),
            "hyperparameters_file": _join(result.get("hyperparameters_file") or "" for result in results),
            "tuning": bench.suite.tuning_of(pair["algorithm"]),
        }
        for pair, results in bench.pairs_with_runs()
    ]


def _join(values: Iterable[Any]) -> str:
    """The distinct values; usually there is one."""
    return ", ".join(str(value) for value in dict.fromkeys(values))


def version_rows(bench: Bench) -> list[Row]:
    """Versions of packages, and the number of runs with each."""
    counts = Counter(pair for result in bench.results.values() for pair in result["versions"].items())
    return [{"package": package, "version": version, "runs": count} for (package, version), count in counts.items()]


#: All tables by name
TABLES = {
    "runs": run_rows,
    "scores": score_rows,
    "aggregates": aggregate_rows,
    "improvement": improvement_rows,
    "claims": claim_rows,
    "ablation": ablation_rows,
    "curves": curve_rows,
    "prior": prior_rows,
    "beta": beta_rows,
    "settings": setting_rows,
    "versions": version_rows,
}
