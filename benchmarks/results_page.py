"""
Writes the tables of ``docs/results.md`` between its marks, and draws its figures, from the folders of ``results/``.

``python benchmarks/results_page.py`` writes the page and the figures that it shows. With ``--check`` nothing is written, and
the exit status says whether the tables in the page are those of the results. A mark is ``<!-- classic: scores -->`` with the
name of a folder and a table, and ``<!-- end -->`` after the table.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sb3_mirl.bench.report.cells import at_least, value_and_interval
from sb3_mirl.bench.report.claims import POWER
from sb3_mirl.bench.report.comparison import group_name
from sb3_mirl.bench.report.content import Bench, Row, grouped, read
from sb3_mirl.bench.report.figures import draw
from sb3_mirl.bench.report.scales import factor, scales
from sb3_mirl.bench.report.scales import useless_actions as count_useless_actions
from sb3_mirl.bench.report.tables import TABLES
from sb3_mirl.bench.scores import bootstrap_mean
from sb3_mirl.bench.suites import FIXED_PRIORS, label

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "results.md"
RESULTS = ROOT / "results"
FIGURES = ROOT / "docs" / "images" / "results"
MARK = re.compile(r"(<!-- ([\w-]+): (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
IMAGE = re.compile(r"images/results/([\w-]+)/([\w-]+)\.png")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Of Markdown, numbers to the right of all columns but the first."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def estimate(row: Row, factor: float = 1.0, prefix: str = "") -> str:
    return " ".join(filter(None, value_and_interval(row, factor, prefix)))


def named(env: str) -> str:
    return env.removeprefix("MinAtar/").removesuffix("NoFrameskip-v4")


def scores(bench: Bench, tables: dict[str, list[Row]]) -> str:
    """Raw scores; each number rests on as many runs as stand behind it."""
    of = {(row["environment"], row["algorithm"]): row for row in tables["scores"]}
    rows = []
    for env in bench.envs:
        cells = []
        for algorithm in bench.algorithms:
            row = of[env, algorithm]
            cells.append(f"{estimate(row)} ({row['runs']})" if row["runs"] else "no run")
        rows.append([named(env), *cells])
    return table(["environment", *map(label, bench.algorithms)], rows)


def human(bench: Bench, tables: dict[str, list[Row]]) -> str:
    """Percent of a human's score, by both conventions."""
    of = {(row["environment"], row["algorithm"]): row for row in tables["scores"] if row["runs"]}
    rows = []
    for name, year in (("mnih2015", "2015"), ("wang2016", "2016")):
        for env in bench.envs:
            cells = [
                estimate(of[env, algorithm], 100.0, f"human_{name}_") if (env, algorithm) in of else "no run"
                for algorithm in bench.algorithms
            ]
            rows.append([named(env), year, *cells])
    return table(["game", "human scores of", *map(label, bench.algorithms)], rows)


def by_group(header: Sequence[str], rows: Sequence[Row], lines: Sequence[Sequence[str]]) -> str:
    """A table with a column for the environments of each row if there are several groups of them."""
    if len(grouped(rows, "useless_actions")) < 2:
        return table(header, lines)
    names = [group_name(row["useless_actions"]) or "all environments" for row in rows]
    return table(["environments with", *header], [[name, *line] for name, line in zip(names, lines, strict=True)])


def aggregates(bench: Bench, tables: dict[str, list[Row]]) -> str:
    """Over the environments that all algorithms have, on the report's first scale."""
    scale = scales(bench)[0]
    groups = grouped((row for row in tables["aggregates"] if row["scale"] == scale), "useless_actions")
    firsts, lines = [], []
    for rows in groups.values():
        for algorithm, own in grouped(rows).items():
            numbers = (estimate(row, factor(scale)) for row in own)
            firsts.append(own[0])
            lines.append([label(algorithm), *numbers, f"{own[0]['runs']} × {own[0]['environments']}"])
    statistics = grouped(tables["aggregates"], "statistic")
    return by_group(["algorithm", *statistics, "runs × environments"], firsts, lines)


def useless_actions(bench: Bench, tables: dict[str, list[Row]]) -> str:
    """Interquartile means by the number of useless actions."""
    rows = tables["useless_actions"]
    lines = [[label(name), *(estimate(row, factor(row["scale"])) for row in own)] for name, own in grouped(rows).items()]
    return table(["algorithm", *(group_name(str(number)) for number in grouped(rows, "useless_actions"))], lines)


def claims(bench: Bench, tables: dict[str, list[Row]]) -> str:
    """What the runs say about MIRL > SQL > DQN, and about MIRL's components."""
    lines = []
    # With groups, most environments are in several rows
    places = ["better", "worse"] if len(grouped(tables["claims"], "useless_actions")) > 1 else ["better", "worse", "open"]
    for row in tables["claims"]:
        where = [", ".join(map(named, row[f"{place}_in"].split())) or "–" for place in places]
        name = f"{label(row['algorithm'])} > {label(row['than'])}"
        difference = estimate(row, factor(scales(bench)[0]), "mean_")
        numbers = [estimate(row), f"{row['p']:.2g}", f"{row['p_adjusted']:.2g}", row["verdict"], at_least(row["detectable"])]
        lines.append([name, *numbers, *where, difference])
    header = ["claim", "probability of improvement", "p", "adjusted p", "verdict", f"detectable with {POWER:.0%} power"]
    header += [*(f"{place} in" for place in places), f"difference of means, {'% of human' if bench.atari else 'relative'}"]
    return by_group(header, tables["claims"], lines)


def trends(bench: Bench, tables: dict[str, list[Row]]) -> str:
    """How the probability of improvement changes from the fewest to the most useless actions."""
    rows = tables["trends"]
    lines = [
        [f"{label(row['algorithm'])} > {label(row['than'])}", str(row["from"]), str(row["to"]), estimate(row), row["verdict"]]
        for row in rows
    ]
    return table(["claim", "from", "to", "change of the probability of improvement", "trend"], lines)


def ablation(bench: Bench, tables: dict[str, list[Row]]) -> str:
    """Differences of mean scores between SQL, SQL_m and MIRL."""
    of = {(row["environment"], row["algorithm"], row["minus"]): row for row in tables["ablation"]}
    pairs = list(dict.fromkeys((row["algorithm"], row["minus"]) for row in tables["ablation"]))
    unit = 100.0 if bench.atari else 1.0
    rows = []
    for env in bench.envs:
        cells = [estimate(of[(env, *pair)], unit) if (env, *pair) in of else "no run" for pair in pairs]
        rows.append([named(env), *cells])
    return table(["environment", *(" − ".join(map(label, pair)) for pair in pairs)], rows)


def prior(bench: Bench, tables: dict[str, list[Row]]) -> str:
    """ρ at the end of the training, of the algorithms that learn one: mean over runs."""
    rows = []
    for env in bench.envs:
        for algorithm in bench.algorithms:
            own = [row for row in tables["prior"] if (row["environment"], row["algorithm"]) == (env, algorithm)]
            if own and algorithm not in FIXED_PRIORS:
                rows.append([named(env), label(algorithm), ", ".join(f"{row['name']} {row['value']:.2f}" for row in own)])
    return table(["environment", "algorithm", "ρ"], rows)


def useless_prior(bench: Bench, tables: dict[str, list[Row]]) -> str:
    """The part of ρ at the end of the training that useless actions have, of the algorithms that learn ρ: mean over runs."""
    learning = [name for name in ("sql_m", "mirl") if name in bench.algorithms]
    rows = []
    for env in bench.envs:
        number = count_useless_actions(env)[1]
        if not number:
            continue
        cells = []
        for name in learning:
            priors = np.array([result["prior"] for result in bench.runs(name, env)])
            value, low, high = bootstrap_mean(priors[:, -number:].sum(axis=1))
            cells.append(f"{value:.0%} [{low:.0%}, {high:.0%}]")
        rows.append([named(env), f"{number / priors.shape[1]:.0%}", *cells])
    return table(["environment", "uniform ρ", *map(label, learning)], rows)


WRITERS = {
    "scores": scores,
    "human": human,
    "aggregates": aggregates,
    "useless_actions": useless_actions,
    "claims": claims,
    "trends": trends,
    "ablation": ablation,
    "prior": prior,
    "useless_prior": useless_prior,
}


class Tables(dict[str, list[Row]]):
    """The tables of a folder, each computed when it is first used."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.bench = bench

    def __missing__(self, name: str) -> list[Row]:
        self[name] = TABLES[name](self.bench)
        return self[name]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, compare the tables")
    check = parser.parse_args().check
    old = PAGE.read_text("utf-8")
    benches = {name: read(RESULTS / name) for name in dict.fromkeys(mark[1] for mark in MARK.findall(old))}
    tables = {name: Tables(bench) for name, bench in benches.items()}

    def filled(match: re.Match[str]) -> str:
        begin, folder, wanted, end = match.groups()
        return f"{begin}\n{WRITERS[wanted](benches[folder], tables[folder])}\n{end}"

    new = MARK.sub(filled, old)
    if check:
        if new != old:
            print(f"{PAGE} is not what `python benchmarks/results_page.py` makes of {RESULTS}", file=sys.stderr)
        return int(new != old)
    PAGE.write_text(new, "utf-8")
    for folder in dict.fromkeys(folder for folder, _ in IMAGE.findall(new)):
        figures = draw(benches[folder], tables[folder])
        (FIGURES / folder).mkdir(parents=True, exist_ok=True)
        for name in dict.fromkeys(name for of, name in IMAGE.findall(new) if of == folder):
            (FIGURES / folder / f"{name}.png").write_bytes(figures[name])
    return 0


if __name__ == "__main__":
    sys.exit(main())
