"""
Does a prior that was learned on one MinAtar game help on another? MIRL on two games with all six actions, each with a uniform
first prior and with the prior that MIRL had learned on the other game: the mean over its runs there.

    python benchmarks/prior_transfer.py run         # writes results/prior_transfer.json; finished runs are skipped
    python benchmarks/prior_transfer.py report      # the table of docs/results.md

A score is the mean of 30 episodes after the training, without exploration; the second measure is the mean return of the
episodes during the training. Shared settings are those of the suite ``minatar-actions``, and MIRL's own are not tuned: the
paper's rule for β, and default step sizes, with which ρ forgets its first value in about a twentieth of the training. All
runs of a game and a kind of prior are trained jointly.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch as th

from sb3_mirl.bench.jobs import Job
from sb3_mirl.bench.scores import compare, detectable_improvement
from sb3_mirl.bench.suites import SUITES
from sb3_mirl.bench.variants import Variant, stored_results, train_variants, write_results

RESULTS = Path(__file__).parent.parent / "results" / "prior_transfer.json"
#: Of MIRL
SETTINGS = {"loss": "mse", "beta_schedule": "adaptive", "beta_init": 0.01, "beta_lr": "auto", "prior_lr": "auto"}
#: All six actions
GAMES = ("MinAtar/Seaquest-v0", "MinAtar/SpaceInvaders-v0")
SEEDS = range(5)


def train(game: str, first_prior: list[float] | None, steps: int) -> list[dict[str, Any]]:
    """
    :param game: of :data:`GAMES`
    :param first_prior: ρ at the beginning, [6]; None: uniform
    :param steps: environment steps of each run
    :return: the result of each seed
    """
    begun = time.perf_counter()
    suite = SUITES["minatar-actions"]
    own = {"mirl": {**SETTINGS, "prior_init": first_prior}}
    suite = replace(suite, steps={game: steps}, own_hyperparams=own)
    trained = train_variants([Variant(suite, Job("mirl", game, seed)) for seed in SEEDS])
    seconds, results = round((time.perf_counter() - begun) / len(trained)), []
    for run in trained:
        assert run.error is None, run.error
        during = run.model.env.env_method("get_episode_rewards")[0]
        results.append(
            {
                "game": game,
                "first_prior": first_prior,
                "seed": run.variant.job.seed,
                "steps": steps,
                "score": float(np.mean(run.scores(suite.episodes))),
                "return_during_training": float(np.mean(during)),
                "prior": run.model.prior.tolist(),
                "beta": run.model.beta,
                "seconds": seconds,
            }
        )
    return results


def run(steps: int, path: Path) -> None:
    """
    :param steps: environment steps of each run
    :param path: of the results
    """
    results = stored_results(path, steps)
    for transferred in (False, True):
        for game, other in (GAMES, GAMES[::-1]):
            if any(r["game"] == game and (r["first_prior"] is not None) == transferred for r in results):
                continue
            learned = [r["prior"] for r in results if r["game"] == other and r["first_prior"] is None]
            prior = np.mean(learned, axis=0) if transferred else None
            results += train(game, None if prior is None else (prior / prior.sum()).tolist(), steps)
            write_results(path, results)
            print(f"{game}, {'prior of the other game' if transferred else 'uniform first prior'}: done", flush=True)


def report(path: Path) -> None:
    """
    :param path: of the results
    """
    results = json.loads(path.read_text())
    print("| game | first prior | runs | score | return during training |\n|---|---|---:|---:|---:|")
    by_kind: dict[bool, list[np.ndarray]] = {False: [], True: []}
    for game in GAMES:
        for transferred in (False, True):
            own = [r for r in results if r["game"] == game and (r["first_prior"] is not None) == transferred]
            scores, during = (np.array([r[name] for r in own]) for name in ("score", "return_during_training"))
            by_kind[transferred].append(scores)
            name = "of the other game" if transferred else "uniform"
            numbers = " | ".join(f"{values.mean():.2f} ± {values.std(ddof=1):.2f}" for values in (scores, during))
            print(f"| {game.removeprefix('MinAtar/')} | {name} | {len(own)} | {numbers} |")
    value, low, high, p = compare(by_kind[True], by_kind[False])
    detectable = detectable_improvement(*(list(map(len, by_kind[kind])) for kind in (True, False)), power=0.8)
    print(
        f"\nProbability that a run with the prior of the other game is better: {value:.2f} [{low:.2f}, {high:.2f}], "
        f"p = {p:.2g} (permutation test, two-sided). "
        f"So many runs detect {detectable:.2f} with a power of 80 %."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "report"])
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    th.set_num_threads(1)
    if args.command == "run":
        run(args.steps, args.results)
    else:
        report(args.results)


if __name__ == "__main__":
    main()
