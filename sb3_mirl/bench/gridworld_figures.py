"""Figures of ``sb3-mirl gridworld``. ``args`` is the parsed command line of the experiment."""

import argparse
import itertools
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.ticker import EngFormatter

from sb3_mirl.bench.grid_maps import draw_arrows
from sb3_mirl.bench.gridworld import PRIOR_COLUMNS, SWEPT, RunEnd, best_return, by_move, make_env, optimum
from sb3_mirl.bench.scores import bootstrap_mean
from sb3_mirl.bench.suites import label
from sb3_mirl.common import colors
from sb3_mirl.common.text import plain_label, printable
from sb3_mirl.envs.gridworld import GridWorld

COLORS = {"ql": colors.GRAY, "sql": colors.BLUE, "sql_m": colors.ORANGE, "mirl": colors.VERMILION}
ACTION_COLORS = (colors.GREEN, colors.VERMILION, colors.PURPLE, colors.BLUE, colors.BLACK)
#: Settings that may take several values
AXIS_LABELS = {
    "extra_actions": "number of useless actions",
    "slip_probability": "probability of a random move instead",
    "gamma": "discount γ",
    "prior_lr": "step size α_ρ of ρ, per step",
    "beta_lr": "increase of β, per step (1/reward)",
}
#: Different line styles, so that curves can be told apart where they overlap
ACTION_LINES = ("-", (0, (6, 2)), "-.", (0, (2, 2)), ":")


def draw(args: argparse.Namespace, tables: dict[str, pd.DataFrame], ends: list[RunEnd]) -> None:
    """
    All figures, as PNG files in ``args.out``.

    :param args: of the experiment
    :param tables: ``results``, ``summary`` and, unless a setting has several values, ``exact``
    :param ends: of the runs
    """
    with matplotlib.rc_context({"backend": "agg"}):
        if "exact" not in tables:
            draw_ablation(tables["summary"], args, args.out / "ablation.png")
            return
        draw_exact(tables["exact"], args, args.out / "exact.png")
        draw_curves(tables["results"], args, args.out / "returns.png")
        for world in args.worlds:
            draw_world(ends, world, args, args.out / f"{world}.png")


def draw_exact(exact: pd.DataFrame, args: argparse.Namespace, file: Path) -> None:
    """Values and best prior by β: one column per world."""
    figure, axes = plt.subplots(2, len(args.worlds), figsize=(4.6 * len(args.worlds), 6.4), squeeze=False, sharex=True)
    for (above, below), world in zip(axes.T, args.worlds, strict=True):
        solutions = exact[exact.world == world]
        above.plot(solutions.beta, solutions.value_best, color=COLORS["mirl"], label="best ρ")
        above.plot(solutions.beta, solutions.value_uniform, color=COLORS["sql"], label="uniform ρ")
        for column, color, line in zip(PRIOR_COLUMNS, ACTION_COLORS, ACTION_LINES, strict=True):
            if column != "prior_useless" or args.extra_actions[0]:
                name = column.removeprefix("prior_").lower()
                below.plot(solutions.beta, solutions[column], color=color, linestyle=line, label=name)
        above.set_title(_title(world))
        above.set_xscale("log")
        below.set_xlabel("inverse temperature β (1/reward)")
        for axis in (above, below):
            axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("exact value of the start, Σ ν₀ V (reward)")
    axes[1, 0].set_ylabel("best ρ(a)")
    axes[0, -1].legend(fontsize=8)
    axes[1, -1].legend(fontsize=8)
    figure.suptitle("Exact solutions: what the best ρ gains, and what it is")
    _save(figure, file)


def draw_curves(results: pd.DataFrame, args: argparse.Namespace, file: Path) -> None:
    """Return over steps and, if MIRL took part, its learned ρ and the optimal one below: one column per world."""
    n_rows = 2 if "mirl" in args.algos else 1
    size = (4.6 * len(args.worlds), 3.5 * n_rows)
    figure, axes = plt.subplots(n_rows, len(args.worlds), figsize=size, squeeze=False, sharex=True)
    for column, world in zip(axes.T, args.worlds, strict=True):
        env = make_env(args, world)
        column[0].axhline(best_return(env), color="black", linestyle=":", linewidth=1, label="optimal, ε = 0")
        for algorithm in args.algos:
            runs = results[(results.world == world) & (results.algorithm == algorithm)]
            style = {"color": COLORS[algorithm], "label": label(algorithm)}
            _draw_band(column[0], runs, "mean_return", args.smoothing, **style)
            if algorithm == "mirl":
                _draw_prior(column[1], runs, by_move(optimum(env, args).prior))
                column[1].set_ylim(-0.02, 1.02)
        column[0].set_title(_title(world))
        column[-1].set_xlabel("environment step")
        column[-1].xaxis.set_major_formatter(EngFormatter(sep=""))
        for axis in column:
            axis.grid(alpha=0.3)
    smoothed = f", mean of {args.smoothing} evaluations" if args.smoothing > 1 else ""
    axes[0, 0].set_ylabel(f"return of an episode (reward){smoothed}")
    figure.suptitle(f"Evaluations during the training: means over {args.seeds} seeds with 95% intervals")
    axes[0, -1].legend(loc="lower right", fontsize=8)
    if n_rows == 2:
        axes[1, 0].set_ylabel("ρ(a) of MIRL (thin dots: exact optimum)")
        axes[1, -1].legend(loc="upper right", fontsize=8)
    _save(figure, file)


def _draw_band(axis: Any, results: pd.DataFrame, column: str, smoothing: int, color: str, **style: Any) -> None:
    """The mean over seeds with its interval; each curve is first smoothed by a moving mean."""
    curves = results.pivot(index="step", columns="seed", values=column)
    curves = curves.rolling(smoothing, min_periods=1, center=True).mean()
    mean, low, high = bootstrap_mean(curves.to_numpy().T)
    axis.plot(curves.index, mean, color=color, **style)
    axis.fill_between(curves.index, low, high, color=color, alpha=0.2, linewidth=0)


def _draw_prior(axis: Any, results: pd.DataFrame, optimal: np.ndarray) -> None:
    """ρ of each move and of all useless actions together."""
    for column, color, line, best in zip(PRIOR_COLUMNS, ACTION_COLORS, ACTION_LINES, optimal, strict=True):
        if column == "prior_useless" and (results[column] == 0.0).all():
            continue
        _draw_band(axis, results, column, 1, color, linestyle=line, label=column.removeprefix("prior_").lower())
        axis.axhline(best, color=color, linestyle=":", linewidth=1)


def draw_world(ends: list[RunEnd], world: str, args: argparse.Namespace, file: Path) -> None:
    """Values and policies of all algorithms at the end, as means over seeds, and the exact ones."""
    env = make_env(args, world)
    panels: list[tuple[str, np.ndarray, np.ndarray]] = []
    for algorithm in args.algos:
        runs = [end for end in ends if end[0]["world"] == world and end[0]["algorithm"] == algorithm]
        values = np.mean([(policy * q).sum(axis=1) for _, q, policy in runs], axis=0)
        panels.append((label(algorithm), values, np.mean([policy for *_, policy in runs], axis=0)))
    exact = optimum(env, args)
    panels.append(("exact, best ρ", (exact.policy * exact.q).sum(axis=1), exact.policy))
    rows, columns = env.cells.shape
    wide = columns > 2 * rows
    shape = (len(panels), 1) if wide else (1, len(panels))
    size = (9.0, len(panels) * (0.35 + 7.0 * rows / columns)) if wide else (3.2 * len(panels), 3.6)
    figure, axes = plt.subplots(*shape, figsize=size, squeeze=False, layout="constrained")
    limits = (min(values[~env.is_goal].min() for _, values, _ in panels), max(values.max() for _, values, _ in panels))
    for axis, (name, values, policy) in zip(axes.flat, panels, strict=True):
        image = _draw_policy(axis, env, values, policy, limits)
        axis.set_title(name, fontsize=10)
    figure.colorbar(image, ax=axes.ravel().tolist(), label="Σₐ π(a|s) Q(s,a) (reward)", shrink=0.8)
    figure.suptitle(f"{_title(world)}: values, and π as arrows, after {args.steps:,} steps (means over {args.seeds} seeds)")
    _save(figure, file)


def _draw_policy(axis: Any, env: GridWorld, values: np.ndarray, policy: np.ndarray, limits: tuple[float, float]) -> Any:
    """Values as colours, probabilities of the four moves as lengths of arrows, the goal as a star."""
    picture = np.full(env.cells.shape, np.nan)
    inner = ~env.is_goal
    picture[tuple(env.positions[inner].T)] = values[inner]
    shades = matplotlib.colormaps["viridis"].with_extremes(bad="0.25")
    image = axis.imshow(picture, cmap=shades, vmin=limits[0], vmax=limits[1])
    draw_arrows(axis, env, policy, inner)
    return image


def draw_ablation(summary: pd.DataFrame, args: argparse.Namespace, file: Path) -> None:
    """Mean return over the training by the swept setting with most values: one row per combination of the others."""
    varied = sorted((name for name in SWEPT if len(getattr(args, name)) > 1), key=lambda name: -len(getattr(args, name)))
    along, others = varied[0], varied[1:]
    combinations = list(itertools.product(*(getattr(args, name) for name in others)))
    size = (4.6 * len(args.worlds), 3.4 * len(combinations) + 0.4)
    figure, axes = plt.subplots(len(combinations), len(args.worlds), figsize=size, squeeze=False, sharex=True, sharey="col")
    ticks = np.arange(len(getattr(args, along)))
    area = summary[summary.measure == "area"]
    for (row, combination), (column, world) in itertools.product(enumerate(combinations), enumerate(args.worlds)):
        axis = axes[row, column]
        shown = area[area.world == world]
        for name, value in zip(others, combination, strict=True):
            shown = shown[shown[name] == value]
        for k, algorithm in enumerate(args.algos):
            values = shown[shown.algorithm == algorithm].set_index(along).loc[getattr(args, along)]
            errors = np.abs(values[["low", "high"]].to_numpy().T - values["mean"].to_numpy())
            style = {"color": COLORS[algorithm], "label": label(algorithm), "marker": "o", "capsize": 3}
            axis.errorbar(ticks + 0.06 * (k - 1.5), values["mean"], yerr=errors, **style)
        fixed = ", ".join(f"{name} = {value:g}" for name, value in zip(others, combination, strict=True))
        axis.set_title(f"{_title(world)}{', ' if fixed else ''}{fixed}", fontsize=10)
        axis.set_xticks(ticks, [f"{value:g}" for value in getattr(args, along)])
        axis.grid(alpha=0.3)
    for axis in axes[-1]:
        axis.set_xlabel(AXIS_LABELS[along])
    for axis in axes[:, 0]:
        axis.set_ylabel("mean return over training (reward)")
    axes[0, -1].legend(fontsize=8)
    figure.suptitle(f"Returns of episodes: means over {args.seeds} seeds with 95% intervals")
    _save(figure, file)


def _title(world: str) -> str:
    return plain_label(world.replace("_", " "))


def _save(figure: Any, file: Path) -> None:
    if figure.get_layout_engine() is None:
        figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)
    print(f"wrote {printable(file)}")
