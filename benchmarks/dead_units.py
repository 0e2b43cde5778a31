"""
How many units of the Q-network's last hidden layer are dead in the trained models of ``minatar-actions``?

    python benchmarks/dead_units.py run FOLDER    # FOLDER of `sb3-mirl bench run minatar-actions`, with its models;
                                                  # writes results/dead_units.json, skips finished models
    python benchmarks/dead_units.py report        # the table of docs/results.md

A unit is dead if its output (ReLU) is 0 in all of 1000 states. In these states the model acts by its policy and, with a
probability of 0.1, explores. If all units are dead, Q is the same in every state, no gradient reaches the layers below, and
the agent always chooses the same action.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from acting_in_minatar import ROOT, SUITE, load_model, run, short_name

from sb3_mirl.bench.experiment import prepared_manager
from sb3_mirl.bench.jobs import Job
from sb3_mirl.bench.suites import label

RESULTS = ROOT / "results" / "dead_units.json"
N_STATES, EPSILON = 1000, 0.1


def measure(folder: Path, job: Job) -> dict[str, Any]:
    """
    :param folder: of the benchmark
    :param job: of the suite, finished
    :return: share of dead units, and whether all Q-values are the same in all states
    """
    model = load_model(folder, job)
    model.exploration_rate = EPSILON
    env = prepared_manager(SUITE, job, folder).create_envs(1, eval_env=True)
    env.seed(job.seed)
    model.set_random_seed(job.seed)
    states = [env.reset()]
    while len(states) < N_STATES:
        states.append(env.step(model.predict(states[-1])[0])[0].copy())
    env.close()
    observations, _ = model.policy.obs_to_tensor(np.concatenate(states))
    with th.no_grad():
        features = model.q_net.extract_features(observations, model.q_net.features_extractor)
        hidden = model.q_net.q_net[:-1](features)
        q_values = model.q_net.q_net[-1](hidden)
    return {
        "environment": job.env,
        "algorithm": job.algorithm,
        "seed": job.seed,
        "dead": float((hidden == 0).all(dim=0).float().mean()),
        "constant": bool((q_values == q_values[0]).all()),
    }


def report(path: Path) -> None:
    """
    :param path: of the results
    """
    results = json.loads(path.read_text())
    print(f"| environment | {' | '.join(map(label, SUITE.algorithms))} |\n|---|{'---:|' * len(SUITE.algorithms)}")
    for env in SUITE.steps:
        cells = []
        for algorithm in SUITE.algorithms:
            own = [r for r in results if (r["environment"], r["algorithm"]) == (env, algorithm)]
            constant = sum(r["constant"] for r in own)
            dead = f"{np.mean([r['dead'] for r in own]):.0%}" if own else "–"
            cells.append(f"{dead}, **{constant} of {len(own)}**" if constant else dead)
        if set(cells) != {"–"}:
            print(f"| {short_name(env)} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run")
    runs.add_argument("folder", type=Path)
    runs.add_argument("--jobs", type=int, default=1)
    reports = commands.add_parser("report")
    for command in (runs, reports):
        command.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.command == "run":
        run(measure, "dead", SUITE.algorithms, args.folder, args.results, args.jobs)
    else:
        report(args.results)


if __name__ == "__main__":
    main()
