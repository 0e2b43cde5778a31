"""
How fast the tabular learners and the exact solver are: learner-steps per second by number of runs, and the time of
``soft_value_iteration`` by number of states.

    python benchmarks/tabular_speed.py
"""

import argparse
import time

import numpy as np
import torch as th

from sb3_mirl.envs.gridworld import CORRIDOR, SQUARE, WIDE_CORRIDOR, GridWorld
from sb3_mirl.tabular.learners import TABULAR_ALGORITHMS, TabularLearners, TabularRun
from sb3_mirl.tabular.solvers import soft_value_iteration


def learner_speed(seeds: int, slip: float, steps: int) -> tuple[int, float]:
    """Number of runs of the paper's experiment, and learner-steps per second of all of them together, without evaluations."""
    worlds = [GridWorld(grid_map, slip_probability=slip) for grid_map in (CORRIDOR, WIDE_CORRIDOR, SQUARE)]
    runs = [
        TabularRun(env, settings, seed) for env in worlds for settings in TABULAR_ALGORITHMS.values() for seed in range(seeds)
    ]
    learners = TabularLearners(runs).learn(steps // 10)
    start = time.perf_counter()
    learners.learn(steps)
    return len(runs), len(runs) * steps / (time.perf_counter() - start)


def solver_time(n_states: int, gamma: float, beta: float) -> float:
    """Seconds of one call on a random dense MDP of 8 actions, to 1e-10."""
    rng = np.random.default_rng(0)
    transition = rng.dirichlet(np.full(n_states, 0.1), (n_states, 8))
    reward, prior = rng.normal(size=(n_states, 8)), np.full(8, 1 / 8)
    start = time.perf_counter()
    soft_value_iteration(transition, reward, gamma, beta, prior)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="medians are printed")
    parser.add_argument("--steps", type=int, default=4000, help="steps of every learner that are timed")
    parser.add_argument("--max-states", type=int, default=2000)
    args = parser.parse_args()
    th.set_num_threads(1)

    print("| runs at once | slip | learner-steps per second |\n|---:|---:|---:|")
    for slip in (0.0, 0.1):
        for seeds in (1, 10, 50):
            repeats = [learner_speed(seeds, slip, args.steps) for _ in range(args.repeats)]
            print(f"| {repeats[0][0]} | {slip} | {np.median([speed for _, speed in repeats]):,.0f} |")
    print("\n| states | γ | β | soft_value_iteration, seconds |\n|---:|---:|---:|---:|")
    for n_states in (n for n in (100, 300, 1000, 2000) if n <= args.max_states):
        for gamma, beta in ((0.99, 1.0), (0.99, np.inf), (0.9999, 1.0)):
            seconds = np.median([solver_time(n_states, gamma, beta) for _ in range(args.repeats)])
            print(f"| {n_states} | {gamma} | {beta:g} | {seconds:.3f} |")


if __name__ == "__main__":
    main()
