"""Rows of comparisons of two algorithms: probability of improvement, verdicts on claims, and the ablation."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import false_discovery_control

from sb3_mirl.bench.report.content import Bench, Row, columns, grouped
from sb3_mirl.bench.report.scales import ALL, groups, on_scale, scales, useless_actions
from sb3_mirl.bench.scores import (
    Estimate,
    bootstrap,
    compare,
    detectable_improvement,
    holm,
    human_normalized,
    mean,
    over_games,
    probability_of_improvement,
)

#: The components of MIRL, step by step: an algorithm and the one that it is compared with
ABLATION = (("sql_m", "sql"), ("mirl", "sql_m"), ("mirl", "sql"))
#: The paper's claim MIRL > SQL > DQN, MIRL's components, and further baselines
CLAIMS = (
    ("mirl", "sql"),
    ("sql", "dqn"),
    ("mirl", "dqn"),
    ("mirl", "sql_m"),
    ("sql_m", "sql"),
    ("mirl", "dqn_mse"),
    ("mirl", "sql_decoupled"),
    ("sql_decoupled", "sql"),
    ("mirl", "mdqn"),
)
#: Significance level of the claims of a group of environments together, and of the environments of each claim
LEVEL = 0.05
#: Probability with which the smallest detectable effect is detected
POWER = 0.8


def improvement_rows(bench: Bench) -> list[Row]:
    """Probability of improvement of MIRL over each other algorithm, and of the pairs of :data:`ABLATION` and `CLAIMS`."""
    with_mirl = (("mirl", name) for name in bench.algorithms if name != "mirl")
    pairs = dict.fromkeys([*with_mirl, *ABLATION, *CLAIMS])
    return [_compared(bench, *pair, envs) for pair in pairs if (envs := bench.shared_envs(*pair))]


def _compared(bench: Bench, algorithm: str, other: str, envs: Sequence[str]) -> Row:
    ours, others = ([bench.scores(name, env) for env in envs] for name in (algorithm, other))
    comparison = compare(ours, others)
    row: Row = {"algorithm": algorithm, "than": other, **columns(Estimate(*comparison[:3])), "p": comparison.p}
    return row | {"runs": sum(map(len, ours)), "other_runs": sum(map(len, others)), "environments": len(envs)}


def claim_rows(bench: Bench) -> list[Row]:
    """
    A verdict on each of :data:`CLAIMS`, over the environments in which both algorithms have runs: all of them, and each of the
    :func:`~sb3_mirl.bench.report.scales.groups`.

    The verdict is that of the permutation test of the probability of improvement: ``"holds"`` or ``"the opposite"`` if
    ``p_adjusted`` < :data:`LEVEL`, else ``"open"``. p is adjusted for the number of claims with runs in the same group (Holm,
    1979): the probability of a verdict other than ``"open"`` on any two equal algorithms in the group is at most 5 %, however
    the claims depend on each other. ``better_in``, ``worse_in`` and ``open_in`` are the verdicts on single environments, with
    p adjusted for their number (Benjamini and Hochberg, 1995). The verdict does not depend on the scales of environments.

    ``detectable`` is :func:`~sb3_mirl.bench.scores.detectable_improvement` at the level that Holm's adjustment asks of the
    most significant claim, 5 % divided by the number of claims; NaN if no effect can be detected. The difference of mean
    scores, in columns ``mean_...``, depends on scales; it is on the first of the
    :func:`~sb3_mirl.bench.report.scales.scales`, which for Atari is the paper's.
    """
    singles = {(pair, env): _compared(bench, *pair, [env]) for pair in CLAIMS for env in bench.shared_envs(*pair)}
    rows = []
    for group, members in groups(bench).items():
        shared = {pair: [env for env in bench.shared_envs(*pair) if env in members] for pair in CLAIMS}
        shared = {pair: envs for pair, envs in shared.items() if envs}
        compared = [_compared(bench, *pair, envs) for pair, envs in shared.items()]
        adjusted = holm([row["p"] for row in compared])
        for (pair, envs), row, p in zip(shared.items(), compared, adjusted, strict=True):
            verdict = {1: "holds", -1: "the opposite", 0: "open"}[_direction(row["value"], p)]
            found: Row = {"useless_actions": group, **row, "p_adjusted": float(p), "verdict": verdict}
            found |= _environments_by_verdict([singles[pair, env] for env in envs], envs)
            rows.append(found | _effect_sizes(bench, *pair, envs, LEVEL / len(shared)))
    return rows


def advantages(claims: Sequence[Row]) -> list[Row]:
    """
    :param claims: of :func:`claim_rows`
    :return: the rows that compare MIRL with an algorithm at a number of useless actions. A number is left out if one of that
        comparison's base environments has no runs with it, because the change of environments would look like an effect of
        the number. Empty if fewer than two numbers remain
    """
    found = [row for row in claims if row["algorithm"] == "mirl" and row["useless_actions"] != ALL]
    bases = {name: set[str]().union(*map(_bases, rows)) for name, rows in grouped(found, "than").items()}
    complete = [row for row in found if _bases(row) == bases[row["than"]]]
    return complete if len(grouped(complete, "useless_actions")) > 1 else []


def _bases(row: Row) -> set[str]:
    envs = (env for side in ("better_in", "worse_in", "open_in") for env in row[side].split())
    return {useless_actions(env)[0] for env in envs}


def trend_rows(bench: Bench) -> list[Row]:
    """
    How the probability of improvement of each of :data:`CLAIMS` changes with useless actions: the value with the largest
    number of them minus the value with the smallest, over the base environments in which both algorithms have runs with both.

    ``verdict`` is ``"rises"`` or ``"falls"`` where the 95 % interval of the stratified bootstrap excludes 0, else ``"open"``.
    It describes: it is not adjusted for the number of claims, and an environment in which both algorithms have the same
    scores, because none learns or all solve it, counts as one half.
    """
    rows: list[Row] = []
    for algorithm, other in CLAIMS:
        by_base: dict[str, dict[int, str]] = {}
        for env in bench.shared_envs(algorithm, other):
            base, number = useless_actions(env)
            by_base.setdefault(base, {})[number] = env
        fewest, most = (limit((n for envs in by_base.values() for n in envs), default=0) for limit in (min, max))
        bases = [base for base, envs in by_base.items() if {fewest, most} <= envs.keys()]
        if fewest == most or not bases:
            continue
        scores = [
            [bench.scores(name, by_base[base][number]) for base in bases]
            for number in (most, fewest)
            for name in (algorithm, other)
        ]
        change = over_games(_change, *scores)
        row: Row = {"algorithm": algorithm, "than": other, "from": fewest, "to": most, **columns(change)}
        verdict = "rises" if change.low > 0 else "falls" if change.high < 0 else "open"
        rows.append(row | {"verdict": verdict, "environments": len(bases)})
    return rows


def _change(scores: np.ndarray, others: np.ndarray, before: np.ndarray, others_before: np.ndarray) -> np.ndarray:
    return probability_of_improvement(scores, others) - probability_of_improvement(before, others_before)


def _environments_by_verdict(by_env: Sequence[Row], envs: Sequence[str]) -> Row:
    """The environments of each verdict, of the comparisons in single environments."""
    adjusted = false_discovery_control([row["p"] for row in by_env])
    sides = [_direction(row["value"], p) for row, p in zip(by_env, adjusted, strict=True)]
    names = {1: "better_in", -1: "worse_in", 0: "open_in"}
    return {name: " ".join(env for env, own in zip(envs, sides, strict=True) if own == side) for side, name in names.items()}


def _direction(value: float, p: float) -> int:
    """1 if the probability of improvement is significantly above ½, -1 if below, else 0."""
    return 0 if p >= LEVEL else 1 if value > 0.5 else -1


def _effect_sizes(bench: Bench, algorithm: str, other: str, envs: Sequence[str], level: float) -> Row:
    """The smallest effect that is detectable at a level, and the difference of means."""
    ours, others = ([bench.scores(name, env) for env in envs] for name in (algorithm, other))
    detectable = detectable_improvement(list(map(len, ours)), list(map(len, others)), power=POWER, level=level)
    scale = scales(bench)[0]
    scaled = ([on_scale(bench, scale, env, own) for env, own in zip(envs, of, strict=True)] for of in (ours, others))
    difference = columns(over_games(_difference, *scaled))
    return {"detectable": detectable, **{f"mean_{key}": number for key, number in difference.items()}}


def _difference(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    return mean(scores) - mean(others)


def ablation_rows(bench: Bench) -> list[Row]:
    """Differences of mean scores for each pair of :data:`ABLATION`; for Atari, shares of a human's score, as in the paper."""
    rows = []
    for env in bench.envs:
        for algorithm, other in ABLATION:
            scores = [bench.scores(name, env)[:, None] for name in (algorithm, other)]
            if all(map(len, scores)):
                if bench.atari:
                    scores = [human_normalized(env, raw) for raw in scores]
                row: Row = {"environment": env, "algorithm": algorithm, "minus": other}
                row |= columns(bootstrap(_difference, *scores))
                rows.append(row | {"runs": len(scores[0]), "other_runs": len(scores[1])})
    return rows
