"""
The page of a benchmark's report: one HTML file that contains its images, from the Jinja2 templates in ``templates/``.

This module prepares texts and numbers; all HTML and all explanations are in the templates.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import sb3_mirl
from sb3_mirl.bench.report.cells import Cell, Figure, Note, Table, duration, estimate, missing, number, plural
from sb3_mirl.bench.report.comparison import ablation_section, aggregates_section
from sb3_mirl.bench.report.content import Bench, Row, comparability_warnings, grouped
from sb3_mirl.bench.report.figures import figure_name
from sb3_mirl.bench.scores import game_name, human_normalized, raw_paper_scores, reference_scores
from sb3_mirl.bench.suites import label, tuning_lines
from sb3_mirl.common.text import printable

#: Algorithms of the paper's Table 1
PAPER = ("dqn", "sql", "mirl")
#: Headings of published scores, by their column in the reference scores
PUBLISHED = {"dqn_mnih2015": "DQN, 2015", "dqn_adam_mse_dopamine": "DQN, Dopamine", "qrdqn_jax_dopamine": "QR-DQN, Dopamine"}
CONVENTION_NAMES = {"mnih2015": "Mnih et al. 2015", "wang2016": "Wang et al. 2016"}
#: The figures of an environment: kind, table, caption
FIGURES = (
    ("curve", "curves", "Return over environment steps"),
    ("prior", "prior", "Learned ρ"),
    ("beta", "beta", "β over environment steps"),
)

Tables = Mapping[str, list[Row]]


def page(bench: Bench, tables: Tables, figures: Mapping[str, bytes]) -> str:
    """
    :param bench: of :func:`sb3_mirl.bench.report.content.read`
    :param tables: its rows, by the names of :data:`sb3_mirl.bench.report.tables.TABLES`
    :param figures: of :func:`sb3_mirl.bench.report.figures.draw`
    :return: a whole HTML document
    """
    environment = Environment(
        loader=PackageLoader("sb3_mirl.bench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Names and reasons come from files. Markup is the output of macros
        finalize=lambda value: value if isinstance(value, Markup) else printable(value),
    )
    sections: dict[str, dict[str, Any]] = {"Runs": _runs(bench)}
    if bench.results:
        sections |= {
            "Scores": _scores(bench, tables),
            "Aggregates": aggregates_section(bench, tables, figures),
            "Ablation": ablation_section(bench, tables),
            "Environments": {"environments": _environments(bench, tables, figures)},
        }
    sections["Settings"] = _settings(bench, tables)
    return environment.get_template("report.html").render(
        title=f"Benchmark {bench.suite.name}",
        summary=_summary(bench),
        atari=bench.atari,
        sections=list(sections),
        **{name.lower(): content for name, content in sections.items()},
    )


def _coverage(counts: Counter[str]) -> Note:
    """``10 runs``, or, marked, how many are missing and why: ``3 of 10 runs, failed: 1``."""
    asked, done = counts.total(), counts["done"]
    if not asked:
        return Note("not asked for", marked=True)
    if done == asked:
        return Note(plural(done, "run"))
    words = [f"{done} of {plural(asked, 'run')}" if done else "no run"]
    words += [f"{state}: {counts[state]}" for state in ("failed", "unreadable", "running") if counts[state]]
    return Note(", ".join(words), marked=True)


def _grid(bench: Bench, caption: str, cell: Callable[[str, str], Cell]) -> Table:
    """A table with a row for each environment and a column for each algorithm."""
    rows = [[bench.name(env), *(cell(env, algorithm) for algorithm in bench.algorithms)] for env in bench.envs]
    return Table(caption, ["environment", *map(label, bench.algorithms)], rows)


def _by_pair(rows: Iterable[Row]) -> dict[tuple[str, str], Row]:
    return {(row["environment"], row["algorithm"]): row for row in rows}


def _assignments(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in values.items())


# ---- sections --------------------------------------------------------------------------------------------------------


def _summary(bench: Bench) -> dict[str, Any]:
    counts = Counter(bench.states.values())
    return {
        "jobs": plural(len(bench.states), "job") if bench.states else "",
        "done": counts["done"],
        "unfinished": [
            f"{counts[state]} {state}" for state in ("running", "failed", "missing", "unreadable") if counts[state]
        ],
        "version": sb3_mirl.__version__,
        "when": datetime.now().strftime("%Y-%m-%d %H:%M"),
    }


def _runs(bench: Bench) -> dict[str, Any]:
    def coverage(env: str, algorithm: str) -> Cell:
        return Cell(notes=(_coverage(bench.coverage(algorithm, env)),))

    reasons = [
        [bench.name(job.env), label(job.algorithm), str(job.seed), bench.states[job], reason]
        for job, reason in bench.reasons.items()
    ]
    header = ["environment", "algorithm", "seed", "state", "reason"]
    return {
        "finished": _grid(bench, "Finished runs", coverage) if bench.states else None,
        "comparability_warnings": comparability_warnings(bench),
        "unused": [bench.name(env) for env in bench.suite.steps if env not in bench.envs] if bench.states else [],
        "reasons": Table("Why runs have no result", header, reasons, words=[4]) if reasons else None,
    }


def _scores(bench: Bench, tables: Tables) -> dict[str, Any]:
    lines = tuning_lines(bench.suite, bench.algorithms)
    caption = "Raw scores: mean over runs, 95% interval, and runs"
    paper = raw_paper_scores("dqn")
    return {
        "paper_above_2015": sum(score > reference_scores(game)["dqn_mnih2015"] for game, score in paper.items()),
        "paper_games": len(paper),
        "normalised": [_table_1(bench, tables["scores"], convention) for convention in CONVENTION_NAMES]
        if bench.atari
        else [],
        "tuning": [line[:1].upper() + line[1:] for line in lines],
        "raw": _grid(bench, caption, _score_cell(bench, tables["scores"])),
    }


def _score_cell(bench: Bench, scores: list[Row], factor: float = 1.0, prefix: str = "") -> Callable[[str, str], Cell]:
    """The cell of an environment and an algorithm: the score, its interval, and the number of runs."""
    by_pair = _by_pair(scores)

    def cell(env: str, algorithm: str) -> Cell:
        row, coverage = by_pair[env, algorithm], _coverage(bench.coverage(algorithm, env))
        return estimate(row, factor, prefix, [coverage]) if row["runs"] else Cell(notes=(coverage,))

    return cell


def _table_1(bench: Bench, scores: list[Row], convention: str) -> Table:
    """The paper's Table 1 with our columns and published scores, in percent of a human's score."""
    by_pair, prefix = _by_pair(scores), f"human_{convention}_"
    cell = _score_cell(bench, scores, 100.0, prefix)
    rows, values = [], {}
    for env in bench.envs:
        paper, published = _paper_and_published(env, convention)
        cells = [cell(env, algorithm) for algorithm in bench.algorithms]
        rows.append([game_name(env), *map(number, paper), *cells, *map(number, published)])
        ours = [100.0 * by_pair[env, algorithm].get(f"{prefix}value", np.nan) for algorithm in bench.algorithms]
        values[env] = [*paper, *ours, *published]
    foot = []
    if common := bench.common_envs():
        for name, statistic in (("mean", np.mean), ("median", np.median)):
            columns = statistic([values[env] for env in common], axis=0)
            texts = ("–" if np.isnan(value) else number(float(value)) for value in columns)
            foot.append([f"{name} of {plural(len(common), 'game')}", *texts])
    return Table(
        f"Table 1: percent of a human's score, human scores of {CONVENTION_NAMES[convention]}",
        ["game", *map(label, PAPER), *map(label, bench.algorithms), *PUBLISHED.values()],
        rows,
        [("", 1), ("paper, Table 1", len(PAPER)), ("this benchmark", len(bench.algorithms)), ("published", len(PUBLISHED))],
        foot,
    )


def _paper_and_published(env: str, convention: str) -> tuple[list[float], list[float]]:
    """Percent of a human's score of :data:`PAPER` and of :data:`PUBLISHED`."""
    reference = reference_scores(env)
    raw = [raw_paper_scores(algorithm)[game_name(env)] for algorithm in PAPER]
    raw += [reference[column] for column in PUBLISHED]
    percent = (100.0 * human_normalized(env, np.array(raw), convention)).tolist()
    return percent[: len(PAPER)], percent[len(PAPER) :]


def _environments(bench: Bench, tables: Tables, figures: Mapping[str, bytes]) -> list[tuple[str, list[Figure]]]:
    """The name of each environment with its figures."""
    environments = []
    for env in bench.envs:
        shown = []
        for kind, table, caption in FIGURES:
            image = figures.get(figure_name(kind, env))
            if image is not None:
                rows = grouped(row for row in tables[table] if row["environment"] == env)
                runs = ", ".join(f"{label(name)} {own[-1]['runs']}" for name, own in rows.items())
                alt = _prior_alt(rows) if kind == "prior" else _last_values(rows)
                shown.append(Figure(image, f"{caption}, {env}. {alt}", f"{caption}. Runs: {runs}"))
        environments.append((bench.name(env), shown))
    return environments


def _last_values(rows: dict[str, list[Row]]) -> str:
    return "At the end: " + ", ".join(f"{label(name)} {number(own[-1]['value'])}" for name, own in rows.items()) + "."


def _prior_alt(rows: dict[str, list[Row]]) -> str:
    """The prior of the last algorithm, which is MIRL if it took part."""
    name, own = list(rows.items())[-1]
    return f"{label(name)}: " + ", ".join(f"{row['name']} {row['value']:.3f}" for row in own) + "."


def _settings(bench: Bench, tables: Tables) -> dict[str, Any]:
    suite, rows = bench.suite, tables["settings"]
    steps = [[bench.name(env), f"{suite.steps[env]:,}"] for env in bench.envs or suite.steps]
    by_algorithm = grouped(rows)
    tuning = []
    for algorithm in bench.algorithms:
        files = dict.fromkeys(row["hyperparameters_file"] for row in by_algorithm.get(algorithm, []))
        tuning.append([label(algorithm), suite.tuning_of(algorithm), ", ".join(filter(None, files)) or "not recorded"])
    shown = [
        Table("Environment steps of a training", ["environment", "steps"], steps),
        Table("Where hyper-parameters come from", ["algorithm", "tuning", "file"], tuning, words=[1, 2]),
    ]
    if bench.results:
        shown += [_runs_by_algorithm(by_algorithm), _speeds(bench, rows), _versions(tables["versions"])]
    return {
        "episodes": suite.episodes,
        "epsilon": f"{suite.epsilon:g}",
        "hyperparams": _assignments(suite.hyperparams),
        "env_kwargs": _assignments(suite.env_kwargs),
        "own_hyperparams": {label(algorithm): _assignments(own) for algorithm, own in suite.own_hyperparams.items()},
        "tables": shown,
    }


def _runs_by_algorithm(by_algorithm: dict[str, list[Row]]) -> Table:
    lines = []
    for algorithm, rows in by_algorithm.items():
        runs = str(sum(row["runs"] for row in rows))
        episodes, epsilon, device, source = (
            ", ".join(dict.fromkeys(row[key] for row in rows))
            for key in ("episodes", "epsilon", "device", "random_actions_from")
        )
        seconds = sum(row["process_seconds"] for row in rows)
        lines.append([label(algorithm), runs, episodes, epsilon, device, duration(seconds), source])
    header = ["algorithm", "runs", "episodes", "ε", "device", "training in all", "random actions from"]
    return Table("Runs as they were", header, lines, words=[6])


def _speeds(bench: Bench, rows: list[Row]) -> Table:
    by_pair = _by_pair(rows)

    def cell(env: str, algorithm: str) -> Cell:
        row = by_pair.get((env, algorithm))
        if row is None:
            return missing("no run")
        notes = [Note(f"{row['steps_per_second']:,.0f} steps/s"), Note(f"{row['steps']} steps")]
        if row["trained_jointly"] != "1":
            notes.append(Note(f"{row['trained_jointly']} runs jointly"))
        return Cell(duration(row["training_seconds"]), tuple(notes))

    return _grid(bench, "Wall time of a training, mean over runs, and steps trained", cell)


def _versions(rows: list[Row]) -> Table:
    """Versions of packages, with the number of runs if there are several."""
    lines = []
    for package, own in grouped(rows, "package").items():
        counted = ", ".join(f"{row['version']} ({plural(row['runs'], 'run')})" for row in own)
        lines.append([package, counted if len(own) > 1 else own[0]["version"]])
    return Table("Versions", ["package", "version"], lines)
