"""
What do the trained models of the suite ``minatar-actions`` earn if they act by draws from π, and what does ρ do in them?

    python benchmarks/acting_in_minatar.py run FOLDER    # FOLDER of `sb3-mirl bench run minatar-actions`, with its models;
                                                         # writes results/acting_in_minatar.json, skips finished models
    python benchmarks/acting_in_minatar.py report        # the tables of docs/results.md

The scores of the suite are those of argmax π. Here the same models play 30 episodes by draws from π(·|s). The influence of
ρ and the penalty are measured in every tenth state of these episodes; the reward per step is that of these episodes.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from prior_influence import ALGORITHMS, measure
from while_learning import print_verdicts

from sb3_mirl import DrawsFromPolicy
from sb3_mirl.bench.experiment import prepared_manager, register_suite
from sb3_mirl.bench.jobs import Job, stored_jobs
from sb3_mirl.bench.scores import bootstrap_mean, compare, detectable_improvement
from sb3_mirl.bench.suites import SUITES, USELESS_MINATAR_IDS, label
from sb3_mirl.bench.variants import TrainedVariant, Variant, in_processes, write_results
from sb3_mirl.zoo.register import ALGORITHMS as CLASSES
from sb3_mirl.zoo.workarounds import for_playing

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results" / "acting_in_minatar.json"
SUITE = SUITES["minatar-actions"]
#: The algorithm that should be better, and the other one
HYPOTHESES = {"H16": ("mirl", "sql"), "H17": ("mirl", "sql_decoupled")}


class Recorded(DrawsFromPolicy):
    """Keeps Q(s, ·) of every tenth state."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.steps, self.q_values = 0, []

    def predict(self, observation: Any, *args: Any, **kwargs: Any) -> Any:
        if self.steps % 10 == 0:
            self.q_values.append(self.model.policy.q_values(observation))
        self.steps += 1
        return super().predict(observation, *args, **kwargs)


def load_model(folder: Path, job: Job) -> Any:
    """
    Prepare a process for one job of the suite, and load its model.

    :param folder: of the benchmark
    :param job: of the suite, finished
    """
    th.set_num_threads(1)
    register_suite(SUITE)
    (file,) = job.run_folder(folder).glob(f"{job.algorithm}/*/*.zip")
    return for_playing(CLASSES[job.algorithm]).load(file, device="cpu")


def play(folder: Path, job: Job) -> dict[str, Any]:
    """
    :param folder: of the benchmark
    :param job: of the suite, finished
    :return: the result of its model
    """
    model = load_model(folder, job)
    trained = TrainedVariant(Variant(SUITE, job), prepared_manager(SUITE, job, folder), model, None)
    acting = Recorded(model)
    scores = trained.scores(SUITE.episodes, acting)
    result = {"environment": job.env, "algorithm": job.algorithm, "seed": job.seed, "draws": float(np.mean(scores))}
    measured = measure(th.cat(acting.q_values), model.policy.reference_prior, model.policy.beta)
    return {**result, "reward_per_step": float(np.sum(scores)) / acting.steps, **measured}


def run(
    measured: Callable[[Path, Job], dict[str, Any]],
    shown: str,
    algorithms: Sequence[str],
    folder: Path,
    path: Path,
    jobs: int,
) -> None:
    """
    Measure the models that are not in the file of results.

    :param measured: a module-level function: the result of a model, with its environment, algorithm and seed
    :param shown: the number of a result that is printed
    :param algorithms: whose models are measured, in the order of the results
    :param folder: of the benchmark
    :param path: of the results
    :param jobs: processes at once
    """
    results = json.loads(path.read_text()) if path.exists() else []
    done = {(r["environment"], r["algorithm"], r["seed"]) for r in results}
    pending = [job for job in stored_jobs(folder, SUITE) if job.algorithm in algorithms]
    pending = [job for job in pending if (job.env, job.algorithm, job.seed) not in done]
    places = [*SUITE.steps]
    for result in in_processes(partial(measured, folder), pending, jobs):
        results.append(result)
        results.sort(key=lambda r: (places.index(r["environment"]), algorithms.index(r["algorithm"]), r["seed"]))
        write_results(path, results)
        print(f"{result['algorithm']} {result['environment']} seed {result['seed']}: {result[shown]:.2f}", flush=True)


def short_name(env: str) -> str:
    """``Freeway-v1`` of MinAtar/Freeway-v1, and ``Useless12/Freeway-v1`` of Useless12/MinAtar-Freeway-v1."""
    return env.replace("MinAtar/", "").replace("MinAtar-", "")


def interval(values: np.ndarray) -> str:
    """Mean and 95 % bootstrap interval over seeds."""
    return "{:.2f} [{:.2f}, {:.2f}]".format(*bootstrap_mean(values))


def report(path: Path, suite_results: Path) -> None:
    """
    :param path: of the results
    :param suite_results: folder of the suite's results
    """
    results = json.loads(path.read_text())

    def values(env: str, algorithm: str, name: str) -> np.ndarray:
        """[seeds]"""
        return np.array([r[name] for r in results if (r["environment"], r["algorithm"]) == (env, algorithm)])

    print(
        "| environment | algorithm | argmax π | draws from π | ρ changes the choice | β · gap of Q | β | penalty per step "
        "| reward per step |\n|---|---|---:|---:|---:|---:|---:|---:|---:|"
    )
    envs = [env for env in SUITE.steps if any(r["environment"] == env for r in results)]
    for env in envs:
        for algorithm in ALGORITHMS:
            seeds = [r["seed"] for r in results if (r["environment"], r["algorithm"]) == (env, algorithm)]
            argmax = np.array([np.mean(Job(algorithm, env, seed).result(suite_results)["scores"]) for seed in seeds])
            cells = [short_name(env), label(algorithm), interval(argmax)]
            cells.append(interval(values(env, algorithm, "draws")))
            cells.append(f"{values(env, algorithm, 'prior_influence').mean():.0%}")
            cells += [
                f"{values(env, algorithm, name).mean():.2g}" for name in ("value_gap", "beta", "penalty", "reward_per_step")
            ]
            print(f"| {' | '.join(cells)} |")
    useless = [env for env in USELESS_MINATAR_IDS if env in envs]
    tests = {}
    for name, pair in HYPOTHESES.items():
        pairs = [[values(env, who, "draws") for env in useless] for who in pair]
        tests[name] = (f"{' > '.join(map(label, pair))}, draws from π", compare(*pairs))
    print_verdicts(tests)
    counts = [list(map(len, group)) for group in pairs]
    detectable = detectable_improvement(*counts, level=0.05 / len(tests), power=0.8)
    print(f"\n{len(useless)} environments; detectable with a power of 80 %: a probability of improvement of {detectable:.2g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run")
    runs.add_argument("folder", type=Path)
    runs.add_argument("--jobs", type=int, default=1)
    reports = commands.add_parser("report")
    reports.add_argument("--suite-results", type=Path, default=ROOT / "results" / "minatar-actions")
    for command in (runs, reports):
        command.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.command == "run":
        run(play, "draws", ALGORITHMS, args.folder, args.results, args.jobs)
    else:
        report(args.results, args.suite_results)


if __name__ == "__main__":
    main()
