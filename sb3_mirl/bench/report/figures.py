"""Figures of a benchmark's report: small enough for a phone, and readable in print."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.ticker import EngFormatter

from sb3_mirl.bench.report.claims import advantages
from sb3_mirl.bench.report.content import Bench, Row, grouped
from sb3_mirl.bench.report.scales import factor
from sb3_mirl.bench.suites import FIXED_PRIORS, label
from sb3_mirl.common import colors
from sb3_mirl.common.text import plain_label, printable

#: Colour and line of each algorithm; the lines differ in black and white, too
STYLES = {
    "dqn": (colors.GRAY, ":"),
    "dqn_mse": (colors.BLACK, (0, (1, 3))),
    "qrdqn": (colors.GREEN, (0, (3, 1, 1, 1, 1, 1))),
    "sql": (colors.BLUE, "--"),
    "sql_decoupled": (colors.SKY_BLUE, (0, (6, 2, 1, 2, 1, 2))),
    "sql_m": (colors.ORANGE, "-."),
    "mdqn": (colors.PURPLE, (0, (8, 2))),
    "mirl": (colors.VERMILION, "-"),
}
MARKERS = "osD^vP*X"
OTHER_COLORS = ("tab:pink", "tab:olive", "navy", "tab:brown", "darkgreen")
SCALE_LABELS = {"human_mnih2015": "% of human (2015)", "human_wang2016": "% of human (2016)", "relative": "relative score"}
#: Figures over all environments
OVERALL = ("useless_actions", "advantage", "aggregates", "profiles", "efficiency", "improvement")
#: Figures of each environment
KINDS = ("curve", "prior", "beta")
SIZE_INCHES = (4.6, 3.1)
#: Size of a figure with a legend above it
TALL_INCHES = (4.6, 3.9)
DPI = 150
Styles = dict[str, tuple[str, Any]]
#: Largest number of algorithms in a legend inside the axes
MAX_INSIDE = 4
#: Actions of a figure of priors, and characters of their names
MAX_ACTIONS, MAX_NAME_CHARS = 40, 20


def draw(bench: Bench, tables: dict[str, list[Row]]) -> dict[str, bytes]:
    """
    :param bench: of :func:`sb3_mirl.bench.report.content.read`
    :param tables: its rows, by the names of :data:`sb3_mirl.bench.report.tables.TABLES`
    :return: PNG images by name: those of :data:`OVERALL`, and ``curve_``, ``beta_`` and ``prior_`` with the name of each
        environment; only those with data
    """
    styles = _styles(bench.algorithms)
    figures = {}
    with matplotlib.rc_context(
        {"backend": "agg", "font.size": 10, "axes.grid": True, "axes.axisbelow": True, "grid.alpha": 0.3}
    ):
        overall = (_useless_actions, _advantage, _aggregates, _profiles, _efficiency, _improvement)
        for name, draw_one in zip(OVERALL, overall, strict=True):
            rows = advantages(tables["claims"]) if name == "advantage" else tables[name]
            if rows:
                figures[name] = draw_one(rows, styles)
        for env in bench.envs:
            for name, table, drawn in zip(KINDS, ("curves", "prior", "beta"), (_curves, _prior, _betas), strict=True):
                rows = [row for row in tables[table] if row["environment"] == env]
                if rows:
                    figures[figure_name(name, env)] = drawn(rows, styles)
    return figures


def _label(algorithm: str) -> str:
    """The name of an algorithm, escaped for matplotlib."""
    return plain_label(label(algorithm))


def figure_name(kind: str, env: str) -> str:
    """
    :param kind: one of :data:`KINDS`
    :param env: the environment's id
    """
    return f"{kind}_{env.replace('/', '-')}"


def names(bench: Bench) -> list[str]:
    """The names of all figures that a report may have."""
    return [*OVERALL, *(figure_name(kind, env) for env in bench.suite.steps for kind in KINDS)]


def _styles(algorithms: Sequence[str]) -> Styles:
    others = [name for name in algorithms if name not in STYLES]
    return STYLES | {name: (OTHER_COLORS[k % len(OTHER_COLORS)], "-") for k, name in enumerate(others)}


def _by_algorithm(rows: Sequence[Row]) -> dict[str, dict[str, np.ndarray]]:
    """Columns of the rows of each algorithm."""
    return {name: {key: np.array([row[key] for row in own]) for key in own[0]} for name, own in grouped(rows).items()}


def _axes(size: tuple[float, float] = SIZE_INCHES) -> tuple[Any, Any]:
    return plt.subplots(figsize=size, layout="constrained")


def _png(figure: Any) -> bytes:
    file = BytesIO()
    # Without matplotlib's version, so that files do not depend on it
    figure.savefig(file, dpi=DPI, metadata={"Software": None})
    plt.close(figure)
    return file.getvalue()


def _bands(axis: Any, rows: Sequence[Row], styles: Styles, x: str = "step", factors: tuple[float, float] = (1.0, 1.0)) -> None:
    """Lines with bands; the column ``x`` and the values are multiplied by ``factors``."""
    for algorithm, columns in _by_algorithm(rows).items():
        color, line = styles[algorithm]
        marker = "o" if len(columns[x]) == 1 else None
        at, value, low, high = factors[0] * columns[x], *(factors[1] * columns[key] for key in ("value", "low", "high"))
        axis.plot(at, value, color=color, linestyle=line, marker=marker, label=_label(algorithm))
        axis.fill_between(at, low, high, color=color, alpha=0.18, linewidth=0)


def _steps(axis: Any, ylabel: str) -> None:
    axis.set_xlabel("environment step")
    axis.set_ylabel(ylabel)
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))


def _curve_axes(rows: Sequence[Row]) -> tuple[Any, Any]:
    return _axes(TALL_INCHES if len(grouped(rows)) > MAX_INSIDE else SIZE_INCHES)


def _legend(axis: Any) -> None:
    """Inside the axes if it is small."""
    if len(axis.get_legend_handles_labels()[0]) > MAX_INSIDE:
        _legend_above(axis)
    else:
        axis.legend(fontsize=9)


def _legend_above(axis: Any, most_columns: int = 3) -> None:
    """Outside the axes, where the legend hides nothing."""
    entries = len(axis.get_legend_handles_labels()[0])
    ncols = entries if entries <= MAX_INSIDE else most_columns
    axis.legend(fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=ncols, frameon=False)


def _curves(rows: Sequence[Row], styles: Styles) -> bytes:
    figure, axis = _curve_axes(rows)
    _bands(axis, rows, styles)
    _steps(axis, "return while training")
    _legend(axis)
    return _png(figure)


def _betas(rows: Sequence[Row], styles: Styles) -> bytes:
    figure, axis = _curve_axes(rows)
    _bands(axis, rows, styles)
    _steps(axis, "β")
    _legend(axis)
    values = [row["value"] for row in rows]
    if min(values) > 0 and max(values) > 100 * min(values):
        axis.set_yscale("log")
    return _png(figure)


def _prior(rows: Sequence[Row], styles: Styles) -> bytes:
    """Horizontal bars, because names of actions are long. The dotted line is the uniform prior, which SQL keeps."""
    algorithms = _by_algorithm(rows)
    learned = {name: columns for name, columns in algorithms.items() if name not in FIXED_PRIORS} or algorithms
    all_names = next(iter(learned.values()))["name"]
    # The most likely actions, in their order
    shown = np.sort(
        np.argsort(-np.max([columns["value"] for columns in learned.values()], axis=0), kind="stable")[:MAX_ACTIONS]
    )
    names = [plain_label(printable(all_names[action])[:MAX_NAME_CHARS]) for action in shown]
    places = np.arange(len(names))
    thickness = 0.8 / len(learned)

    figure, axis = _axes((SIZE_INCHES[0], max(SIZE_INCHES[1], 0.9 + 0.24 * len(names))))
    for k, (algorithm, columns) in enumerate(reversed(learned.items())):
        shift = (k - (len(learned) - 1) / 2) * thickness
        errors = np.abs(np.stack([columns["low"], columns["high"]]) - columns["value"])[:, shown]
        bars = {"xerr": errors, "error_kw": {"linewidth": 1}} if np.isfinite(errors).all() else {}
        bars |= {"color": styles[algorithm][0], "edgecolor": "white", "hatch": "" if algorithm == "mirl" else "//"}
        axis.barh(places + shift, columns["value"][shown], thickness, label=_label(algorithm), **bars)
    axis.axvline(1.0 / len(all_names), color="black", linestyle=":", linewidth=1, label="uniform")
    axis.set_yticks(places, names, fontsize=9 if len(names) < 10 else 8)
    axis.invert_yaxis()
    axis.grid(False, axis="y")
    axis.margins(y=0.02)
    some = f" ({len(names)} of {len(all_names)} actions)" if len(names) < len(all_names) else ""
    axis.set_xlabel(f"ρ at the end{some}")
    _legend_above(axis)
    return _png(figure)


def _points(axis: Any, rows: Sequence[Row], names: Sequence[str], colors: Sequence[str], factor: float = 1.0) -> None:
    """Points with intervals, one in each line; NaN means no interval."""
    values, low, high = (factor * np.array([row[key] for row in rows]) for key in ("value", "low", "high"))
    places = np.arange(len(rows))
    axis.hlines(places, low, high, colors=colors, linewidth=4, alpha=0.5)
    axis.scatter(values, places, color=colors, zorder=3, s=28)
    axis.set_yticks(places, names)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.grid(False, axis="y")
    axis.margins(x=0.1)


def _aggregates(rows: Sequence[Row], styles: Styles) -> bytes:
    """Over all environments, on the first scale only, which for Atari is that of Table 1."""
    scale, group = rows[0]["scale"], rows[0]["useless_actions"]
    rows = [row for row in rows if (row["scale"], row["useless_actions"]) == (scale, group)]
    statistics = list(dict.fromkeys(row["statistic"] for row in rows))
    algorithms = list(dict.fromkeys(row["algorithm"] for row in rows))
    size = (SIZE_INCHES[0], 0.6 + len(statistics) * (0.45 + 0.24 * len(algorithms)))
    figure, axes = plt.subplots(len(statistics), figsize=size, sharex=True, layout="constrained")
    for axis, statistic in zip(axes, statistics, strict=True):
        shown = [row for row in rows if row["statistic"] == statistic]
        colors = [styles[name][0] for name in algorithms]
        _points(axis, shown, [_label(name) for name in algorithms], colors, factor(scale))
        axis.set_title(statistic, fontsize=10)
    axes[-1].set_xlabel(SCALE_LABELS[scale])
    return _png(figure)


def _useless_actions(rows: Sequence[Row], styles: Styles) -> bytes:
    """Points with intervals, beside each other at each number of useless actions."""
    scale, numbers = rows[0]["scale"], list(grouped(rows, "useless_actions"))
    figure, axis = _axes((6.4, 4.0))
    algorithms = _by_algorithm(rows)
    for k, (algorithm, columns) in enumerate(algorithms.items()):
        color, line = styles[algorithm]
        places = np.arange(len(numbers)) + 0.06 * (k - (len(algorithms) - 1) / 2)
        value, low, high = (factor(scale) * columns[key] for key in ("value", "low", "high"))
        shown = {"color": color, "linestyle": line, "marker": MARKERS[k % len(MARKERS)], "label": _label(algorithm)}
        shown |= {"linewidth": 2.5, "zorder": 4} if algorithm == "mirl" else {}
        axis.plot(places, value, **shown)
        axis.vlines(places, low, high, color=color, alpha=0.45, linewidth=4)
    axis.set_xticks(range(len(numbers)), [str(number) for number in numbers])
    axis.grid(False, axis="x")
    if scale == "relative":
        axis.set_ylim(-0.02, 1.02)
    axis.set_xlabel("number of useless actions")
    axis.set_ylabel(f"IQM, {SCALE_LABELS[scale]}")
    _legend_above(axis, most_columns=4)
    return _png(figure)


def _advantage(rows: Sequence[Row], styles: Styles) -> bytes:
    """The probability of improvement of MIRL over each other algorithm, by the number of useless actions."""
    others = {name: [row for row in rows if row["than"] == name] for name in dict.fromkeys(row["than"] for row in rows)}
    numbers = list(grouped(rows, "useless_actions"))
    figure, axis = _axes((6.4, 4.0))
    axis.axhline(0.5, color="black", linestyle=":", linewidth=1)
    for k, (name, own) in enumerate(others.items()):
        color, line = styles[name]
        places = [numbers.index(row["useless_actions"]) + 0.06 * (k - (len(others) - 1) / 2) for row in own]
        marker = MARKERS[k % len(MARKERS)]
        axis.plot(places, [row["value"] for row in own], color=color, linestyle=line, marker=marker, label=_label(name))
        axis.vlines(places, [row["low"] for row in own], [row["high"] for row in own], color=color, alpha=0.45, linewidth=4)
    axis.set_xticks(range(len(numbers)), numbers)
    axis.grid(False, axis="x")
    axis.set_ylim(-0.02, 1.02)
    axis.set_xlabel("number of useless actions")
    axis.set_ylabel("probability that MIRL is better than")
    _legend_above(axis, most_columns=5)
    return _png(figure)


def _profiles(rows: Sequence[Row], styles: Styles) -> bytes:
    scale = rows[0]["scale"]
    figure, axis = _axes(TALL_INCHES)
    _bands(axis, rows, styles, "threshold", (factor(scale), 1.0))
    axis.set_xlabel(f"τ, {SCALE_LABELS[scale]}")
    axis.set_ylabel("share of runs with score > τ")
    axis.set_ylim(-0.03, 1.03)
    _legend_above(axis)
    return _png(figure)


def _efficiency(rows: Sequence[Row], styles: Styles) -> bytes:
    scale = rows[0]["scale"]
    figure, axis = _axes(TALL_INCHES)
    ylabel = f"IQM of training returns, {SCALE_LABELS[scale]}"
    if "step" in rows[0]:
        _bands(axis, rows, styles, "step", (1.0, factor(scale)))
        _steps(axis, ylabel)
    else:
        _bands(axis, rows, styles, "share", (100.0, factor(scale)))
        axis.set_xlabel("% of the training")
        axis.set_ylabel(ylabel)
    _legend_above(axis)
    return _png(figure)


def _improvement(rows: Sequence[Row], styles: Styles) -> bytes:
    figure, axis = _axes((SIZE_INCHES[0], 0.9 + 0.35 * len(rows)))
    names = [f"{_label(row['algorithm'])} over {_label(row['than'])}" for row in rows]
    _points(axis, rows, names, [styles[row["algorithm"]][0] for row in rows])
    axis.axvline(0.5, color="black", linestyle=":", linewidth=1)
    axis.set_xlim(-0.03, 1.03)
    axis.set_xlabel("probability of improvement")
    return _png(figure)
