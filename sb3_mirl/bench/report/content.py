"""
The content of a benchmark's folder, whose jobs may be unfinished.

A run is one training; its score is the mean over the episodes of its evaluation.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sb3_mirl.bench.jobs import Job, outcomes, read_folder
from sb3_mirl.bench.scores import Estimate, game_name, reference_scores
from sb3_mirl.bench.suites import LABELS, Suite, label

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

    @cached_property
    def algorithms(self) -> list[str]:
        """The algorithms of the jobs, in the order of their labels."""
        names = dict.fromkeys(job.algorithm for job in self.states)
        return [name for name in LABELS if name in names] + [name for name in names if name not in LABELS]

    @cached_property
    def envs(self) -> list[str]:
        """The environments of the jobs, in the suite's order."""
        asked = {job.env for job in self.states}
        return [env for env in self.suite.steps if env in asked]

    @cached_property
    def atari(self) -> bool:
        """Whether all environments are among the paper's games, so that scores can be normalised."""
        try:
            return all(reference_scores(env) for env in self.suite.steps)
        except ValueError:
            return False

    def name(self, env: str) -> str:
        """The name of an environment on the page."""
        return game_name(env) if self.atari else env

    @cached_property
    def _runs(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for job in sorted(self.results):
            runs.setdefault((job.algorithm, job.env), []).append(self.results[job])
        return runs

    @cached_property
    def _scores(self) -> dict[tuple[str, str], np.ndarray]:
        return {pair: np.array([np.mean(result["scores"]) for result in results]) for pair, results in self._runs.items()}

    def runs(self, algorithm: str, env: str) -> list[dict[str, Any]]:
        """The results of an algorithm in an environment, sorted by seed."""
        return self._runs.get((algorithm, env), [])

    def pairs_with_runs(self) -> Iterator[tuple[Row, list[dict[str, Any]]]]:
        """For each environment and algorithm with results: the first columns of a row, and the results."""
        for env in self.envs:
            for algorithm in self.algorithms:
                if results := self.runs(algorithm, env):
                    yield {"environment": env, "algorithm": algorithm}, results

    def scores(self, algorithm: str, env: str) -> np.ndarray:
        """The score of each run, [runs]."""
        return self._scores.get((algorithm, env), np.zeros(0))

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
    found = outcomes(folder, suite, jobs)
    return Bench(
        suite,
        states={job: outcome.state for job, outcome in found.items()},
        results={job: outcome.result for job, outcome in found.items() if outcome.result is not None},
        reasons={job: outcome.reason for job, outcome in found.items() if outcome.reason},
    )


def comparability_warnings(bench: Bench) -> list[str]:
    """Why runs of one algorithm in one environment may not be comparable: too many steps, or different hyper-parameters."""
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


def grouped(rows: Iterable[Row], key: str = "algorithm") -> dict[Any, list[Row]]:
    """Rows by the value of a column, in order."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return groups


def columns(estimate: Estimate) -> Row:
    """``value``, ``low`` and ``high`` of a single number."""
    return {"value": float(estimate.value), "low": float(estimate.low), "high": float(estimate.high)}
