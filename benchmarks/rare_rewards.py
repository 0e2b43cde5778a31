"""
Why does MIRL not learn MinAtar's Asterix with the settings of the suite ``minatar-actions``: is β too small, or the learning
rate too large? MIRL with the suite's settings, except for a ``beta_scale`` a hundred times as large, the learning rate of
DQN_mse, or both:

    python benchmarks/rare_rewards.py run       # writes results/rare_rewards.json; settings that are in it are skipped
    python benchmarks/rare_rewards.py report    # the table of docs/results.md

The three runs of a setting are trained jointly. A score is the mean of 30 episodes after the training, without exploration.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from acting_in_minatar import ROOT, interval

from sb3_mirl.bench.jobs import Job
from sb3_mirl.bench.suites import CHOSEN, SUITES, constructor_arguments
from sb3_mirl.bench.variants import Variant, stored_results, train_variants, write_results

ENV = "MinAtar/Asterix-v1"
SEEDS = range(5000, 5003)
_CHOSEN = CHOSEN["minatar-actions"]
LARGER_BETA = {"beta_scale": 100 * _CHOSEN["mirl"]["beta_scale"]}
#: What differs from the suite's settings of MIRL, by name
SETTINGS = {
    "larger β": LARGER_BETA,
    "larger β, smaller learning rate": {**LARGER_BETA, **_CHOSEN["dqn_mse"]},
    "smaller learning rate": _CHOSEN["dqn_mse"],
}


def train(name: str, steps: int) -> list[dict[str, Any]]:
    """
    :param name: of :data:`SETTINGS`
    :param steps: environment steps of each run
    :return: the result of each seed
    """
    own = constructor_arguments("mirl", {**_CHOSEN["mirl"], **SETTINGS[name]}, steps)
    suite = replace(SUITES["minatar-actions"], steps={ENV: steps}, own_hyperparams={"mirl": own})
    trained = train_variants([Variant(suite, Job("mirl", ENV, seed)) for seed in SEEDS])
    results = []
    for run in trained:
        assert run.error is None, run.error
        during = run.model.env.env_method("get_episode_rewards")[0]
        result = {"setting": name, "seed": run.variant.job.seed, "steps": steps}
        result |= {"score": float(np.mean(run.scores(suite.episodes))), "beta": run.model.beta}
        results.append({**result, "last_episodes": float(np.mean(during[-200:]))})
    return results


def run(path: Path, steps: int) -> None:
    """
    :param path: of the results
    :param steps: environment steps of each run
    """
    results = stored_results(path, steps)
    for name in SETTINGS:
        if not any(result["setting"] == name for result in results):
            results += train(name, steps)
            write_results(path, results)
            print(f"{name}: done", flush=True)


def report(path: Path) -> None:
    """
    :param path: of the results
    """
    results = json.loads(path.read_text())
    print("| setting | runs | score | last 200 episodes of the training | β at the end |\n|---|---:|---:|---:|---:|")
    for name in SETTINGS:
        own = [result for result in results if result["setting"] == name]
        if own:
            score, last = (interval(np.array([result[key] for result in own])) for key in ("score", "last_episodes"))
            beta = np.mean([result["beta"] for result in own])
            print(f"| {name} | {len(own)} | {score} | {last} | {beta:.2g} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "report"])
    parser.add_argument("--steps", type=int, default=500_000)
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "rare_rewards.json")
    args = parser.parse_args()
    th.set_num_threads(1)
    if args.command == "run":
        run(args.results, args.steps)
    else:
        report(args.results)


if __name__ == "__main__":
    main()
