"""
Does a prior that was learned on some goals help to find new ones? Tabular learners on a map with four rooms.

    python benchmarks/four_rooms.py            # writes results/four-rooms/tabular.json and prints the tables
    python benchmarks/four_rooms.py --report   # prints the tables of that file, and draws docs/images/four_rooms.png

The goal differs between tasks. The policy sees goal and position. The prior sees x = the position, and its choice of a skill
sees the goal. First, learners train on several goals, one drawn in each episode. They learn ρ(a|x), and a mixture of K = 4
skills Σ_z ρ(z|goal) ρ(a|z,x). Then each new goal is learned from Q = 0, with these priors or without. ρ(z|goal) is always
learned anew; "frozen" skills are a frozen ρ(a|z,x).

Scores are mean returns of evaluation episodes with ε = 0.05, from a uniform start, at most 100 steps; goals are averaged, and
the 95% bootstrap intervals are over seeds. All learners have γ = 0.99, ε = 0.1 and the learning rate 1, since moves are
deterministic. Step sizes and numbers of steps were chosen with 4 seeds and other new goals. β is either 1, or
i/1000 after i steps: then the prior matters less and less, because βQ grows. Q-learning has no β.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from matplotlib import pyplot as plt

from sb3_mirl.bench.scores import bootstrap_mean
from sb3_mirl.common import colors
from sb3_mirl.envs.gridworld import FOUR_ROOMS_GOALS, FourRooms
from sb3_mirl.tabular.learners import TabularLearners, TabularRun, TabularSettings
from sb3_mirl.tabular.solvers import soft_value_iteration

ROOT = Path(__file__).parent.parent
RESULTS, FIGURE = ROOT / "results" / "four-rooms", ROOT / "docs" / "images" / "four_rooms.png"
#: Learners in the figure, with colour and line
SHOWN = {
    "skills, learned on": (colors.PURPLE, "-"),
    "ρ(a|x), frozen": (colors.GREEN, "-"),
    "ρ(a|x), learned on": (colors.ORANGE, "--"),
    "MIRL, ρ(a)": (colors.VERMILION, "-"),
    "SQL, uniform": (colors.BLUE, "--"),
    "Q-learning": (colors.GRAY, ":"),
}
#: One new goal of each room
NEW_GOALS = ((2, 4), (4, 9), (10, 2), (10, 10))
N_SKILLS = 4
#: α_ρ of priors that see the position, on the training goals and on new ones: each entry sees one step in a hundred
TRAINING_PRIOR_LR, PRIOR_LR = 0.01, 0.02
COMMON = TabularSettings(q_lr_decay=0.0)
SCHEDULES = {
    "β = 1": {"beta_init": 1.0, "beta_lr": 0.0},
    "β = i/1000": {"beta_init": 0.0, "beta_lr": 1e-3},
}
EPISODES, MAX_STEPS, EPSILON = 30, 100, 0.05
#: (transfers its prior, learns it on, has skills) of the learners that see the position
CONDITIONAL = {
    "ρ(a|x), frozen": (True, False, False),
    "ρ(a|x), learned on": (True, True, False),
    "ρ(a|x), from scratch": (False, True, False),
    "skills, frozen": (True, False, True),
    "skills, learned on": (True, True, True),
    "skills, from scratch": (False, True, True),
}
BASELINES: dict[str, dict[str, Any]] = {
    "MIRL, ρ(a)": {},
    "SQL, uniform": {"regularization": "entropy", "prior_lr": 0.0},
    "Q-learning": {"regularization": "entropy", "prior_lr": 0.0, "beta_init": np.inf, "beta_lr": 0.0},
}


class Family:
    """The worlds of several goals as one. The goal of an episode is drawn uniformly and is a part of the state."""

    def __init__(self, goals: tuple[tuple[int, int], ...]) -> None:
        worlds = [FourRooms(goal) for goal in goals]
        n_positions = len(worlds[0].positions)
        self.unwrapped = self
        self.P = {
            k * n_positions + state: {
                action: [(p, k * n_positions + destination, reward, done) for p, destination, reward, done in outcomes]
                for action, outcomes in actions.items()
            }
            for k, world in enumerate(worlds)
            for state, actions in world.P.items()
        }
        self.initial_state_distrib = np.concatenate([world.initial_state_distrib for world in worlds]) / len(worlds)
        self.goal = np.repeat(np.arange(len(worlds)), n_positions)
        self.position = np.tile(np.arange(n_positions), len(worlds))


def learned_priors(common: TabularSettings, seeds: int, steps: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """
    :param common: settings of all learners
    :param seeds: number of seeds
    :param steps: environment steps on the training goals
    :return: for each seed, ρ(a|x) [positions, 4] and ρ(a|z,x) [K, positions, 4]
    """
    family = Family(FOUR_ROOMS_GOALS)
    settings = replace(common, prior_lr=TRAINING_PRIOR_LR)
    groups: dict[str, Any] = {"prior_groups": family.position, "high_groups": family.goal}
    tables = TabularLearners([TabularRun(family, settings, seed, **groups) for seed in range(seeds)]).learn(steps)
    settings = replace(settings, n_skills=N_SKILLS)
    skills = TabularLearners([TabularRun(family, settings, seed, **groups) for seed in range(seeds)]).learn(steps)
    return [tables.prior_table(seed) for seed in range(seeds)], [skills.skills(seed)[1] for seed in range(seeds)]


def curve(runs: list[TabularRun], seeds: int, steps: int, every: int) -> np.ndarray:
    """
    Train the learners of all goals and seeds, and evaluate them.

    :param runs: for each goal, one run of each seed
    :return: mean returns, [seeds, evaluations]
    """
    learners, returns = TabularLearners(runs), []
    for step in range(0, steps + 1, every):
        learners.learn(step - learners.n_steps)
        returns.append(learners.evaluate(EPISODES, MAX_STEPS, EPSILON).mean(axis=1).reshape(-1, seeds).mean(axis=0))
    return np.stack(returns, axis=1)


def run(common: TabularSettings, seeds: int, training_steps: int, steps: int, every: int) -> dict[str, np.ndarray]:
    """
    :param common: settings of all learners
    :param seeds: number of seeds
    :param training_steps: environment steps on the training goals
    :param steps: environment steps on each new goal
    :param every: steps between evaluations
    :return: mean returns of each kind of learner on the new goals, [seeds, evaluations]
    """
    tables, skills = learned_priors(common, seeds, training_steps)
    worlds = [FourRooms(goal) for goal in NEW_GOALS]
    position = np.arange(len(worlds[0].positions))
    returns = {}
    for name, (transfers, learns, has_skills) in CONDITIONAL.items():
        base = replace(common, prior_lr=PRIOR_LR if learns else 0.0)
        if has_skills:
            base = replace(base, n_skills=N_SKILLS, high_lr=PRIOR_LR)
        first = (skills if has_skills else tables) if transfers else [None] * seeds
        settings = [replace(base, prior_init=prior) for prior in first]
        runs = [TabularRun(world, settings[seed], seed, position) for world in worlds for seed in range(seeds)]
        returns[name] = curve(runs, seeds, steps, every)
    for name, changes in BASELINES.items():
        runs = [TabularRun(world, replace(common, **changes), seed) for world in worlds for seed in range(seeds)]
        returns[name] = curve(runs, seeds, steps, every)
    return returns


def best_return() -> float:
    """The mean return of the optimal policies of the new goals, without exploration."""
    values = []
    for world in (FourRooms(goal) for goal in NEW_GOALS):
        v = soft_value_iteration(world.transition, world.reward, 1.0, np.inf, np.full(4, 0.25)).v
        values.append(world.initial_state_distrib @ v)
    return float(np.mean(values))


def escaped(name: str) -> str:
    """For a table in Markdown."""
    return name.replace("|", "\\|")


def draw(results: dict[str, Any], file: Path) -> None:
    """
    :param results: as in the file
    :param file: the image: mean returns on the new goals by steps, with 95% intervals over seeds
    """
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for axis, (schedule, curves) in zip(axes, results["returns"].items(), strict=True):
        for name, (color, line) in SHOWN.items():
            mean, low, high = bootstrap_mean(np.array(curves[name]))
            axis.plot(results["evaluated_at"], mean, color=color, linestyle=line, label=name)
            axis.fill_between(results["evaluated_at"], low, high, color=color, alpha=0.15, linewidth=0)
        axis.set_title(schedule)
        axis.set_xlabel("steps on a new goal")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("mean return")
    axes[1].legend(loc="lower right")
    figure.savefig(file, dpi=120, metadata={"Software": None})


def report(results: dict[str, Any]) -> None:
    """
    Print the tables: the mean return over all evaluations, over the last three, and the differences from MIRL of the same
    seed.

    :param results: as in the file
    """
    for schedule, curves in results["returns"].items():
        returns = {name: np.array(values) for name, values in curves.items()}
        print(
            f"## {schedule}\n\n| learner | during learning | minus MIRL | at the end | minus MIRL |\n|---|---:|---:|---:|---:|"
        )
        for name, values in returns.items():
            cells = []
            for first in (0, -3):
                own, mirl = (v[:, first:].mean(axis=1) for v in (values, returns["MIRL, ρ(a)"]))
                estimates = [bootstrap_mean(numbers) for numbers in (own, own - mirl)]
                cells += [f"{mean:.2f} [{low:.2f}, {high:.2f}]" for mean, low, high in estimates]
            print(f"| {escaped(name)} | " + " | ".join(cells) + " |")
        print("\n| steps | " + " | ".join(map(escaped, returns)) + " |\n|---:|" + "---:|" * len(returns))
        for k, step in enumerate(results["evaluated_at"]):
            print(f"| {step} | " + " | ".join(f"{values[:, k].mean():.1f}" for values in returns.values()) + " |")
        print()
    print(f"The optimal policy without exploration: {results['best_return']:.2f}. {results['seeds']} seeds.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--training-steps", type=int, default=150_000, help="on the training goals")
    parser.add_argument("--steps", type=int, default=6000, help="on each new goal")
    parser.add_argument("--eval-every", type=int, default=250)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--report", action="store_true", help="print and draw finished results")
    args = parser.parse_args()
    if args.report:
        results = json.loads((args.out / "tabular.json").read_text())
        report(results)
        draw(results, FIGURE)
        return
    th.set_num_threads(1)
    begun = time.process_time()
    returns = {
        name: run(replace(COMMON, **schedule), args.seeds, args.training_steps, args.steps, args.eval_every)
        for name, schedule in SCHEDULES.items()
    }
    results = {
        "seeds": args.seeds,
        "training_goals": FOUR_ROOMS_GOALS,
        "new_goals": NEW_GOALS,
        "training_steps": args.training_steps,
        "evaluated_at": list(range(0, args.steps + 1, args.eval_every)),
        "training_prior_lr": TRAINING_PRIOR_LR,
        "prior_lr": PRIOR_LR,
        "n_skills": N_SKILLS,
        "best_return": best_return(),
        "returns": {
            schedule: {name: values.round(3).tolist() for name, values in curves.items()}
            for schedule, curves in returns.items()
        },
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "tabular.json").write_text(json.dumps(results, ensure_ascii=False) + "\n")
    report(results)
    print(f"\n{time.process_time() - begun:.0f} s of one core")


if __name__ == "__main__":
    main()
