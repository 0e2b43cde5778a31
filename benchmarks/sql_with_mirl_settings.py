"""
Is MIRL better than SQL with the same settings? Trains SQL on ``classic-actions`` with MIRL's tuned learning rate and β.

    python benchmarks/sql_with_mirl_settings.py run       # writes results/sql_with_mirl_settings.json
    python benchmarks/sql_with_mirl_settings.py report    # the tables of docs/results.md

Two trials of SQL's tuning have the same mean rank, and the first one was taken. The other one has the settings of the trial
that was chosen for MIRL and for SQL_m. With it the three algorithms differ in ρ only. All else is as in the suite, whose runs
of MIRL and SQL_m are compared with these.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch as th

from sb3_mirl.bench.jobs import Job
from sb3_mirl.bench.report.content import read
from sb3_mirl.bench.report.scales import useless_actions
from sb3_mirl.bench.scores import bootstrap_mean, compare
from sb3_mirl.bench.suites import SUITES, label
from sb3_mirl.bench.variants import Variant, run_environments, train_variants

ROOT = Path(__file__).parent.parent
SUITE = SUITES["classic-actions"]
#: What SQL has of MIRL's settings: all but α_ρ
SETTINGS = {name: value for name, value in SUITE.own_hyperparams["mirl"].items() if name != "prior_lr"}


def train(task: tuple[str, int]) -> list[dict[str, Any]]:
    """
    :param task: an environment, and the steps of each run
    :return: the result of each run
    """
    th.set_num_threads(1)
    env, steps = task
    suite = replace(SUITE, steps={env: steps}, own_hyperparams={"sql": SETTINGS})
    runs = train_variants([Variant(suite, Job("sql", env, seed)) for seed in range(SUITE.seeds)])
    results = []
    for run in runs:
        assert run.error is None, run.error
        result = {"environment": env, "seed": run.variant.job.seed, "steps": steps}
        results.append({**result, "scores": run.scores(suite.episodes)})
    return results


def report(path: Path) -> None:
    """
    Print the comparisons with the suite's runs, by the number of useless actions, and the mean scores.

    :param path: of the results
    """
    bench, results = read(ROOT / "results" / SUITE.name), json.loads(path.read_text())
    envs = [env for env in SUITE.steps if any(result["environment"] == env for result in results)]
    sql = {env: np.array([np.mean(r["scores"]) for r in results if r["environment"] == env]) for env in envs}
    numbers = sorted({useless_actions(env)[1] for env in envs})
    print("| useless actions | | probability of improvement | p |\n|---|---|---:|---:|")
    for number in (None, *numbers):
        members = [env for env in envs if number in (None, useless_actions(env)[1])]
        for algorithm in ("mirl", "sql_m"):
            ours = [bench.scores(algorithm, env) for env in members]
            value, low, high, p = compare(ours, [sql[env] for env in members])
            name = "any" if number is None else number
            print(f"| {name} | {label(algorithm)} > SQL | {value:.2f} [{low:.2f}, {high:.2f}] | {p:.2g} |")
    print("\n| environment | SQL, own settings | SQL, MIRL's settings | SQL_m | MIRL |\n|---|---:|---:|---:|---:|")
    for env in envs:
        columns = [bench.scores("sql", env), sql[env], bench.scores("sql_m", env), bench.scores("mirl", env)]
        estimates = map(bootstrap_mean, columns)
        cells = " | ".join(f"{one.value:.1f} [{one.low:.1f}, {one.high:.1f}]" for one in estimates)
        print(f"| {env} | {cells} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "report"])
    parser.add_argument("--envs", nargs="+", default=[*SUITE.steps])
    parser.add_argument("--steps", type=int, default=50_000, help="of the suite unless given")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "sql_with_mirl_settings.json")
    args = parser.parse_args()
    if args.command == "run":
        run_environments(args.results, args.envs, args.steps, train, args.jobs)
    else:
        report(args.results)


if __name__ == "__main__":
    main()
