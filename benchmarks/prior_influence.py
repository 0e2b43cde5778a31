"""
Why do results with useless actions come out as they do? How much ρ, and how much Q, decides what an agent does during its
training, and what the penalty costs, in the environments of the suite ``classic-actions`` with 0 and 63 useless actions:

    python benchmarks/prior_influence.py run         # writes results/prior_influence.json; finished runs are skipped
    python benchmarks/prior_influence.py report      # the tables of docs/results.md

Settings, seeds and results of the runs are those of the suite: :class:`~sb3_mirl.PriorInfluenceCallback` changes nothing. All
runs of an environment are trained jointly.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch as th

from sb3_mirl import PriorInfluenceCallback
from sb3_mirl.bench.jobs import Job
from sb3_mirl.bench.suites import CLASSIC_IDS, SUITES, USELESS63_IDS, label, with_steps
from sb3_mirl.bench.variants import Variant, run_environments, train_variants
from sb3_mirl.mirl.callbacks import prior_influence
from sb3_mirl.mirl.operators import kl_divergence, soft_policy

RESULTS = Path(__file__).parent.parent / "results" / "prior_influence.json"
ALGORITHMS = ("sql", "sql_decoupled", "sql_m", "mirl")
#: Without MountainCar, which no run of the suite learns
ENVS = tuple(env for env in (*CLASSIC_IDS, *USELESS63_IDS) if "MountainCar" not in env)
SEEDS = range(2)
MEASUREMENTS = 10


class Recorder(PriorInfluenceCallback):
    """Keeps what it logs; and the penalty KL(π‖ρ)/β of a step, the mean over the same states."""

    def __init__(self, log_freq: int) -> None:
        super().__init__(log_freq=log_freq)
        self.history: list[dict[str, float]] = []

    def record(self, q_values: th.Tensor) -> None:
        self.history.append({"step": self.num_timesteps, **measure(q_values, self.model.policy.reference_prior, self.beta)})


def measure(q_values: th.Tensor, prior: th.Tensor, beta: th.Tensor) -> dict[str, float]:
    """
    :param q_values: Q(s, ·) of several states, [n_states, n_actions]
    :param prior: that π follows, [n_actions]
    :param beta: β, []
    :return: by name, what :func:`~sb3_mirl.mirl.callbacks.prior_influence` returns, β, and the mean of the penalty KL(π‖ρ)/β
    """
    changed, gap, prior_range = prior_influence(q_values, prior, beta)
    penalty = kl_divergence(soft_policy(q_values.double(), prior, beta), prior).mean() / beta
    values = {"prior_influence": changed, "value_gap": gap, "prior_range": prior_range, "beta": beta, "penalty": penalty}
    return {name: value.item() for name, value in values.items()}


def train(task: tuple[str, int]) -> list[dict[str, Any]]:
    """
    :param task: an environment of the suite, and the steps of each run
    :return: the history of each run
    """
    env, steps = task
    th.set_num_threads(1)
    suite = with_steps(SUITES["classic-actions"], steps)
    variants = [Variant(suite, Job(algorithm, env, seed)) for algorithm in ALGORITHMS for seed in SEEDS]
    recorders = [Recorder(suite.steps[env] // MEASUREMENTS) for _ in variants]
    errors = [run.error for run in train_variants(variants, recorders)]
    assert errors == [None] * len(variants), errors
    return [
        {"environment": env, "algorithm": job.algorithm, "seed": job.seed, "steps": steps, "history": recorder.history}
        for (_, job), recorder in zip(variants, recorders, strict=True)
    ]


def place(result: dict[str, Any]) -> tuple[str, int, int]:
    """Where a result stands in the file."""
    return result["environment"], ALGORITHMS.index(result["algorithm"]), result["seed"]


def report(path: Path) -> str:
    """
    :param path: of the results
    :return: a table in Markdown; numbers are means over runs, of the first and second half of the training
    """
    results = json.loads(path.read_text())
    columns = ("prior_influence", "value_gap", "prior_range", "beta", "penalty")
    lines = [
        "| environment | algorithm | ρ changes the choice | β · gap of Q | range of log ρ | β | penalty per step |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for env in ENVS:
        for algorithm in ALGORITHMS if any(r["environment"] == env for r in results) else ():
            own = [r["history"] for r in results if (r["environment"], r["algorithm"]) == (env, algorithm)]
            cells = []
            for column in columns:
                # [runs, measurements]
                values = np.array([[entry[column] for entry in history] for history in own])
                halves = [half.mean() for half in np.array_split(values, 2, axis=1)]
                cells.append(", ".join(f"{half:.0%}" if column == "prior_influence" else f"{half:.2g}" for half in halves))
            lines.append(f"| {env} | {label(algorithm)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "report"])
    parser.add_argument("--steps", type=int, default=50_000, help="of the suite unless given")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.command == "run":
        run_environments(args.results, ENVS, args.steps, train, args.jobs, place)
    else:
        print(report(args.results))


if __name__ == "__main__":
    main()
