"""
Draws ``docs/images/prior_by_action.png``, the figure of the front page: what MIRL learns in the paper's square with four more
actions that do nothing. Left the policy; in the middle ρ by action during the training of ten seeds; right what the penalty
costs with a uniform and with the best ρ, computed exactly.

    python benchmarks/prior_figure.py     # about a minute
"""

import argparse
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from sb3_mirl.envs.gridworld import MOVES, SQUARE, GridWorld
from sb3_mirl.tabular.learners import TABULAR_ALGORITHMS, TabularLearners, TabularRun
from sb3_mirl.tabular.solvers import optimize_prior, soft_value_iteration

FIGURE = Path(__file__).parent.parent / "docs" / "images" / "prior_by_action.png"
GAMMA, EXTRA_ACTIONS = 0.99, 4
BETAS = np.logspace(-1.5, 2, 29)
#: Of Okabe and Ito, which can be told apart with any colour vision; lines also have different styles and names
COLORS = {"UP": "#0072B2", "RIGHT": "#D55E00", "DOWN": "#009E73", "LEFT": "#CC79A7", "useless": "#5F5F5F"}
STYLES = {"UP": "-", "RIGHT": "-", "DOWN": "--", "LEFT": ":", "useless": "-"}
#: How far above the end of its line a name stands
LABEL_POINTS = {"UP": 14, "RIGHT": 16, "DOWN": -14, "LEFT": 13, "useless": 9}


def world() -> GridWorld:
    return GridWorld(SQUARE, extra_actions=EXTRA_ACTIONS)


def learned_priors(n_steps: int, n_seeds: int, n_points: int = 100) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Train MIRL with the paper's settings of grid worlds.

    :param n_steps: of the training of each seed
    :param n_seeds: the seeds are 0 to ``n_seeds`` - 1
    :param n_points: of the curve
    :return: steps [points + 1], ρ [points + 1, seeds, A], and the greedy action of seed 0 in each state, [S]
    """
    learners = TabularLearners([TabularRun(world(), TABULAR_ALGORITHMS["mirl"], seed) for seed in range(n_seeds)])
    steps, priors = [0], [learners.prior.copy()]
    for step in np.linspace(0, n_steps, n_points + 1).astype(int)[1:]:
        learners.learn(step - steps[-1])
        steps.append(step)
        priors.append(learners.prior.copy())
    return np.array(steps), np.array(priors), learners.policy(0).argmax(axis=1)


def exact_values() -> dict[str, np.ndarray]:
    """The value of the first state at each of ``BETAS``, in units of reward, and the best ρ at the largest one."""
    env = world()
    start, arrays = env.initial_state_distrib, {"transition": env.transition, "reward": env.reward, "gamma": GAMMA}
    uniform = np.full(env.action_space.n, 1 / env.action_space.n)
    best = [optimize_prior(**arrays, beta=beta, initial_distribution=start) for beta in BETAS]
    return {
        "uniform": np.array([start @ soft_value_iteration(**arrays, beta=beta, prior=uniform).v for beta in BETAS]),
        "best": np.array([start @ one.v for one in best]),
        "no penalty": np.array(start @ soft_value_iteration(**arrays, beta=np.inf, prior=uniform).v),
        "prior": best[-1].prior,
    }


def by_name(prior: np.ndarray) -> dict[str, np.ndarray]:
    """ρ(a) of each move, and the mean over the useless actions; actions are on the last axis."""
    moves = {name: prior[..., action] for action, name in enumerate(MOVES)}
    return {**moves, "useless": prior[..., len(MOVES) :].mean(axis=-1)}


def draw_policy(axis: Any, greedy: np.ndarray) -> None:
    rows = SQUARE.strip().splitlines()
    walls = np.array([[cell == "#" for cell in row] for row in rows])
    axis.imshow(np.where(walls, 0.35, 1.0), cmap="gray", vmin=0, vmax=1)
    free = [(row, column) for row, line in enumerate(rows) for column, cell in enumerate(line) if cell != "#"]
    for (row, column), action in zip(free, greedy, strict=True):
        if rows[row][column] == "G":
            axis.plot(column, row, "*", color="#E69F00", markersize=14)
            continue
        if action >= len(MOVES):
            axis.plot(column, row, "o", color=COLORS["useless"], markersize=4)
            continue
        down, right = list(MOVES.values())[action]
        style = {"arrowstyle": "-|>", "color": list(COLORS.values())[action], "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0}
        ends = {"xy": (column + 0.33 * right, row + 0.33 * down), "xytext": (column - 0.33 * right, row - 0.33 * down)}
        axis.annotate("", **ends, arrowprops=style)
    axis.set(xticks=[], yticks=[], title="Policy after the training")


def draw_priors(axis: Any, steps: np.ndarray, priors: np.ndarray, best: np.ndarray) -> None:
    exact = by_name(best)
    for name, shares in by_name(priors).items():
        axis.plot(steps / 1000, shares.mean(axis=1), STYLES[name], color=COLORS[name], linewidth=1.8)
        axis.fill_between(steps / 1000, shares.min(axis=1), shares.max(axis=1), color=COLORS[name], alpha=0.2, linewidth=0)
        label = "each useless action" if name == "useless" else name.lower()
        end, offset = (steps[-1] / 1000, exact[name]), (-4, LABEL_POINTS[name])
        axis.annotate(label, end, offset, textcoords="offset points", ha="right", va="center", color=COLORS[name])
    axis.set(xlim=(0, steps[-1] / 1000), ylim=(-0.01, None), xlabel="environment steps, thousands")
    axis.set(ylabel="ρ(a)", title="Prior ρ by action")


def draw_values(axis: Any, values: dict[str, np.ndarray]) -> None:
    axis.axhline(values["no penalty"], color="black", linestyle=":", label="no penalty (DQN)")
    axis.plot(BETAS, values["best"], color="#D55E00", label="best ρ (MIRL)")
    axis.plot(BETAS, values["uniform"], "--", color="#0072B2", label="uniform ρ (SQL)")
    axis.set(xscale="log", xlabel="β, 1/reward", ylabel="value, reward", title="Exact optimal value")
    axis.legend(loc="lower right", frameon=False)


def draw(steps: np.ndarray, priors: np.ndarray, greedy: np.ndarray, values: dict[str, np.ndarray], file: Path) -> None:
    with plt.rc_context({"font.size": 9, "axes.titlesize": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = plt.subplots(1, 3, figsize=(10, 3), layout="constrained", width_ratios=(1, 1.5, 1.5))
        draw_policy(axes[0], greedy)
        draw_priors(axes[1], steps, priors, values["prior"])
        draw_values(axes[2], values)
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=130)
        plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000, help="of the training of each seed")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=FIGURE)
    args = parser.parse_args()
    draw(*learned_priors(args.steps, args.seeds), exact_values(), args.out)


if __name__ == "__main__":
    main()
