"""
Scores in MinAtar of policies that choose the same action in every state, and the runs of ``minatar-actions`` that do so.

    python benchmarks/constant_actions.py run       # writes results/constant_actions.json; ten minutes of one core
    python benchmarks/constant_actions.py report    # the table of docs/results.md

Each policy plays the 30 episodes with which the suite evaluates the run of a seed. A run whose scores are those of a constant
policy in all episodes has probably learned this policy. Useless actions do nothing, like NOOP.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from acting_in_minatar import ROOT, SUITE, interval
from gymnasium import spaces

from sb3_mirl.bench.experiment import prepared_manager, register_suite
from sb3_mirl.bench.jobs import Job, stored_jobs
from sb3_mirl.bench.suites import label
from sb3_mirl.bench.variants import TrainedVariant, Variant, write_results
from sb3_mirl.common.inputs import find_action_names
from sb3_mirl.zoo.manager import ExperimentManager

RESULTS = ROOT / "results" / "constant_actions.json"
GAMES = [env for env in SUITE.steps if env.startswith("MinAtar/")]


class ConstantPolicy:
    """The parts of an algorithm that an evaluation needs, with one action for all states."""

    def __init__(self, action: int, n_actions: int) -> None:
        self.action, self.action_space = action, spaces.Discrete(n_actions)

    def get_vec_normalize_env(self) -> None:
        return None

    def predict(self, observation: Any, *args: Any, **kwargs: Any) -> tuple[np.ndarray, None]:
        return np.full(len(observation), self.action), None


def game_of(env: str) -> str:
    """``Freeway``, of MinAtar/Freeway-v1 and Useless12/MinAtar-Freeway-v1."""
    return env.removesuffix("-v1").rsplit("/", 1)[-1].removeprefix("MinAtar-")


def action_names(manager: ExperimentManager) -> list[str]:
    """The names of the actions of a manager's environments."""
    env = manager.create_envs(1, eval_env=True)
    try:
        return find_action_names(env, int(env.action_space.n))
    finally:
        env.close()


def run(path: Path, n_seeds: int, episodes: int) -> None:
    """
    :param path: of the results
    :param n_seeds: the suite's seeds 0 to n_seeds - 1
    :param episodes: of each policy and seed
    """
    register_suite(SUITE)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for env in GAMES:
            for seed in range(n_seeds):
                job = Job("dqn_mse", env, seed)
                manager = prepared_manager(SUITE, job, Path(folder))
                actions = action_names(manager)
                for action, name in enumerate(actions):
                    policy = ConstantPolicy(action, len(actions))
                    scores = TrainedVariant(Variant(SUITE, job), manager, policy, None).scores(episodes)
                    results.append({"game": game_of(env), "action": name, "seed": seed, "scores": scores})
            print(f"{game_of(env)}: done", flush=True)
    write_results(path, results)


def report(path: Path, suite_results: Path) -> None:
    """
    :param path: of the results
    :param suite_results: folder of the suite's results
    """
    results = json.loads(path.read_text())
    stored = {job: job.result(suite_results)["scores"] for job in stored_jobs(suite_results, SUITE)}
    print("| game | constant action | score | runs of the suite with the same scores |\n|---|---|---:|---|")
    for game, action in dict.fromkeys((result["game"], result["action"]) for result in results):
        own = [result for result in results if (result["game"], result["action"]) == (game, action)]
        by_seed = {result["seed"]: result["scores"] for result in own}
        equal = [job for job, scores in stored.items() if game_of(job.env) == game and by_seed.get(job.seed) == scores]
        score = np.array([np.mean(scores) for scores in by_seed.values()])
        names = [f"{label(job.algorithm)}{' (12 useless)' if 'Useless' in job.env else ''}, seed {job.seed}" for job in equal]
        if names or score.mean() >= 1.0:
            print(f"| {game} | {action} | {interval(score)} | {'; '.join(names) or '–'} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run")
    runs.add_argument("--seeds", type=int, default=5)
    runs.add_argument("--episodes", type=int, default=SUITE.episodes)
    reports = commands.add_parser("report")
    reports.add_argument("--suite-results", type=Path, default=ROOT / "results" / "minatar-actions")
    for command in (runs, reports):
        command.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.command == "run":
        run(args.results, args.seeds, args.episodes)
    else:
        report(args.results, args.suite_results)


if __name__ == "__main__":
    main()
