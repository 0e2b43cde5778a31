"""
The paper's experiment on grid worlds: four tabular learners, their returns and priors, beside the exact solution.

``sb3-mirl gridworld`` runs it, writes ``results.csv``, ``summary.csv`` and ``differences.csv``, and draws the figures.

Source: Grau-Moya, Leibfried and Vrancx, ICLR 2019; settings and evaluation as its reproducers describe them.
"""

from __future__ import annotations  # of packages that may be missing

import argparse
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from sb3_mirl.common.text import plain_label, printable, printable_lines
from sb3_mirl.envs.gridworld import CORRIDOR, MOVES, SQUARE, WIDE_CORRIDOR, GridWorld
from sb3_mirl.tabular.solvers import (
    TABULAR_ALGORITHMS,
    PriorOptimum,
    TabularLearners,
    TabularRun,
    TabularSettings,
    discounted_visitation,
    mutual_information,
    optimize_prior,
    soft_value_iteration,
)

try:
    import matplotlib
    import pandas as pd
    from matplotlib import pyplot as plt
    from matplotlib.ticker import EngFormatter
    from tqdm import tqdm
except ImportError as error:  # --help works all the same
    missing: ImportError | None = error
else:
    missing = None

WORLDS = {"corridor": CORRIDOR, "wide_corridor": WIDE_CORRIDOR, "square": SQUARE}
LABELS = {"ql": "QL", "sql": "SQL", "sql_m": "SQL_m", "mirl": "MIRL"}
COLORS = {"ql": "tab:gray", "sql": "tab:blue", "sql_m": "tab:orange", "mirl": "tab:red"}
ACTION_COLORS = ("tab:green", "tab:red", "tab:purple", "tab:blue", "tab:gray")
PRIOR_COLUMNS = [*(f"prior_{name}" for name in MOVES), "prior_useless"]
#: Names of other files that the command writes
RESERVED_NAMES = ("returns", "exact", "ablation")
#: What may take several values, of which every combination is run
SWEPT = ("extra_actions", "slip_probability", "gamma", "prior_lr", "beta_lr")
#: Learners advanced together. More gain nothing, and the random numbers of an evaluation need memory
RUNS_AT_ONCE = 240
BOOTSTRAP_SAMPLES = 5000
#: Of the exact solutions
EXACT_BETAS = np.logspace(-2, 2, 17)


@cache
def _resamples(n: int) -> np.ndarray:
    """Weights of ``n`` values in every resample, [BOOTSTRAP_SAMPLES, n]."""
    return np.random.default_rng(0).multinomial(n, np.full(n, 1.0 / n), size=BOOTSTRAP_SAMPLES) / n


def bootstrap_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """
    Percentile bootstrap of the mean over the first axis; always the same resamples.

    :param values: [n, ...], n independent values (seeds)
    :param confidence: of the interval, in (0, 1)
    :return: lower and upper end, [...] each; NaN for a single value, which says nothing of its spread
    """
    n = len(values)
    if n == 1:
        return np.full(values.shape[1:], np.nan), np.full(values.shape[1:], np.nan)
    means = np.tensordot(_resamples(n), values, axes=1)
    low, high = np.quantile(means, [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0], axis=0)
    return low, high


def _settings(algorithm: str, args: argparse.Namespace, combination: dict[str, float]) -> TabularSettings:
    """An algorithm's settings for one combination; what an algorithm does not learn stays fixed."""
    base = TABULAR_ALGORITHMS[algorithm]
    settings = replace(
        base,
        gamma=combination["gamma"],
        exploration=args.exploration,
        q_lr=args.q_lr,
        q_lr_decay=args.q_lr_decay,
        prior_lr=combination["prior_lr"] if base.prior_lr > 0.0 else 0.0,
    )
    if base.beta_init < np.inf:
        settings = replace(settings, beta_init=args.beta_init, beta_lr=combination["beta_lr"], beta_max=args.beta_max)
    return settings


def _jobs(args: argparse.Namespace) -> Iterator[tuple[list[dict[str, Any]], list[TabularRun]]]:
    """Labels and runs of everything to be done, in portions; the runs of a portion have the same number of actions."""
    for extra_actions in args.extra_actions:
        jobs = []
        for slip, world in itertools.product(args.slip_probability, args.worlds):
            env = GridWorld(args.maps[world], extra_actions=extra_actions, slip_probability=slip)
            for gamma, prior_lr, beta_lr in itertools.product(args.gamma, args.prior_lr, args.beta_lr):
                swept = dict(zip(SWEPT, (extra_actions, slip, gamma, prior_lr, beta_lr), strict=True))
                for algorithm, seed in itertools.product(args.algos, range(args.seeds)):
                    label = {"world": world, "algorithm": algorithm, **swept, "seed": seed}
                    jobs.append((label, TabularRun(env, _settings(algorithm, args, swept), seed)))
        for first in range(0, len(jobs), RUNS_AT_ONCE):
            labels, runs = zip(*jobs[first : first + RUNS_AT_ONCE], strict=True)
            yield list(labels), list(runs)


def run(args: argparse.Namespace) -> tuple[pd.DataFrame, list[tuple[dict[str, Any], np.ndarray, np.ndarray]]]:
    """
    Train and evaluate everything that ``args`` (of :func:`parse`) asks for.

    :return: one row per run and evaluation; and label, Q [S, A] and π [S, A] of every run at its end
    """
    portions = list(_jobs(args))
    evaluated_at = np.arange(0, args.steps + 1, args.eval_every)
    rows: list[pd.DataFrame] = []
    ends = []
    # disable=None: no bar where the output is no terminal
    disable = None if args.progress else True
    with tqdm(total=len(portions) * args.steps, unit="step", unit_scale=True, disable=disable) as progress:
        for labels, runs in portions:
            learners = TabularLearners(runs)
            for step in evaluated_at:
                steps = int(step) - learners.n_steps
                learners.learn(steps)
                progress.update(steps)
                returns = learners.evaluate(args.eval_episodes, args.eval_steps, args.eval_exploration)
                frame = pd.DataFrame(labels)
                frame["step"], frame["mean_return"] = step, returns.mean(axis=1)
                rows.append(frame.join(pd.DataFrame(_by_move(learners.prior), columns=PRIOR_COLUMNS)))
            ends += [(label, learners.q_values(k), learners.policy(k)) for k, label in enumerate(labels)]
    return pd.concat(rows, ignore_index=True), ends


def _area_and_final(results: pd.DataFrame, final: int) -> pd.DataFrame:
    """Per run: the mean return over all evaluations (``area``) and over the last ``final`` of them (``final``)."""
    keys = ["world", "algorithm", *SWEPT, "seed"]
    ordered = results.sort_values("step", kind="stable").groupby(keys, sort=False)["mean_return"]
    return pd.DataFrame({"area": ordered.mean(), "final": ordered.agg(lambda values: values.tail(final).mean())})


def summarize(results: pd.DataFrame, final: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """
    Means with 95% bootstrap intervals over seeds.

    :param results: of :func:`run`
    :param final: evaluations at the end that count as final
    :return: per algorithm and setting; and, per pair of algorithms, their difference seed by seed. A seed gives both the
        same random numbers
    """
    per_run = _area_and_final(results, final)
    setting = ["world", *SWEPT]
    summary, differences = [], []
    for measure in ("area", "final"):
        for key, values in per_run[measure].groupby(level=[*setting, "algorithm"], sort=False):
            label = dict(zip([*setting, "algorithm"], key, strict=True))
            summary.append({**label, "measure": measure, **_interval(values.to_numpy())})
        for key, values in per_run[measure].groupby(level=setting, sort=False):
            of_algorithm = {name: of_name.droplevel([*setting, "algorithm"]) for name, of_name in values.groupby("algorithm")}
            label = dict(zip(setting, key, strict=True))
            for first, second in itertools.combinations([name for name in reversed(LABELS) if name in of_algorithm], 2):
                difference = of_algorithm[first] - of_algorithm[second]  # aligned by seed
                pair = {"algorithm": first, "minus": second, "measure": measure}
                differences.append({**label, **pair, **_interval(difference.to_numpy())})
    return pd.DataFrame(summary), pd.DataFrame(differences)


def _interval(values: np.ndarray) -> dict[str, float]:
    low, high = bootstrap_interval(values)
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def best_return(env: GridWorld) -> float:
    """Mean return of the optimal policy without exploration, from a random start."""
    uniform = np.full(env.reward.shape[1], 1.0 / env.reward.shape[1])
    return float(env.initial_state_distrib @ soft_value_iteration(env.transition, env.reward, 1.0, np.inf, uniform).v)


def solve_exactly(args: argparse.Namespace) -> pd.DataFrame:
    """
    What the penalty costs, by β: Σ ν₀ V with the uniform prior and with the best one, that prior, and its I(S;A).

    :return: one row per world and β, from 0.01 to 100
    """
    rows = []
    gamma, envs = args.gamma[0], {world: _env(args, world) for world in args.worlds}
    for (world, env), beta in itertools.product(envs.items(), EXACT_BETAS):
        uniform = np.full(env.reward.shape[1], 1.0 / env.reward.shape[1])
        initial = env.initial_state_distrib
        # The objective is then within 1e-3 of the fixed point's
        tolerance = max(1e-3 * beta * (1.0 - gamma), 1e-9)
        best = optimize_prior(env.transition, env.reward, gamma, beta, initial, tolerance=tolerance)
        visits = discounted_visitation(env.transition, gamma, best.policy, initial)
        values = {
            "value_uniform": float(initial @ soft_value_iteration(env.transition, env.reward, gamma, beta, uniform).v),
            "value_best": best.objective[-1],
            "mutual_information": mutual_information(best.policy, visits),
        }
        rows.append({"world": world, "beta": beta, **values, **dict(zip(PRIOR_COLUMNS, _by_move(best.prior), strict=True))})
    return pd.DataFrame(rows)


def _by_move(prior: np.ndarray) -> np.ndarray:
    """ρ [..., A] of the four moves, and of all useless actions together: [..., 5]."""
    return np.concatenate([prior[..., : len(MOVES)], prior[..., len(MOVES) :].sum(axis=-1, keepdims=True)], axis=-1)


def draw_exact(exact: pd.DataFrame, args: argparse.Namespace, file: Path) -> None:
    """Values and best prior by β: one column per world."""
    figure, axes = plt.subplots(2, len(args.worlds), figsize=(4.6 * len(args.worlds), 6.4), squeeze=False, sharex=True)
    for (above, below), world in zip(axes.T, args.worlds, strict=True):
        of_world = exact[exact.world == world]
        above.plot(of_world.beta, of_world.value_best, color=COLORS["mirl"], label="best ρ")
        above.plot(of_world.beta, of_world.value_uniform, color=COLORS["sql"], label="uniform ρ")
        for column, color in zip(PRIOR_COLUMNS, ACTION_COLORS, strict=True):
            if column != "prior_useless" or args.extra_actions[0]:
                below.plot(of_world.beta, of_world[column], color=color, label=column.removeprefix("prior_").lower())
        above.set_title(_title(world))
        above.set_xscale("log")
        below.set_xlabel("β")
        for axis in (above, below):
            axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("exact value, Σ ν₀ V")
    axes[1, 0].set_ylabel("best ρ")
    axes[0, -1].legend(fontsize=8)
    axes[1, -1].legend(fontsize=8)
    _save(figure, file)


def draw_curves(results: pd.DataFrame, args: argparse.Namespace, file: Path) -> None:
    """Return over steps and, below it if MIRL took part, its learned ρ beside the optimal one: one column per world."""
    n_rows = 2 if "mirl" in args.algos else 1
    size = (4.6 * len(args.worlds), 3.5 * n_rows)
    figure, axes = plt.subplots(n_rows, len(args.worlds), figsize=size, squeeze=False, sharex=True)
    for column, world in zip(axes.T, args.worlds, strict=True):
        env = _env(args, world)
        column[0].axhline(best_return(env), color="black", linestyle=":", linewidth=1, label="optimal, ε = 0")
        for algorithm in args.algos:
            of_algorithm = results[(results.world == world) & (results.algorithm == algorithm)]
            _band(column[0], of_algorithm, "mean_return", args.smoothing, COLORS[algorithm], LABELS[algorithm])
            if algorithm == "mirl":
                _draw_prior(column[1], of_algorithm, _by_move(_optimum(env, args).prior))
                column[1].set_ylim(-0.02, 1.02)
        column[0].set_title(_title(world))
        column[-1].set_xlabel("environment step")
        column[-1].xaxis.set_major_formatter(EngFormatter(sep=""))
        for axis in column:
            axis.grid(alpha=0.3)
    smoothed = f", mean of {args.smoothing} evaluations" if args.smoothing > 1 else ""
    axes[0, 0].set_ylabel(f"return{smoothed}\n({args.seeds} seeds, 95% interval)")
    axes[0, -1].legend(loc="lower right", fontsize=8)
    if n_rows == 2:
        axes[1, 0].set_ylabel("ρ of MIRL\n(dotted: exact optimum)")
        axes[1, -1].legend(loc="upper right", fontsize=8)
    _save(figure, file)


def _band(axis: Any, results: pd.DataFrame, column: str, smoothing: int, color: str, label: str) -> None:
    """A mean over seeds with its interval, each curve first smoothed by a moving mean."""
    curves = results.pivot(index="step", columns="seed", values=column)
    curves = curves.rolling(smoothing, min_periods=1, center=True).mean()
    low, high = bootstrap_interval(curves.to_numpy().T)
    axis.plot(curves.index, curves.mean(axis=1), color=color, label=label)
    axis.fill_between(curves.index, low, high, color=color, alpha=0.2, linewidth=0)


def _draw_prior(axis: Any, results: pd.DataFrame, optimal: np.ndarray) -> None:
    """ρ of each move and of all useless actions together."""
    for column, color, best in zip(PRIOR_COLUMNS, ACTION_COLORS, optimal, strict=True):
        if column == "prior_useless" and (results[column] == 0.0).all():
            continue
        _band(axis, results, column, 1, color, column.removeprefix("prior_").lower())
        axis.axhline(best, color=color, linestyle=":", linewidth=1)


def _last_beta(args: argparse.Namespace) -> float:
    return float(min(args.beta_init + args.beta_lr[0] * args.steps, args.beta_max))


def _optimum(env: GridWorld, args: argparse.Namespace) -> PriorOptimum:
    """The best ρ and its Q, V, π for γ and the β of the last step."""
    return optimize_prior(env.transition, env.reward, args.gamma[0], _last_beta(args), env.initial_state_distrib)


def draw_world(
    ends: list[tuple[dict[str, Any], np.ndarray, np.ndarray]], world: str, args: argparse.Namespace, file: Path
) -> None:
    """Values and policies of all algorithms at the end, means over seeds, and the exact ones."""
    env = _env(args, world)
    panels: list[tuple[str, np.ndarray, np.ndarray]] = []
    for algorithm in args.algos:
        of_algorithm = [end for end in ends if end[0]["world"] == world and end[0]["algorithm"] == algorithm]
        values = np.mean([(policy * q).sum(axis=1) for _, q, policy in of_algorithm], axis=0)
        panels.append((LABELS[algorithm], values, np.mean([policy for *_, policy in of_algorithm], axis=0)))
    exact = _optimum(env, args)
    panels.append(("exact, best ρ", (exact.policy * exact.q).sum(axis=1), exact.policy))
    rows, columns = env.cells.shape
    wide = columns > 2 * rows
    shape = (len(panels), 1) if wide else (1, len(panels))
    size = (9.0, len(panels) * (0.35 + 7.0 * rows / columns)) if wide else (3.2 * len(panels), 3.6)
    figure, axes = plt.subplots(*shape, figsize=size, squeeze=False, layout="constrained")
    limits = (min(values[~env.is_goal].min() for _, values, _ in panels), max(values.max() for _, values, _ in panels))
    for axis, (label, values, policy) in zip(axes.flat, panels, strict=True):
        image = _draw_policy(axis, env, values, policy, limits)
        axis.set_title(label, fontsize=10)
    figure.colorbar(image, ax=axes.ravel().tolist(), label="Σ π Q", shrink=0.8)
    _save(figure, file)


def _draw_policy(axis: Any, env: GridWorld, values: np.ndarray, policy: np.ndarray, limits: tuple[float, float]) -> Any:
    """Values as colours, probabilities of the four moves as lengths of arrows, the goal as a star."""
    picture = np.full(env.cells.shape, np.nan)
    inner = ~env.is_goal
    picture[tuple(env.positions[inner].T)] = values[inner]
    colors = matplotlib.colormaps["viridis"].with_extremes(bad="0.25")
    image = axis.imshow(picture, cmap=colors, vmin=limits[0], vmax=limits[1])
    for action, (down, right) in enumerate(MOVES.values()):
        length = 0.45 * policy[inner, action]
        shown = length > 0.02
        row, column = env.positions[inner][shown].T
        arrow = {"angles": "xy", "scale_units": "xy", "scale": 1.0, "color": "white", "width": 0.05, "units": "xy"}
        axis.quiver(column, row, right * length[shown], down * length[shown], **arrow)
    goal_row, goal_column = env.positions[env.is_goal].T
    axis.plot(goal_column, goal_row, "*", color="gold", markersize=10)
    axis.set_xticks([])
    axis.set_yticks([])
    return image


def draw_ablation(summary: pd.DataFrame, args: argparse.Namespace, file: Path) -> None:
    """Mean return over training against the swept setting with most values: one row per combination of the others."""
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
            style = {"color": COLORS[algorithm], "label": LABELS[algorithm], "marker": "o", "capsize": 3}
            axis.errorbar(ticks + 0.06 * (k - 1.5), values["mean"], yerr=errors, **style)
        fixed = ", ".join(f"{name} = {value:g}" for name, value in zip(others, combination, strict=True))
        axis.set_title(f"{_title(world)}{', ' if fixed else ''}{fixed}", fontsize=10)
        axis.set_xticks(ticks, [f"{value:g}" for value in getattr(args, along)])
        axis.grid(alpha=0.3)
    for axis in axes[-1]:
        axis.set_xlabel(along)
    for axis in axes[:, 0]:
        axis.set_ylabel("mean return over training")
    axes[0, -1].legend(fontsize=8)
    _save(figure, file)


def _env(args: argparse.Namespace, world: str) -> GridWorld:
    return GridWorld(args.maps[world], extra_actions=args.extra_actions[0], slip_probability=args.slip_probability[0])


def _title(world: str) -> str:
    return plain_label(world.replace("_", " "))


def _save(figure: Any, file: Path) -> None:
    if figure.get_layout_engine() is None:
        figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)
    print(f"wrote {printable(file)}")


def _number(kind: Callable[[str], float], low: float, high: float = np.inf) -> Callable[[str], float]:
    """An argparse type: a number in [low, high]."""

    def parse_number(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = np.nan
        if not low <= value <= high:
            whole = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {whole} in [{low:g}, {high:g}]")
        return value

    return parse_number


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line of ``sb3-mirl gridworld``, checked."""
    parser = argparse.ArgumentParser(
        prog="sb3-mirl gridworld",
        description="The paper's grid worlds: QL, SQL, SQL_m and MIRL with tables. Writes CSV files and draws figures.",
        epilog="Of --extra-actions, --slip-probability, --gamma, --prior-lr and --beta-lr several values may be given: "
        "every combination is run, and an ablation drawn.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    share, positive, count = _number(float, 0.0, 1.0), _number(float, 0.0, 1e100), _number(int, 1)
    beta = _number(float, 0.0)
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS), help=f"{', '.join(WORLDS)}, or files with a map")
    parser.add_argument("--algos", nargs="+", default=list(LABELS), choices=list(LABELS))
    parser.add_argument("--seeds", type=count, default=10, help="number of seeds")
    parser.add_argument("--steps", type=count, default=100_000, help="environment steps of every learner")
    parser.add_argument("--out", type=Path, default=Path("logs/gridworld"), help="folder of the results")
    swept = parser.add_argument_group("settings that may take several values")
    swept.add_argument("--extra-actions", nargs="+", type=_number(int, 0), default=[0], help="useless actions")
    swept.add_argument("--slip-probability", nargs="+", type=share, default=[0.0])
    swept.add_argument("--gamma", nargs="+", type=share, default=[TabularSettings.gamma])
    swept.add_argument("--prior-lr", nargs="+", type=share, default=[TabularSettings.prior_lr], help="α_ρ")
    swept.add_argument("--beta-lr", nargs="+", type=positive, default=[TabularSettings.beta_lr], help="c in β = β₀ + c·i")
    learning = parser.add_argument_group("learning")
    learning.add_argument("--beta-init", type=beta, default=TabularSettings.beta_init, help="β₀")
    learning.add_argument("--beta-max", type=beta, default=TabularSettings.beta_max)
    learning.add_argument("--exploration", type=share, default=TabularSettings.exploration, help="ε")
    learning.add_argument("--q-lr", type=share, default=TabularSettings.q_lr, help="α in α_Q = α · n(s,a)^(-ω)")
    learning.add_argument("--q-lr-decay", type=positive, default=TabularSettings.q_lr_decay, help="ω")
    evaluation = parser.add_argument_group("evaluation")
    evaluation.add_argument("--eval-every", type=count, default=1000, help="steps between evaluations")
    evaluation.add_argument("--eval-episodes", type=count, default=30)
    evaluation.add_argument("--eval-steps", type=count, default=100, help="longest episode")
    evaluation.add_argument("--eval-exploration", type=share, default=0.05, help="ε")
    evaluation.add_argument("--final", type=count, default=10, help="evaluations at the end that make up the final return")
    evaluation.add_argument("--smoothing", type=count, default=1, help="evaluations per moving mean in the figure (paper: 10)")
    parser.add_argument("--no-plots", dest="plots", action="store_false", help="only the CSV files")
    parser.add_argument("--no-progress", dest="progress", action="store_false", help="no progress bar")
    args = parser.parse_args(arguments)
    try:
        args.maps = {_world_name(world): _read_map(world) for world in args.worlds}
    except (OSError, ValueError) as error:
        parser.error(f"argument --worlds: {printable(error)}")
    names = [_world_name(world) for world in args.worlds]
    for name in {name for name in names if names.count(name) > 1 or name in RESERVED_NAMES}:
        parser.error(f"argument --worlds: more than one result would be named {name!r}")
    if args.out.exists() and not args.out.is_dir():
        parser.error(f"argument --out: {str(args.out)!r} is not a folder")
    args.worlds, args.algos = list(args.maps), list(dict.fromkeys(args.algos))
    for name in SWEPT:
        setattr(args, name, list(dict.fromkeys(getattr(args, name))))
    if args.eval_every > args.steps:
        parser.error(f"argument --eval-every: {args.eval_every} is more than --steps {args.steps}")
    if args.steps % args.eval_every:
        parser.error(f"argument --steps: {args.steps} is no multiple of --eval-every {args.eval_every}")
    return args


def _world_name(world: str) -> str:
    return world if world in WORLDS else Path(world).stem


def _read_map(world: str) -> str:
    """One of the paper's maps, or one from a file; an error now rather than in the middle of the runs."""
    if world in WORLDS:
        return WORLDS[world]
    if not Path(world).is_file():
        raise ValueError(f"{world!r} is neither one of {', '.join(WORLDS)} nor a file with a map")
    grid_map = Path(world).read_text()
    GridWorld(grid_map)
    return grid_map


def main(arguments: Sequence[str] | None = None) -> int:
    """The command ``sb3-mirl gridworld``."""
    args = parse(arguments)
    if missing:
        raise ImportError(f"this needs more packages ({missing}): pip install 'sb3-mirl[bench]'") from missing
    args.out.mkdir(parents=True, exist_ok=True)
    results, ends = run(args)
    summary, differences = summarize(results, args.final)
    for name, table in {"results": results, "summary": summary, "differences": differences}.items():
        table.to_csv(args.out / f"{name}.csv", index=False)
        print(f"wrote {printable(args.out / name)}.csv")
    fixed = [name for name in SWEPT if len(getattr(args, name)) == 1]
    several = len(fixed) < len(SWEPT)
    if not several:
        exact = solve_exactly(args)
        exact.to_csv(args.out / "exact.csv", index=False)
        print(f"wrote {printable(args.out / 'exact.csv')}")
    if args.plots:
        with matplotlib.rc_context({"backend": "agg"}):
            if several:
                draw_ablation(summary, args, args.out / "ablation.png")
            else:
                draw_exact(exact, args, args.out / "exact.png")
                draw_curves(results, args, args.out / "returns.png")
                for world in args.worlds:
                    draw_world(ends, world, args, args.out / f"{world}.png")
    print(
        f"\nMean return with 95% bootstrap intervals over {args.seeds} seeds; "
        f"area: of all evaluations, final: of the last {args.final}"
    )
    with pd.option_context("display.width", 200, "display.max_rows", None):
        print(printable_lines(summary.drop(columns=fixed).round(2).to_string(index=False)))
    return 0
