"""The sections of the page that compare algorithms: aggregates, claims and the ablation."""

from collections.abc import Mapping
from typing import Any

from sb3_mirl.bench.report.aggregates import statistics
from sb3_mirl.bench.report.cells import Figure, Note, Table, at_least, estimate, missing, number, plural
from sb3_mirl.bench.report.claims import ABLATION, LEVEL, POWER, advantages
from sb3_mirl.bench.report.content import Bench, Row, grouped
from sb3_mirl.bench.report.scales import ALL, envs_with_scale, factor, groups, scales
from sb3_mirl.bench.suites import label

SCALE_NAMES = {
    "human_mnih2015": "percent of a human's score, human scores of Mnih et al. 2015 (the convention of the paper's Table 1)",
    "human_wang2016": "percent of a human's score, human scores of Wang et al. 2016",
    "relative": "relative scores",
}
Tables = Mapping[str, list[Row]]


def aggregates_section(bench: Bench, tables: Tables, figures: Mapping[str, bytes]) -> dict[str, Any]:
    """
    :param bench: of :func:`sb3_mirl.bench.report.content.read`
    :param tables: its rows, by the names of :data:`sb3_mirl.bench.report.tables.TABLES`
    :param figures: of :func:`sb3_mirl.bench.report.figures.draw`
    :return: what the template ``aggregates.html`` shows
    """
    common, with_scale, improvement = bench.common_envs(), envs_with_scale(bench), tables["improvement"]
    started = [algorithm for algorithm in bench.algorithms if any(bench.runs(algorithm, env) for env in bench.envs)]
    without = {env: [label(algorithm) for algorithm in started if not bench.runs(algorithm, env)] for env in bench.envs}
    left_out = [f"{bench.name(env)} (no run of {', '.join(names)})" for env, names in without.items() if names]
    left_out += [f"{bench.name(env)} (all runs have the same score)" for env in common if env not in with_scale]
    by_group = [_group(bench, tables, group) for group in groups(bench)]
    return {
        "common": plural(len(with_scale), "environment") if with_scale else "",
        "no_scale": bool(common) and not with_scale,
        "left_out": left_out,
        "useless_actions": _useless_actions(tables["useless_actions"]),
        "trends": _trends(tables["trends"]),
        "all": by_group[0],
        "groups": by_group[1:],
        "figures": _figures(tables, figures),
        "improvement": _improvement(bench, [row for row in improvement if row["algorithm"] == "mirl"]),
        "level": LEVEL,
        "power": f"{POWER:.0%}",
    }


def ablation_section(bench: Bench, tables: Tables) -> dict[str, Any]:
    """
    :param bench: of :func:`sb3_mirl.bench.report.content.read`
    :param tables: its rows, by the names of :data:`sb3_mirl.bench.report.tables.TABLES`
    :return: what the template ``ablation.html`` shows
    """
    rows = {(row["environment"], row["algorithm"], row["minus"]): row for row in tables["ablation"]}
    lines = []
    for env in bench.envs:
        cells = []
        for pair in ABLATION:
            row = rows.get((env, *pair))
            if row is None:
                cells.append(missing(f"no run of {', '.join(label(name) for name in pair if not bench.runs(name, env))}"))
            else:
                runs = Note(f"{row['runs']} and {row['other_runs']} runs")
                cells.append(estimate(row, 100.0 if bench.atari else 1.0, notes=[runs]))
        lines.append([bench.name(env), *cells])
    unit = "percent of a human's score, Mnih et al. 2015" if bench.atari else "raw scores"
    header = ["environment", *(" − ".join(map(label, pair)) for pair in ABLATION)]
    return {
        "differences": Table(f"Differences of mean scores, {unit}", header, lines),
        "improvement": _improvement(
            bench, [row for row in tables["improvement"] if (row["algorithm"], row["than"]) in ABLATION]
        ),
    }


def group_name(group: str) -> str:
    """
    :param group: of :func:`sb3_mirl.bench.report.scales.groups`
    :return: such as ``15 useless actions``; empty for all environments
    """
    return "" if group == ALL else "no useless action" if group == "0" else plural(int(group), "useless action")


def _group(bench: Bench, tables: Tables, group: str) -> dict[str, Any]:
    """Aggregates and claims of a group of environments."""
    aggregates, claims = (
        [row for row in tables[name] if row["useless_actions"] == group] for name in ("aggregates", "claims")
    )
    return {
        "name": group_name(group),
        "aggregates": [_aggregates(scale, group, own) for scale, own in grouped(aggregates, "scale").items()],
        "claims": _claims(bench, group, claims),
    }


def _with_group(caption: str, group: str) -> str:
    return ", ".join(filter(None, (caption, group_name(group))))


def _aggregates(scale: str, group: str, rows: list[Row]) -> Table:
    lines = [
        [label(algorithm), *(estimate(row, factor(scale)) for row in own), plural(own[0]["runs"], "run")]
        for algorithm, own in grouped(rows).items()
    ]
    header = ["algorithm", *statistics(scale), "runs per environment"]
    return Table(_with_group(f"Aggregates: {SCALE_NAMES[scale]}", group), header, lines)


def _useless_actions(rows: list[Row]) -> Table | None:
    """Interquartile means: a row for each algorithm, a column for each number of useless actions."""
    if not rows:
        return None
    scale, numbers = rows[0]["scale"], list(grouped(rows, "useless_actions"))
    lines = [[label(algorithm), *(estimate(row, factor(scale)) for row in own)] for algorithm, own in grouped(rows).items()]
    envs = plural(rows[0]["environments"], "environment")
    caption = f"IQM over {envs} by the number of useless actions, {SCALE_NAMES[scale]}"
    return Table(caption, ["algorithm", *(str(number) for number in numbers)], lines)


def _figures(tables: Tables, images: Mapping[str, bytes]) -> dict[str, Figure]:
    """The figures of the section that were drawn, by name."""
    describe = {
        "useless_actions": _describe_useless_actions,
        "advantage": _describe_advantage,
        "aggregates": _describe_aggregates,
        "profiles": _describe_profiles,
        "efficiency": _describe_efficiency,
        "improvement": _describe_improvement,
    }
    rows = {**tables, "advantage": advantages(tables["claims"])}
    return {name: Figure(images[name], *words(rows[name])) for name, words in describe.items() if name in images}


def _by_algorithm(rows: list[Row]) -> str:
    """The value of each algorithm."""
    return ", ".join(f"{label(row['algorithm'])} {number(factor(row['scale']) * row['value'])}" for row in rows)


def _describe_useless_actions(rows: list[Row]) -> tuple[str, str]:
    by_number = grouped(rows, "useless_actions").items()
    values = " ".join(f"With {group_name(str(count))}: {_by_algorithm(own)}." for count, own in by_number)
    caption = f"IQM by the number of useless actions, {SCALE_NAMES[rows[0]['scale']]}"
    return f"Interquartile mean of each algorithm as points with intervals. {values}", caption


def _describe_advantage(rows: list[Row]) -> tuple[str, str]:
    values = []
    for count, own in grouped(rows, "useless_actions").items():
        listed = ", ".join(f"{label(row['than'])} {number(row['value'])}" for row in own)
        values.append(f"With {group_name(count)}: {listed}.")
    caption = "Probability that MIRL is better than another algorithm, by the number of useless actions"
    return f"Probability of improvement of MIRL as points with intervals. {' '.join(values)}", caption


def _describe_aggregates(rows: list[Row]) -> tuple[str, str]:
    scale = rows[0]["scale"]
    shown = [row for row in rows if (row["scale"], row["useless_actions"]) == (scale, ALL)]
    by_statistic = grouped(shown, "statistic")
    alt = f"{', '.join(by_statistic)} of each algorithm as points with intervals. IQM: {_by_algorithm(by_statistic['IQM'])}."
    return alt, f"Aggregates, {SCALE_NAMES[scale]}"


def _describe_profiles(rows: list[Row]) -> tuple[str, str]:
    by_threshold = grouped(rows, "threshold")
    middle = list(by_threshold)[len(by_threshold) // 2]
    values = ", ".join(f"{label(row['algorithm'])} {number(row['value'])}" for row in by_threshold[middle])
    score = number(factor(rows[0]["scale"]) * middle)
    alt = f"Share of runs above a score, a curve for each algorithm. Above {score}: {values}."
    return alt, f"Performance profiles: share of runs above a score, {SCALE_NAMES[rows[0]['scale']]}"


def _describe_efficiency(rows: list[Row]) -> tuple[str, str]:
    alt = f"Interquartile mean of the return while training, a curve per algorithm. At the end: {_by_algorithm(_last(rows))}."
    return alt, f"Sample efficiency: IQM of the return while training, {SCALE_NAMES[rows[0]['scale']]}"


def _last(rows: list[Row]) -> list[Row]:
    return [own[-1] for own in grouped(rows).values()]


def _describe_improvement(rows: list[Row]) -> tuple[str, str]:
    pairs = "; ".join(f"{label(row['algorithm'])} over {label(row['than'])}: {number(row['value'])}" for row in rows)
    return f"Probability of improvement. {pairs}.", "Probability of improvement"


def _improvement(bench: Bench, rows: list[Row]) -> Table | None:
    lines = [
        [
            f"{label(row['algorithm'])} over {label(row['than'])}",
            estimate(row),
            f"{row['p']:.2g}",
            f"{row['runs']} and {row['other_runs']}",
            f"{row['environments']} of {len(bench.envs)}",
        ]
        for row in rows
    ]
    caption = "Probability that a run is better than one of the other algorithm; 0.5: no difference"
    return Table(caption, ["", "probability", "p", "runs", "environments"], lines) if rows else None


def _trends(rows: list[Row]) -> Table | None:
    if not rows:
        return None
    names = (f"{label(row['algorithm'])} better than {label(row['than'])}" for row in rows)
    lines = [
        [name, str(row["from"]), str(row["to"]), estimate(row), row["verdict"], str(row["environments"])]
        for name, row in zip(names, rows, strict=True)
    ]
    caption = "Change of the probability of improvement from the fewest to the most useless actions"
    return Table(caption, ["", "from", "to", "change", "trend", "environments"], lines)


def _claims(bench: Bench, group: str, rows: list[Row]) -> Table | None:
    lines = []
    for row in rows:
        envs = [[bench.name(env) for env in row[key].split()] for key in ("better_in", "worse_in", "open_in")]
        numbers = [estimate(row), f"{row['p']:.2g}", f"{row['p_adjusted']:.2g}", at_least(row["detectable"])]
        numbers.append(estimate(row, factor(scales(bench)[0]), "mean_"))
        claim = f"{label(row['algorithm'])} better than {label(row['than'])}"
        lines.append([claim, *numbers, row["verdict"], *(", ".join(names) or "–" for names in envs)])
    difference = f"difference of means, {'% of human' if bench.atari else 'relative'}"
    header = ["", "probability of improvement", "p", "adjusted p", f"detectable with {POWER:.0%} power", difference]
    header += ["the claim", "better in", "worse in", "open in"]
    return Table(_with_group("Claims", group), header, lines, words=[7, 8, 9]) if rows else None
