"""Scales on which scores of different environments are comparable, and groups of environments."""

import re
from collections.abc import Sequence

import numpy as np

from sb3_mirl.bench.report.content import Bench
from sb3_mirl.bench.scores import CONVENTIONS, human_normalized

#: The group of all environments
ALL = "all"


def useless_actions(env: str) -> tuple[str, int]:
    """
    :param env: an id, such as ``"CartPole-v1"``, ``"Useless15/CartPole-v1"`` or ``"Useless12/MinAtar-Breakout-v1"``
    :return: the id of the environment without additional actions (``"CartPole-v1"``, ``"MinAtar/Breakout-v1"``), and their
        number, 0 for an id without the prefix
    """
    match = re.fullmatch(r"Useless(\d+)/(.+)", env)
    if match is None:
        return env, 0
    # Ids have at most one slash: that of MinAtar/... has become a hyphen. The last hyphen belongs to the version
    return re.sub(r"-(?!v\d+$)", "/", match[2], count=1), int(match[1])


def groups(bench: Bench) -> dict[str, list[str]]:
    """
    Environments by ``"all"``, and by each number of useless actions (``"0"``, ``"15"``) if there are several numbers.

    :param bench: of :func:`sb3_mirl.bench.report.content.read`
    """
    numbers = sorted({useless_actions(env)[1] for env in bench.envs})
    found = {ALL: bench.envs}
    if len(numbers) > 1:
        found |= {str(number): [env for env in bench.envs if useless_actions(env)[1] == number] for number in numbers}
    return found


def scales(bench: Bench) -> list[str]:
    """Names of scales, see :func:`on_scale`. The first one is that of figures; for Atari it is the paper's."""
    return [f"human_{name}" for name in CONVENTIONS] if bench.atari else ["relative"]


def factor(scale: str) -> float:
    """The factor of scores on a scale for display: human-normalised scores are shown in percent."""
    return 1.0 if scale == "relative" else 100.0


def on_scale(bench: Bench, scale: str, env: str, scores: np.ndarray) -> np.ndarray:
    """
    :param scale: one of :func:`scales`. For Atari, shares of a human's score by either convention; else ``"relative"``, the
        place between the lowest (0) and the highest (1) score of any run in the environment, with any number of useless
        actions. Returns during a training may be outside of this range
    :param env: of the scores
    :param scores: raw, any shape
    :return: the same shape
    """
    if scale != "relative":
        return human_normalized(env, scores, scale.removeprefix("human_"))
    base = useless_actions(env)[0]
    alike = [one for one in bench.envs if useless_actions(one)[0] == base]
    pooled = np.concatenate([bench.scores(algorithm, one) for algorithm in bench.algorithms for one in alike])
    low, span = pooled.min(), np.ptp(pooled)
    # If all runs have the same score, each gets 0.5: there is no difference between algorithms
    return (scores - low) / span if span else np.where(np.isnan(scores), np.nan, 0.5)


def envs_with_scale(bench: Bench) -> list[str]:
    """
    Environments of aggregates: those in which every algorithm has a run and whose scores have a scale. There is no relative
    scale where all runs have the same score, because none learns or all solve the environment.

    :param bench: of :func:`sb3_mirl.bench.report.content.read`
    :return: some of :meth:`Bench.common_envs <sb3_mirl.bench.report.content.Bench.common_envs>`
    """
    envs = bench.common_envs()
    if bench.atari:
        return envs
    scores: dict[str, set[float]] = {}
    for env in bench.envs:
        own = (bench.scores(algorithm, env).tolist() for algorithm in bench.algorithms)
        scores.setdefault(useless_actions(env)[0], set()).update(*own)
    return [env for env in envs if len(scores[useless_actions(env)[0]]) > 1]


def matrices(bench: Bench, scale: str, envs: Sequence[str]) -> dict[str, np.ndarray]:
    """
    :param scale: one of :func:`scales`
    :param envs: some of :meth:`Bench.common_envs <sb3_mirl.bench.report.content.Bench.common_envs>`
    :return: scores [runs, envs] of each algorithm that has runs; none if there is no environment
    """
    if not envs:
        return {}
    raw = {algorithm: bench.matrix(algorithm, envs) for algorithm in bench.algorithms if bench.runs(algorithm, envs[0])}
    return {
        algorithm: np.stack([on_scale(bench, scale, env, scores[:, k]) for k, env in enumerate(envs)], axis=-1)
        for algorithm, scores in raw.items()
    }
