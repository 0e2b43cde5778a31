"""What ``sb3-mirl prior`` shows of a ρ(·|x), where x is a view of the observation: its tables, as text or as a figure."""

from pathlib import Path
from typing import Any

import numpy as np

from sb3_mirl.cli.output import MAX_SHOWN_ACTIONS, action_labels, new_figure, to_json, to_text
from sb3_mirl.cli.prior_map import draw_map, panels, read_world
from sb3_mirl.common.text import plain_label

#: Rows of a table in the text
MAX_SHOWN_ROWS = 64
#: Title of each table, and what its rows are
TITLES = {"table": "rho(a|x)", "high": "rho(z|x_high)", "low": "rho(a|z, x_low)"}


def show_state_prior(
    found: dict[str, Any],
    path: str | Path,
    as_json: bool = False,
    figure: Path | None = None,
    grid_map: str | None = None,
) -> str:
    """
    :param found: of :func:`~sb3_mirl.mirl.priors.inspect_file`
    :param path: of the file
    :param as_json: JSON instead of a text: ``file``, ``algorithm``, ``prior_type``, ``prior_observation``, ``beta``,
        ``actions``, and the tables by name
    :param figure: file for a figure of the tables, if any
    :param grid_map: for a figure of arrows on a map: the grid world, see :func:`~sb3_mirl.cli.prior_map.read_world`
    :return: the text
    :raises ValueError: if a figure is wanted of a network, which has no table, or if x is not the cell of the grid world
    :raises ImportError: without the packages of the extra ``bench``, for a figure
    """
    tables = {name: np.array(table) for name, table in found["state_prior"].items()}
    actions = action_labels(found["action_names"], len(found["prior"]))
    arguments = {name: found["arguments"].get(name) for name in ("prior_type", "prior_observation")}
    if figure is not None and grid_map is not None:
        world = read_world(grid_map)
        view = arguments["prior_observation"]
        draw_map(panels(tables, found["action_names"], world, grid_map, view), world, Path(path).name, figure)
    elif figure is not None:
        _draw(tables, actions, path, figure)
    if as_json:
        shown = {"file": str(path), "algorithm": found["algorithm"], **arguments, "beta": found["beta"], "actions": actions}
        return to_json({**shown, **found["state_prior"]})
    origin = f"{to_text(found['algorithm'])}; beta {found['beta']:.4g}, " + ", ".join(
        f"{name} {to_text(value)}" for name, value in arguments.items()
    )
    lines = [origin]
    for name, table in tables.items():
        lines += _table_lines(name, table, actions)
    if not tables:
        lines.append("rho is a network of a continuous x: policy.prior_probabilities(obs) gives its values")
    return "\n".join([*lines, f"Wrote {figure}"] if figure is not None else lines)


def _rows(name: str, table: np.ndarray, actions: list[str]) -> tuple[list[str], list[str], np.ndarray]:
    """Labels of the rows and of the columns, and the rows, [n_rows, n_columns]."""
    if name == "high":
        return [f"x {x}" for x in range(len(table))], [f"skill {z}" for z in range(table.shape[1])], table
    if name == "low":
        labels = [f"skill {z}, x {x}" for z in range(table.shape[0]) for x in range(table.shape[1])]
        return labels, actions, table.reshape(len(labels), -1)
    return [f"x {x}" for x in range(len(table))], actions, table


def _table_lines(name: str, table: np.ndarray, actions: list[str]) -> list[str]:
    labels, columns, rows = _rows(name, table, actions)
    width, shown = max(map(len, labels[:MAX_SHOWN_ROWS])), columns[:MAX_SHOWN_ACTIONS]
    lines = [f"{TITLES[name]:<{width + 2}} {'entropy':>8}  " + " ".join(f"{label[:8]:>8}" for label in shown)]
    for label, row in zip(labels[:MAX_SHOWN_ROWS], rows, strict=False):
        entropy = max(0.0, -float((row[row > 0] * np.log(row[row > 0])).sum()))
        values = " ".join(f"{value:>8.4f}" for value in row[: len(shown)])
        lines.append(f"  {label:<{width}} {entropy:>8.4f}  {values}")
    hidden = [(len(labels) - MAX_SHOWN_ROWS, "rows"), (len(columns) - len(shown), "columns")]
    return lines + [f"  and {count} more {what} (--json shows all)" for count, what in hidden if count > 0]


def _draw(tables: dict[str, np.ndarray], actions: list[str], path: str | Path, file: Path) -> None:
    """The tables as images, one panel for each."""
    if not tables:
        raise ValueError(f"argument --out: {str(path)!r} has a network for a prior, which has no table to be drawn")
    parts = {name: _rows(name, table, actions) for name, table in tables.items()}
    height = 1.6 + 0.2 * min(max(len(labels) for labels, _, _ in parts.values()), 3 * MAX_SHOWN_ROWS)
    figure = new_figure(figsize=(5.0 * len(parts), height))
    for axis, (name, (labels, columns, rows)) in zip(
        figure.subplots(1, len(parts), squeeze=False)[0], parts.items(), strict=True
    ):
        image = axis.imshow(rows, vmin=0.0, vmax=1.0, aspect="auto", cmap="viridis", interpolation="nearest")
        if len(labels) <= MAX_SHOWN_ROWS:
            axis.set_yticks(range(len(labels)), labels, fontsize=7)
        if len(columns) <= MAX_SHOWN_ACTIONS:
            axis.set_xticks(range(len(columns)), [*map(plain_label, columns)], fontsize=7, rotation=60)
        axis.set_title(f"{plain_label(Path(path).name)}\n{TITLES[name].replace('rho', 'ρ')}", fontsize=9)
        figure.colorbar(image, ax=axis, label="probability")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
