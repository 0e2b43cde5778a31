"""What the commands about model files print. Text of a file cannot control the terminal."""

import json
import math
import sys
from typing import Any

from sb3_mirl.common.text import printable

#: Actions in the text, so that it fits on a screen
MAX_SHOWN_ACTIONS = 32
#: Characters of the bar of the largest probability
BAR_WIDTH = 30


def fail(command: str, error: Exception) -> int:
    """Print an error in one line and return the exit status."""
    print(f"sb3-mirl {command}: {printable(' '.join(str(error).split()))}", file=sys.stderr)
    return 2


def new_figure(figsize: tuple[float, float]) -> Any:
    """
    An empty matplotlib figure, of which the command's ``--out`` becomes a file.

    :param figsize: width and height in inches
    :raises ImportError: without the packages of the extra ``bench``
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"--out needs more packages ({error}): pip install 'sb3-mirl[bench]'") from error
    return Figure(figsize=figsize, layout="constrained")


def to_json(value: Any) -> str:
    """JSON in several lines; numbers that are not finite are written as text."""
    return json.dumps(_finite(value), indent=2)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value


def to_text(value: Any) -> str:
    """Text or JSON of a file as one printable line."""
    return printable(value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False))


def prior_lines(prior: list[float], names: list[str]) -> list[str]:
    """A line for each action with a bar, the largest ρ(a) first."""
    order = sorted(range(len(prior)), key=lambda action: -prior[action])
    width = max(map(len, names), default=0)
    largest = max((p for p in prior if math.isfinite(p)), default=0.0) or 1.0
    lines = []
    for action in order[:MAX_SHOWN_ACTIONS]:
        share = prior[action] / largest if math.isfinite(prior[action]) else 0.0
        lines.append(f"  {names[action]:<{width}}  {prior[action]:.6f}  {'#' * max(0, round(share * BAR_WIDTH))}".rstrip())
    return lines + hidden_line(len(order))


def hidden_line(n_actions: int) -> list[str]:
    """The line that says how many actions the text leaves out, if any."""
    hidden = n_actions - MAX_SHOWN_ACTIONS
    return [f"  and {hidden} more (--json shows all)"] if hidden > 0 else []


def action_labels(names: Any, n_actions: int) -> list[str]:
    """Printable and different names of the actions; ``names`` is from a file, which may hold anything."""
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        labels = [printable(name)[:25] for name in names]
        if len(labels) == len(set(labels)) == n_actions:
            return labels
    return [f"action_{action}" for action in range(n_actions)]
