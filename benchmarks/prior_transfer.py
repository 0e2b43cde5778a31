"""
Does a prior that was learned on one MinAtar game help on another? MIRL on two games with all six actions, each with a uniform
first prior and with the prior that MIRL had learned on the other game: the mean over its runs there.

    python benchmarks/prior_transfer.py run         # writes results/prior_transfer.json; what is in it is skipped
    python benchmarks/prior_transfer.py report      # the table of docs/results.md

A score is the mean of 30 episodes after the training with ε = 0.05; the second measure is the mean return of the episodes
during the training. The network and the shared settings are those of the suite ``minatar-actions``. All runs of a game and a
kind of prior are trained jointly. MIRL has its default step sizes: ρ forgets its first value in about a twentieth of the
training.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_mirl import MIRL, train_jointly
from sb3_mirl.bench.scores import compare
from sb3_mirl.envs.minatar import MinAtarCNN, MinAtarWrapper

RESULTS = Path(__file__).parent.parent / "results" / "prior_transfer.json"
#: All six actions
GAMES = ("MinAtar/Seaquest-v0", "MinAtar/SpaceInvaders-v0")
SEEDS = range(5)
EPISODES, EPSILON, EVALUATION_SEED = 30, 0.05, 1_000_000
SETTINGS: dict[str, Any] = {
    "learning_rate": 2.5e-4,
    "batch_size": 32,
    "buffer_size": 100_000,
    "learning_starts": 5000,
    "target_update_interval": 1000,
    "train_freq": 4,
    "exploration_fraction": 0.1,
    "exploration_final_eps": 0.1,
    "loss": "mse",
    "policy_kwargs": {"features_extractor_class": MinAtarCNN, "net_arch": [128]},
    "compile_update": True,
    "device": "cpu",
}


def make_env(game: str) -> gym.Env:
    return Monitor(TimeLimit(MinAtarWrapper(gym.make(game)), max_episode_steps=10_000))


def train(game: str, first_prior: list[float] | None, steps: int) -> list[dict[str, Any]]:
    """
    :param game: of :data:`GAMES`
    :param first_prior: ρ at the beginning, [6]; None: uniform
    :param steps: environment steps of each run
    :return: the result of each seed
    """
    begun = time.perf_counter()
    models = [MIRL("MlpPolicy", make_env(game), seed=seed, prior_init=first_prior, **SETTINGS) for seed in SEEDS]
    errors = train_jointly(models, steps)
    assert errors == [None] * len(models), errors
    seconds = round((time.perf_counter() - begun) / len(models))
    results = []
    for model in models:
        monitor = model.get_env().envs[0]
        during = monitor.get_wrapper_attr("get_episode_rewards")()
        model.exploration_rate = EPSILON
        np.random.seed(EVALUATION_SEED + model.seed)
        env = make_env(game)
        env.reset(seed=EVALUATION_SEED + model.seed)
        score, _ = evaluate_policy(model, env, EPISODES, deterministic=False)
        results.append(
            {
                "game": game,
                "first_prior": first_prior,
                "seed": model.seed,
                "steps": steps,
                "score": float(score),
                "return_during_training": float(np.mean(during)),
                "prior": model.prior.tolist(),
                "beta": model.beta,
                "seconds": seconds,
            }
        )
    return results


def run(steps: int, path: Path) -> None:
    """
    :param steps: environment steps of each run
    :param path: of the results
    """
    results = json.loads(path.read_text()) if path.exists() else []
    if other := {result["steps"] for result in results} - {steps}:
        raise ValueError(f"{path} has runs of {other.pop()} steps, not {steps}: choose another --results")
    for transferred in (False, True):
        for game, other in (GAMES, GAMES[::-1]):
            if any(r["game"] == game and (r["first_prior"] is not None) == transferred for r in results):
                continue
            learned = [r["prior"] for r in results if r["game"] == other and r["first_prior"] is None]
            prior = np.mean(learned, axis=0) if transferred else None
            results += train(game, None if prior is None else (prior / prior.sum()).tolist(), steps)
            path.write_text(json.dumps(results, indent=1) + "\n")
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
    print(
        f"\nProbability that a run with the prior of the other game is better: {value:.2f} [{low:.2f}, {high:.2f}], "
        f"p = {p:.2g} (permutation test, two-sided)."
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
