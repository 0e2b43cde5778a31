"""
The tables of a benchmark's report, from a folder whose jobs may be unfinished.

Intervals are those of :mod:`sb3_mirl.bench.scores`, NaN for a single run. Each number comes with the number of runs that it is
computed from.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from sb3_mirl.bench.report.aggregates import aggregate_rows, efficiency_rows, profile_rows, useless_action_rows
from sb3_mirl.bench.report.claims import ablation_rows, claim_rows, improvement_rows, trend_rows
from sb3_mirl.bench.report.content import Bench, Row, columns
from sb3_mirl.bench.report.curves import beta_rows, curve_rows, prior_rows
from sb3_mirl.bench.scores import CONVENTIONS, Estimate, bootstrap, human_normalized, mean


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
                row |= columns(estimate)
                for name in CONVENTIONS if bench.atari else ():
                    normalized = columns(Estimate(*human_normalized(env, np.array(estimate), name)))
                    row |= {f"human_{name}_{key}": number for key, number in normalized.items()}
            rows.append(row)
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
    "useless_actions": useless_action_rows,
    "aggregates": aggregate_rows,
    "profiles": profile_rows,
    "efficiency": efficiency_rows,
    "improvement": improvement_rows,
    "claims": claim_rows,
    "trends": trend_rows,
    "ablation": ablation_rows,
    "curves": curve_rows,
    "prior": prior_rows,
    "beta": beta_rows,
    "settings": setting_rows,
    "versions": version_rows,
}
