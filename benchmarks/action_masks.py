"""
What action masks give: MIRL, DQN_mse and PPO with masks and without, in two environments in which most actions are invalid or
do nothing in most states.

    python benchmarks/action_masks.py run --jobs 2     # writes results/action_masks.json; finished runs are skipped
    python benchmarks/action_masks.py report           # the table of docs/priors.md

- ``invalid``: sb3-contrib's InvalidActionEnvDiscrete with 60 actions, 50 of them invalid at each step. The observation is the
  one right action, which pays 1; the best return is 100. Without masks invalid actions pay 0, as wrong ones do.
- ``taxi``: Taxi, whose ``info`` says which actions change the state. Without masks all actions are allowed: a move into a wall
  changes nothing, an illegal pick-up or drop-off costs 10.

Scores are mean returns of 30 episodes after the training, without exploration. MIRL and DQN_mse have the same settings, MIRL's
β and ρ their defaults. PPO and MaskablePPO, which is PPO with masks, have SB3's defaults. Nothing is tuned.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium.envs.toy_text.taxi import TaxiEnv
from gymnasium.wrappers import TimeLimit
from sb3_contrib import MaskablePPO
from sb3_contrib.common.envs import InvalidActionEnvDiscrete
from sb3_contrib.common.maskable.evaluation import evaluate_policy
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import set_random_seed

from sb3_mirl import DQNMSE, MIRL, ActionMaskInfo
from sb3_mirl.bench.scores import bootstrap_mean, compare
from sb3_mirl.bench.variants import in_processes, stored_results, write_results

RESULTS = Path(__file__).parent.parent / "results" / "action_masks.json"
SEEDS = range(10)
EPISODES, EVALUATION_SEED = 30, 1_000_000
STEPS = {"invalid": 5_000, "taxi": 30_000}
SETTINGS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "learning_starts": 500,
    "buffer_size": 30_000,
    "train_freq": 4,
    "gradient_steps": 2,
    "target_update_interval": 500,
    "exploration_fraction": 0.3,
    "loss": "mse",
}
ALGORITHMS = ("mirl", "dqn_mse", "ppo")
NAMES = {"mirl": "MIRL", "dqn_mse": "DQN_mse", "ppo": "PPO"}


class WithoutMasks(gym.Wrapper):
    """Hides ``action_masks()``."""

    def get_wrapper_attr(self, name: str) -> Any:
        """That of the environment, but for the masks."""
        if name == "action_masks":
            raise AttributeError(name)
        return super().get_wrapper_attr(name)

    def has_wrapper_attr(self, name: str) -> bool:
        """Whether the environment has an attribute; the masks count as missing."""
        return name != "action_masks" and super().has_wrapper_attr(name)


def make_env(env: str, masked: bool) -> Callable[[], gym.Env]:
    """
    :param env: of :data:`STEPS`
    :param masked: whether the environment has masks
    :return: makes the environment
    """

    def make() -> gym.Env:
        made: gym.Env = TimeLimit(TaxiEnv(), 200) if env == "taxi" else InvalidActionEnvDiscrete(60, 100, 50)
        info_key = "action_mask" if env == "taxi" else None
        return ActionMaskInfo(made, info_key=info_key) if masked else WithoutMasks(made)

    return make


def train(task: tuple[str, str, bool, int, int]) -> dict[str, Any]:
    """
    :param task: environment, algorithm, whether there are masks, seed and environment steps
    :return: the result
    """
    env, algorithm, masked, seed, steps = task
    th.set_num_threads(1)
    # MIRL's settings of β and ρ are defaults
    classes: dict[str, Any] = {"mirl": MIRL, "dqn_mse": DQNMSE, "ppo": MaskablePPO if masked else PPO}
    settings = {} if algorithm == "ppo" else SETTINGS
    # sb3-contrib's environment draws masks with NumPy's global generator, which the seed of a model sets
    model = classes[algorithm](
        "MlpPolicy", make_vec_env(make_env(env, masked), 1, seed=seed), seed=seed, device="cpu", **settings
    )
    model.learn(steps)
    set_random_seed(EVALUATION_SEED + seed)
    evaluation_env = make_vec_env(make_env(env, masked), 1, seed=EVALUATION_SEED + seed)
    score, _ = evaluate_policy(model, evaluation_env, EPISODES, deterministic=True, use_masking=masked)
    return {"environment": env, "algorithm": algorithm, "masks": masked, "seed": seed, "steps": steps, "score": float(score)}


def run(path: Path, steps: int | None, jobs: int) -> None:
    """
    :param path: of the results
    :param steps: environment steps of each run, None for :data:`STEPS`
    :param jobs: processes at once
    """
    results = stored_results(path, steps or STEPS)
    finished = {(r["environment"], r["algorithm"], r["masks"], r["seed"]) for r in results}
    arms = [(algorithm, masks) for algorithm in ALGORITHMS for masks in (True, False)]
    runs = [(env, *arm, seed) for env in STEPS for seed in SEEDS for arm in arms]
    tasks = [(*one, steps or STEPS[one[0]]) for one in runs if one not in finished]
    for result in in_processes(train, tasks, jobs):
        results.append(result)
        results.sort(key=lambda r: (r["environment"], ALGORITHMS.index(r["algorithm"]), not r["masks"], r["seed"]))
        write_results(path, results)
        print(result, flush=True)


def report(path: Path) -> str:
    """
    :param path: of the results
    :return: a table in Markdown; p is that of the permutation test, two-sided
    """
    results = json.loads(path.read_text())
    lines = [
        "| environment | algorithm | runs | with masks | without | probability that masks are better | p |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for env in STEPS:
        for algorithm in ALGORITHMS:
            own = [r for r in results if (r["environment"], r["algorithm"]) == (env, algorithm)]
            scores = [np.array([r["score"] for r in own if r["masks"] is masks]) for masks in (True, False)]
            if not all(map(len, scores)):
                continue
            cells = [f"{e.value:.1f} [{e.low:.1f}, {e.high:.1f}]" for e in map(bootstrap_mean, scores)]
            found = compare([scores[0]], [scores[1]])
            better = f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}] | {found.p:.2g}"
            lines.append(f"| {env} | {NAMES[algorithm]} | {len(scores[0])} | {' | '.join(cells)} | {better} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "report"])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.command == "run":
        run(args.results, args.steps, args.jobs)
    else:
        print(report(args.results))


if __name__ == "__main__":
    main()
