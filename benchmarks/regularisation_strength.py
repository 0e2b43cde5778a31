"""
What does the penalty KL(π‖ρ)/β cost, with a uniform ρ (SQL) and a learned one (MIRL), by β and the number of useless actions?

    python benchmarks/regularisation_strength.py exact     # grid worlds; draws docs/images/strength_exact.png
    python benchmarks/regularisation_strength.py run       # networks; writes results/regularisation_strength.json
    python benchmarks/regularisation_strength.py report    # the tables of docs/results.md; draws docs/images/strength.png

β is held fixed. Each agent acts in two ways: by draws from π(·|s), and by argmax π(·|s).

The grid worlds are solved exactly, with γ = 0.99: for SQL by soft value iteration, for MIRL with the best ρ. Returns are the
discounted ones of the policies, without the penalty, from a uniform start.

The networks have the shared settings of the suite ``classic-actions``, the learning rate 3e-4, and MIRL's α_ρ is 1e-4. Nothing
is tuned. Seeds are 2000 to 2004, which nothing else uses; a score is the mean of 30 episodes. All runs of an environment are
trained jointly; finished runs are skipped.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from matplotlib import pyplot as plt

from sb3_mirl import DrawsFromPolicy
from sb3_mirl.bench.jobs import Job
from sb3_mirl.bench.scores import bootstrap_mean, compare_by_seed
from sb3_mirl.bench.suites import SUITES, label
from sb3_mirl.bench.variants import Variant, run_environments, train_variants
from sb3_mirl.common import colors
from sb3_mirl.envs.gridworld import CORRIDOR, SQUARE, GridWorld
from sb3_mirl.tabular.solvers import evaluate_policy, optimize_prior, soft_value_iteration

ROOT = Path(__file__).parent.parent
RESULTS, IMAGES = ROOT / "results" / "regularisation_strength.json", ROOT / "docs" / "images"
GAMMA = 0.99
WORLDS = {"corridor": CORRIDOR, "square": SQUARE}
N_USELESS = (0, 15, 63)
EXACT_BETAS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
ENVS = ("CartPole-v1", "Useless15/CartPole-v1", "Useless63/CartPole-v1", "Acrobot-v1", "Useless15/Acrobot-v1")
BETAS = (1.0, 3.0, 10.0, 30.0)
SEEDS = range(2000, 2005)
PRIOR_LR = 1e-4
#: Arguments of all algorithms beside those of the suite
SHARED: dict[str, Any] = {"learning_rate": 3e-4, "loss": "mse", "compile_update": True}
#: Ways to act
ACTING = {"draws": "draws from π", "argmax": "argmax π"}
#: Colour-blind safe; of the numbers of useless actions, and of the algorithms
COLORS = {
    0: colors.BLUE,
    15: colors.ORANGE,
    63: colors.GREEN,
    "sql": colors.BLUE,
    "mirl": colors.VERMILION,
    "dqn_mse": colors.GRAY,
}


def solve(world: str, n_useless: int, beta: float) -> dict[str, dict[str, float]]:
    """
    :param world: of :data:`WORLDS`
    :param n_useless: number of useless actions
    :param beta: β
    :return: for each algorithm the return of each way to act
    """
    env = GridWorld(WORLDS[world], extra_actions=n_useless)
    n_actions, initial = env.reward.shape[1], env.initial_state_distrib
    arguments = (env.transition, env.reward, GAMMA)
    # This tolerance bounds the error of the objective by 1e-3
    best = optimize_prior(*arguments, beta, initial, tolerance=max(1e-3 * beta * (1.0 - GAMMA), 1e-9))
    uniform = soft_value_iteration(*arguments, beta, np.full(n_actions, 1.0 / n_actions))
    returns = {}
    for name, policy in (("sql", uniform.policy), ("mirl", best.policy)):
        greedy = np.eye(n_actions)[policy.argmax(axis=1)]
        ways = {"draws": policy, "argmax": greedy}
        returns[name] = {way: float(initial @ evaluate_policy(*arguments, pi)[1]) for way, pi in ways.items()}
    return returns


def exact(image: Path) -> None:
    """
    Print the exact returns, and draw those of draws from π.

    :param image: to be written
    """
    ways = [(name, way) for way in ACTING for name in ("sql", "mirl")]
    print("| world | useless actions | β | " + " | ".join(f"{label(name)}, {ACTING[way]}" for name, way in ways) + " |")
    print("|---|---:|---:|" + "---:|" * len(ways))
    figure, axes = plt.subplots(1, len(WORLDS), figsize=(8, 3.4), layout="constrained")
    for axis, world in zip(axes, WORLDS, strict=True):
        for n_useless in N_USELESS:
            returns = [solve(world, n_useless, beta) for beta in EXACT_BETAS]
            for beta, own in zip(EXACT_BETAS, returns, strict=True):
                print(f"| {world} | {n_useless} | {beta:g} | " + " | ".join(f"{own[a][w]:.2f}" for a, w in ways) + " |")
            for name, line in (("sql", "--"), ("mirl", "-")):
                values = [own[name]["draws"] for own in returns]
                axis.plot(EXACT_BETAS, values, line, color=COLORS[n_useless], label=f"{label(name)}, {n_useless} useless")
        axis.set(xscale="log", xlabel="β, 1/reward", title=world)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("return of draws from π")
    axes[-1].legend(fontsize="small")
    figure.savefig(image, dpi=120, metadata={"Software": None})


def with_fixed(beta: float) -> dict[str, Any]:
    """:data:`SHARED`, and β held fixed."""
    return {**SHARED, "beta_schedule": "linear", "beta_init": beta, "beta_lr": 0.0, "beta_max": beta}


def variants_of(env: str, steps: int) -> list[tuple[float | None, Variant]]:
    """
    :param env: of the suite
    :param steps: environment steps of each run
    :return: β, and the run; DQN has no β
    """
    suite = SUITES["classic-actions"]
    suite = replace(suite, steps={env: steps})
    settings: list[tuple[str, float | None, dict[str, Any]]] = [("dqn_mse", None, SHARED)]
    for beta in BETAS:
        settings += [("sql", beta, with_fixed(beta)), ("mirl", beta, {**with_fixed(beta), "prior_lr": PRIOR_LR})]
    return [
        (beta, Variant(replace(suite, own_hyperparams={algorithm: own}), Job(algorithm, env, seed)))
        for algorithm, beta, own in settings
        for seed in SEEDS
    ]


def train(task: tuple[str, int]) -> list[dict[str, Any]]:
    """
    :param task: an environment, and the steps of each run
    :return: the result of each run
    """
    th.set_num_threads(1)
    betas, variants = zip(*variants_of(*task), strict=True)
    results = []
    for beta, run in zip(betas, train_variants(variants), strict=True):
        assert run.error is None, run.error
        suite, job = run.variant
        result = {"environment": job.env, "algorithm": job.algorithm, "seed": job.seed, "beta": beta}
        result["steps"] = suite.steps[job.env]
        result["argmax"] = float(np.mean(run.scores(suite.episodes)))
        if beta is not None:
            result["draws"] = float(np.mean(run.scores(suite.episodes, DrawsFromPolicy(run.model))))
            result["prior"] = run.model.policy.reference_prior.tolist()
        results.append(result)
    return results


def scores(results: list[dict[str, Any]], env: str, algorithm: str, beta: float | None, way: str) -> np.ndarray:
    """The scores of all seeds, [seeds]."""
    wanted = (env, algorithm, beta)
    return np.array([r[way] for r in results if (r["environment"], r["algorithm"], r["beta"]) == wanted])


def report(path: Path, image: Path) -> None:
    """
    Print the mean scores, and the probability that MIRL is better than SQL; draw the former.

    :param path: of the results
    :param image: to be written
    """
    results = json.loads(path.read_text())
    envs = [env for env in ENVS if any(r["environment"] == env for r in results)]
    ways = [(name, way) for way in ACTING for name in ("sql", "mirl")]
    print("| environment | β | " + " | ".join(f"{label(name)}, {ACTING[way]}" for name, way in ways) + " | DQN_mse |")
    print("|---|---:|" + "---:|" * (len(ways) + 1))
    for env in envs:
        dqn = interval(scores(results, env, "dqn_mse", None, "argmax"))
        for beta in BETAS:
            cells = [interval(scores(results, env, name, beta, way)) for name, way in ways]
            print(f"| {env} | {beta:g} | " + " | ".join(cells) + f" | {dqn} |")
    print("\n| environments | acting | probability that MIRL is better than SQL | p |\n|---|---|---:|---:|")
    for with_useless in (True, False):
        group = [env for env in envs if env.startswith("Useless") == with_useless]
        for way, name in ACTING.items() if group else ():
            mirl, sql = (
                [np.stack([scores(results, env, who, beta, way) for beta in BETAS], axis=1) for env in group]
                for who in ("mirl", "sql")
            )
            value, low, high, p = compare_by_seed(mirl, sql)
            kind = "with" if with_useless else "without"
            print(f"| {kind} useless actions | {name} | {value:.2f} [{low:.2f}, {high:.2f}] | {p:.2g} |")
    draw(results, envs, image)


def interval(values: np.ndarray) -> str:
    """Mean and 95 % bootstrap interval over seeds."""
    mean, low, high = bootstrap_mean(values)
    return f"{mean:.0f} [{low:.0f}, {high:.0f}]"


def draw(results: list[dict[str, Any]], envs: list[str], image: Path) -> None:
    """Mean scores by β, one panel for each environment."""
    figure, axes = plt.subplots(1, len(envs), figsize=(3 * len(envs), 3.2), layout="constrained", squeeze=False)
    for axis, env in zip(axes[0], envs, strict=True):
        for name in ("sql", "mirl"):
            for way, line in (("draws", "-"), ("argmax", ":")):
                values = np.stack([scores(results, env, name, beta, way) for beta in BETAS], axis=1)
                mean, low, high = bootstrap_mean(values)
                axis.plot(BETAS, mean, line, color=COLORS[name], label=f"{label(name)}, {ACTING[way]}")
                if way == "draws":
                    axis.fill_between(BETAS, low, high, color=COLORS[name], alpha=0.15, linewidth=0)
        dqn = scores(results, env, "dqn_mse", None, "argmax").mean()
        axis.axhline(dqn, color=COLORS["dqn_mse"], linewidth=1, label="DQN_mse")
        axis.set(xscale="log", xlabel="β, 1/reward", title=env)
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("mean return of 30 episodes")
    axes[0, -1].legend(fontsize="small")
    figure.savefig(image, dpi=120, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["exact", "run", "report"])
    parser.add_argument("--envs", nargs="+", default=[*ENVS])
    parser.add_argument("--steps", type=int, default=50_000, help="of the suite unless given")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--images", type=Path, default=IMAGES, help="folder of the figures")
    args = parser.parse_args()
    if args.command == "exact":
        exact(args.images / "strength_exact.png")
    elif args.command == "run":
        run_environments(args.results, args.envs, args.steps, train, args.jobs)
    else:
        report(args.results, args.images / "strength.png")


if __name__ == "__main__":
    main()
