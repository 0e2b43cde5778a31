"""
MIRL, SQL and DQN side by side: the zoo trains each on a few seeds, their learning curves are drawn, and a table of the
returns at the end is printed.

    python examples/compare.py         # about ten minutes; figure and logs in logs/compare/
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from stable_baselines3.common.monitor import load_results

from sb3_mirl.zoo.command import main as sb3_mirl

ALGORITHMS = ["dqn", "sql", "mirl"]


def curve(run: Path, grid: np.ndarray) -> np.ndarray:
    """Mean return of the last 20 episodes, at the steps of the grid."""
    episodes = load_results(str(run))
    return np.interp(grid, episodes.l.cumsum(), episodes.r.rolling(20, min_periods=1).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="Acrobot-v1")
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("logs/compare"))
    args = parser.parse_args()

    grid = np.linspace(0, args.steps, 200)
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    table = [f"| {args.env}, {args.steps} steps | return at the end | by seed |", "|---|---:|---|"]
    for algorithm in ALGORITHMS:
        curves = []
        for seed in range(args.seeds):
            folder = args.folder / f"seed_{seed}"
            command = ["train", "--algo", algorithm, "--env", args.env, "-n", str(args.steps), "-f", str(folder)]
            sb3_mirl([*command, "--seed", str(seed), "--eval-freq", "-1", "--num-threads", "1", "--log-interval", "50"])
            run = max(folder.glob(f"{algorithm}/{args.env}_*"), key=lambda path: path.stat().st_mtime)
            curves.append(curve(run, grid))
        mean, spread = np.mean(curves, axis=0), np.std(curves, axis=0)
        axes.plot(grid, mean, label=f"{algorithm} ({len(curves)} seeds)")
        axes.fill_between(grid, mean - spread, mean + spread, alpha=0.2)
        by_seed = ", ".join(f"{of_seed[-1]:.1f}" for of_seed in curves)
        table.append(f"| {algorithm} | {mean[-1]:.1f} ± {spread[-1]:.1f} | {by_seed} |")
    axes.set(xlabel="environment steps", ylabel="return (mean of 20 episodes,\nbands: standard deviation)", title=args.env)
    axes.legend(loc="lower right")
    figure.savefig(args.folder / "compare.png", dpi=120)
    print(f"\nMean and standard deviation over {args.seeds} seeds, of the last 20 episodes of each:\n", *table, sep="\n")
    print(f"\nfigure: {args.folder / 'compare.png'}")


if __name__ == "__main__":
    main()
