"""
The returns of a run's episodes in a few numbers, which its model files hold as plain JSON.

A curve is a dict: ``points``, the mean returns of ``episodes_per_point`` episodes each, in order; and ``sum`` and ``count`` of
the episodes since the last point. When there are :data:`MOST_POINTS`, neighbouring points are averaged in pairs.
"""

import math
import statistics
from typing import Any

MOST_POINTS = 64
#: Smallest number of points for comparing the first quarter with the last
FEWEST_POINTS = 16
#: Smallest significant difference of two means, in standard errors
SIGNIFICANT = 3.0
#: Largest accepted return; its square must be finite
LARGEST = 1e100


def new_curve() -> dict[str, Any]:
    """The curve of a run without episodes."""
    return {"episodes_per_point": 1, "points": [], "sum": 0.0, "count": 0}


def add_return(curve: dict[str, Any], episode_return: float) -> None:
    """
    :param curve: changed in place
    :param episode_return: of an episode that has ended; left out if it is not finite
    """
    # VecMonitor's returns are float32, in which LARGEST would be infinite
    episode_return = float(episode_return)
    if not abs(episode_return) < LARGEST:
        return
    curve["sum"] += episode_return
    curve["count"] += 1
    if curve["count"] < curve["episodes_per_point"]:
        return
    curve["points"].append(curve["sum"] / curve["count"])
    curve["sum"], curve["count"] = 0.0, 0
    if len(curve["points"]) == MOST_POINTS:
        pairs = zip(curve["points"][::2], curve["points"][1::2], strict=True)
        curve["points"] = [(first + second) / 2 for first, second in pairs]
        curve["episodes_per_point"] *= 2


def is_curve(value: Any) -> bool:
    """Whether something from a file is a curve."""
    if not isinstance(value, dict) or value.keys() != new_curve().keys() or not isinstance(value["points"], list):
        return False
    returns = [*value["points"], value["sum"]]
    return (
        all(type(value[name]) is int and value[name] >= least for name, least in (("episodes_per_point", 1), ("count", 0)))
        and len(value["points"]) < MOST_POINTS
        and all(type(number) in (int, float) and abs(number) < 1e20 * LARGEST for number in returns)
    )


def first_and_last(curve: dict[str, Any]) -> dict[str, Any] | None:
    """
    :param curve: the curve
    :return: ``first`` and ``last``, the mean returns of the first and the last quarter of the points; ``episodes``, how many
        each of these has; ``improved``, whether ``last`` is larger by more than :data:`SIGNIFICANT` standard errors. None if
        there are fewer than :data:`FEWEST_POINTS`
    """
    points, n = curve["points"], len(curve["points"]) // 4
    if len(points) < FEWEST_POINTS:
        return None
    first, last = points[:n], points[-n:]
    error = math.sqrt((statistics.variance(first) + statistics.variance(last)) / n)
    means = statistics.fmean(first), statistics.fmean(last)
    return {
        "first": means[0],
        "last": means[1],
        "episodes": n * curve["episodes_per_point"],
        "improved": means[1] - means[0] > SIGNIFICANT * error,
    }
