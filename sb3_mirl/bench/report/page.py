"""The page of a benchmark's report: plain HTML that carries its images along, from the template ``templates/report.html``."""

import base64
import html
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from importlib import resources
from string import Template

import numpy as np

import sb3_mirl
from sb3_mirl.bench.report.figures import figure_name
from sb3_mirl.bench.report.tables import ABLATION, LEVEL, STATISTICS, Bench, Row, label, oddities
from sb3_mirl.bench.scores import human_normalized, paper_scores, reference_scores
from sb3_mirl.bench.suites import tuning_lines
from sb3_mirl.common.text import printable

#: Of Table 1
PAPER = ("dqn", "sql", "mirl")
#: Columns of the reference scores
PUBLISHED = {"dqn_mnih2015": "DQN, 2015", "dqn_adam_mse_dopamine": "DQN, Dopamine", "qrdqn_jax_dopamine": "QR-DQN, Dopamine"}
CONVENTION_NAMES = {"mnih2015": "Mnih et al. 2015", "wang2016": "Wang et al. 2016"}
SCALE_NAMES = {
    "human_mnih2015": "percent of a human's score, human scores of Mnih et al. 2015 (the convention of the paper's Table 1)",
    "human_wang2016": "percent of a human's score, human scores of Wang et al. 2016",
    "relative": "relative scores",
}
INTERVALS = """<p>A run is one training with its own seed; its score is the mean over the episodes of its evaluation. Ranges in
square brackets, bars and bands are 95% percentile intervals of the bootstrap over runs. Over several environments it is
stratified: runs are drawn anew in each environment, environments are as they are. The intervals say what other seeds might
give, nothing about other environments; with fewer than about five runs they tend to be too narrow. A number that rests on one
run has no interval. Runs that failed or are missing are left out of means, not counted as zero.</p>"""


def page(bench: Bench, tables: dict[str, list[Row]], figures: dict[str, bytes]) -> str:
    """
    :param bench: of :func:`sb3_mirl.bench.report.tables.read`
    :param tables: its rows
    :param figures: of :func:`sb3_mirl.bench.report.figures.draw`
    :return: a whole HTML document
    """
    sections = {"Runs": _runs(bench)}
    if bench.results:
        sections |= {
            "Scores": _scores(bench, tables),
            "Aggregates": _aggregates(bench, tables, figures),
            "Ablation": _ablation(bench, tables),
            "Environments": _environments(bench, tables, figures),
        }
    sections["Settings"] = _settings(bench, tables)
    template = Template(
        resources.files("sb3_mirl.bench.report").joinpath("templates").joinpath("report.html").read_text("utf-8")
    )
    return template.substitute(
        title=escape(f"Benchmark {bench.suite.name}"),
        summary=_summary(bench),
        contents="\n".join(f'<li><a href="#{name.lower()}">{name}</a></li>' for name in sections),
        sections="\n".join(
            f'<section id="{name.lower()}">\n<h2>{name}</h2>\n{content}\n</section>' for name, content in sections.items()
        ),
    )


def escape(text: str) -> str:
    """Text as HTML."""
    return html.escape(printable(text))


# ---- pieces ----------------------------------------------------------------------------------------------------------


def number(value: float) -> str:
    """Three or four digits of what can be told apart, with a minus sign."""
    size = abs(value)
    digits = 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 0.1 or size == 0 else 3
    return f"{value:,.{digits}f}".replace("-", "−")


def _estimate(row: Row, factor: float = 1.0, prefix: str = "") -> str:
    """A value and, if there is one, its interval."""
    value, low, high = (factor * row[prefix + key] for key in ("value", "low", "high"))
    interval = "" if np.isnan(low) else f"<small>[{number(low)}, {number(high)}]</small>"
    return f"{number(value)}{interval}"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _coverage(coverage: Counter[str]) -> str:
    """``10 runs``, or what is not as it should be: ``3 of 10 runs, failed: 1``."""
    asked, done = coverage.total(), coverage["done"]
    if not asked:
        return '<small class="mark">not asked for</small>'
    if done == asked:
        return f"<small>{_plural(done, 'run')}</small>"
    words = [f"{done} of {_plural(asked, 'run')}" if done else "no run"]
    words += [f"{state}: {coverage[state]}" for state in ("failed", "unreadable", "running") if coverage[state]]
    return f'<small class="mark">{", ".join(words)}</small>'


def _table(
    caption: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    groups: Sequence[tuple[str, int]] = (),
    foot: Sequence[Sequence[str]] = (),
    text: Sequence[int] = (),
) -> str:
    """
    A table that scrolls within itself. Cells are HTML, header and caption are text.

    :param groups: of columns, a name and a number of columns each; all columns
    :param text: columns of words, which are broken and begin at the left
    """

    def line(row: Sequence[str]) -> str:
        cells = [f'<td class="text">{cell}</td>' if k in text else f"<td>{cell}</td>" for k, cell in enumerate(row) if k > 0]
        return f'<tr><th scope="row">{row[0]}</th>{"".join(cells)}</tr>'

    above = "".join(
        f'<th scope="colgroup" colspan="{count}">{escape(name)}</th>' if name else f'<td colspan="{count}"></td>'
        for name, count in groups
    )
    parts = [
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">',
        f"<table>\n<caption><span>{escape(caption)}</span></caption>",
        "<thead>",
        *([f"<tr>{above}</tr>"] if groups else []),
        "<tr>" + "".join(f'<th scope="col">{escape(name)}</th>' for name in header) + "</tr>",
        "</thead>",
        "<tbody>",
        *map(line, rows),
        "</tbody>",
        *(["<tfoot>", *map(line, foot), "</tfoot>"] if foot else []),
        "</table>\n</div>",
    ]
    return "\n".join(parts)


def _figure(image: bytes, alt: str, caption: str) -> str:
    data = base64.b64encode(image).decode("ascii")
    return (
        f'<figure>\n<img src="data:image/png;base64,{data}" alt="{escape(alt)}">\n<figcaption>{escape(caption)}</figcaption>\n'
        "</figure>"
    )


def _game(env: str) -> str:
    return env.removeprefix("ALE/").rpartition("-v")[0].removesuffix("NoFrameskip")


def _label(algorithm: str) -> str:
    """HTML."""
    return escape(label(algorithm))


def _name(bench: Bench, env: str) -> str:
    """Of an environment, short where that is clear. HTML."""
    return escape(_game(env) if bench.atari else env)


# ---- sections --------------------------------------------------------------------------------------------------------


def _summary(bench: Bench) -> str:
    counts = Counter(bench.states.values())
    if not bench.states:
        done = "Nothing has run: no job has been asked for yet."
    elif not bench.results:
        done = f"Nothing has run to its end yet: of {_plural(len(bench.states), 'job')} none has a result."
    else:
        done = f"{counts['done']} of {_plural(len(bench.states), 'job')} are finished."
    left = [f"{counts[state]} {state}" for state in ("running", "failed", "missing", "unreadable") if counts[state]]
    marked = f' <span class="mark">Not finished: {", ".join(left)}.</span>' if left else ""
    when = datetime.now().strftime("%Y-%m-%d %H:%M")
    return f"<p>{done}{marked} Written by sb3-mirl {sb3_mirl.__version__} on {when}.</p>\n{INTERVALS}"


def _runs(bench: Bench) -> str:
    if not bench.states:
        return "<p>Nothing has run.</p>"
    rows = [
        [_name(bench, env), *(_coverage(bench.coverage(algorithm, env)) for algorithm in bench.algorithms)]
        for env in bench.envs
    ]
    parts = [_table("Finished runs", ["environment", *map(label, bench.algorithms)], rows)]
    parts += [f'<p class="mark">{escape(odd)}</p>' for odd in oddities(bench)]
    unused = [env for env in bench.suite.steps if env not in bench.envs]
    if unused:
        parts.append(f"<p>Of the suite, not asked for: {', '.join(_name(bench, env) for env in unused)}.</p>")
    if bench.reasons:
        reasons = [
            [_name(bench, job.env), _label(job.algorithm), str(job.seed), bench.states[job], escape(reason)]
            for job, reason in bench.reasons.items()
        ]
        parts.append(
            _table("Why runs have no result", ["environment", "algorithm", "seed", "state", "reason"], reasons, text=[4])
        )
    return "\n".join(parts)


def _scores(bench: Bench, tables: dict[str, list[Row]]) -> str:
    parts = []
    if bench.atari:
        parts = [
            "<p>Human-normalised scores are 100 · (score − random) / (human − random). There are two conventions, by whose "
            "human scores are taken: those of Mnih et al. 2015, as the paper's Table 1 does, and those of Wang et al. 2016, "
            "as most have done since. Both tables follow; in the second one the paper's numbers are converted by way of raw "
            "scores. The published scores are those of Mnih et al. 2015 and of the baselines that come with Dopamine "
            "(Castro et al. 2018), which play with sticky actions. All were trained for longer and evaluated otherwise than "
            "the runs here. The last rows of a table are those of its columns, over the games that all algorithms have.</p>",
            _table1(bench, tables["scores"], "mnih2015"),
            _table1(bench, tables["scores"], "wang2016"),
        ]
    tuning = tuning_lines(bench.suite, bench.algorithms)
    parts += [f"<p>{escape(line[:1].upper() + line[1:])}.</p>" for line in tuning]
    if len(tuning) > 1:
        parts.append('<p class="mark">Tuning was not equal: differences of scores may come from it.</p>')
    of = {(row["environment"], row["algorithm"]): row for row in tables["scores"]}
    rows = []
    for env in bench.envs:
        cells = []
        for algorithm in bench.algorithms:
            row, coverage = of[env, algorithm], _coverage(bench.coverage(algorithm, env))
            cells.append(_estimate(row) + coverage if row["runs"] else coverage)
        rows.append([_name(bench, env), *cells])
    caption = "Raw scores: mean over runs, 95% interval, and runs"
    return "\n".join([*parts, _table(caption, ["environment", *map(label, bench.algorithms)], rows)])


def _table1(bench: Bench, scores: list[Row], convention: str) -> str:
    """The paper's Table 1 with our columns, in percent."""
    of = {(row["environment"], row["algorithm"]): row for row in scores}
    prefix = f"human_{convention}_"
    rows, values = [], {}
    for env in bench.envs:
        others = _others(env, convention)
        cells = []
        for algorithm in bench.algorithms:
            row, coverage = of[env, algorithm], _coverage(bench.coverage(algorithm, env))
            cells.append(_estimate(row, 100.0, prefix) + coverage if row["runs"] else coverage)
        paper, published = others[: len(PAPER)], others[len(PAPER) :]
        rows.append([_game(env), *map(number, paper), *cells, *map(number, published)])
        ours = [100.0 * of[env, algorithm].get(f"{prefix}value", np.nan) for algorithm in bench.algorithms]
        values[env] = [*paper, *ours, *published]
    common = bench.common_envs()
    foot = []
    for name, statistic in (("mean", np.mean), ("median", np.median)):
        if common:
            over = statistic([values[env] for env in common], axis=0)
            cells = ["–" if np.isnan(value) else number(float(value)) for value in over]
            foot.append([f"{name} of {_plural(len(common), 'game')}", *cells])
    return _table(
        f"Table 1: percent of a human's score, human scores of {CONVENTION_NAMES[convention]}",
        ["game", *map(label, PAPER), *map(label, bench.algorithms), *PUBLISHED.values()],
        rows,
        [("", 1), ("paper, Table 1", len(PAPER)), ("this benchmark", len(bench.algorithms)), ("published", len(PUBLISHED))],
        foot,
    )


def _others(env: str, convention: str) -> list[float]:
    """Percent of a human's score, of the paper's three algorithms and of :data:`PUBLISHED`."""
    reference = reference_scores(env)
    random, human = reference["random"], reference["human_mnih2015"]
    raw = [random + paper_scores(algorithm)[_game(env)] * (human - random) for algorithm in PAPER]
    raw += [reference[column] for column in PUBLISHED]
    return (100.0 * human_normalized(env, np.array(raw), convention)).tolist()


def _aggregates(bench: Bench, tables: dict[str, list[Row]], figures: dict[str, bytes]) -> str:
    common = bench.common_envs()
    started = [algorithm for algorithm in bench.algorithms if any(bench.of(algorithm, env) for env in bench.envs)]
    left_out = []
    for env in bench.envs:
        without = [_label(algorithm) for algorithm in started if not bench.of(algorithm, env)]
        if without:
            left_out.append(f"{_name(bench, env)} (no run of {', '.join(without)})")
    parts = []
    if not common:
        parts.append('<p class="mark">No environment has a run of every algorithm, so nothing can be compared over all.</p>')
    else:
        which = f"Over {_plural(len(common), 'environment')}, in which all algorithms that have started have at least one run."
        if left_out:
            which += f' <span class="mark">Left out: {", ".join(left_out)}.</span>'
        which += (
            " Where environments have different numbers of runs, as many count as the one with the fewest has, the first ones."
        )
        if not bench.atari:
            which += (
                " A relative score is the place between the lowest (0) and the highest (1) score that any run in this folder"
                " has in the environment: it compares within this report only, and changes with what is in it."
            )
        parts.append(f"<p>{which} IQM is the mean of the middle half of all runs.</p>")
    rows = tables["aggregates"]
    for scale in dict.fromkeys(row["scale"] for row in rows):
        of_scale = [row for row in rows if row["scale"] == scale]
        factor = 1.0 if scale == "relative" else 100.0
        lines = []
        for algorithm in dict.fromkeys(row["algorithm"] for row in of_scale):
            own = [row for row in of_scale if row["algorithm"] == algorithm]
            lines.append([_label(algorithm), *(_estimate(row, factor) for row in own), _plural(own[0]["runs"], "run")])
        header = ["algorithm", *STATISTICS, "runs per environment"]
        parts.append(_table(f"Aggregates: {SCALE_NAMES[scale]}", header, lines))
    if "aggregates" in figures:
        parts.append(_figure(figures["aggregates"], _aggregates_alt(rows), f"Aggregates, {SCALE_NAMES[rows[0]['scale']]}"))
    parts.append(_improvement(bench, [row for row in tables["improvement"] if row["algorithm"] == "mirl"]))
    if "improvement" in figures:
        alt = "; ".join(
            f"{label(row['algorithm'])} over {label(row['than'])}: {number(row['value'])}" for row in tables["improvement"]
        )
        parts.append(_figure(figures["improvement"], f"Probability of improvement. {alt}.", "Probability of improvement"))
    parts.append(_claims(bench, tables["claims"]))
    return "\n".join(parts)


def _aggregates_alt(rows: list[Row]) -> str:
    factor = 1.0 if rows[0]["scale"] == "relative" else 100.0
    iqm = [row for row in rows if row["scale"] == rows[0]["scale"] and row["statistic"] == "IQM"]
    said = ", ".join(f"{label(row['algorithm'])} {number(factor * row['value'])}" for row in iqm)
    return f"Mean, median and interquartile mean of each algorithm as points with intervals. Interquartile means: {said}."


def _improvement(bench: Bench, rows: list[Row]) -> str:
    if not rows:
        return '<p class="mark">No probability of improvement: there is no environment with runs of MIRL and another.</p>'
    lines = [
        [
            f"{_label(row['algorithm'])} over {_label(row['than'])}",
            _estimate(row),
            f"{row['p']:.2g}",
            f"{row['runs']} and {row['other_runs']}",
            f"{row['environments']} of {len(bench.envs)}",
        ]
        for row in rows
    ]
    caption = "Probability that a run is better than one of the other algorithm; 0.5: no difference"
    return _table(caption, ["", "probability", "p", "runs", "environments"], lines)


def _claims(bench: Bench, rows: list[Row]) -> str:
    if not rows:
        return ""
    lines = []
    for row in rows:
        where = [
            ", ".join(_name(bench, env) for env in row[key].split()) or "–" for key in ("better_in", "worse_in", "open_in")
        ]
        numbers = [_estimate(row), f"{row['p']:.2g}", _estimate(row, 100.0 if bench.atari else 1.0, "mean_")]
        lines.append([f"{_label(row['algorithm'])} better than {_label(row['than'])}", *numbers, row["verdict"], *where])
    header = [
        "",
        "probability of improvement",
        "p",
        f"difference of means, {'% of human' if bench.atari else 'relative'}",
        "the claim",
    ]
    first = len(header)
    return (
        _table(
            "The paper's claim: MIRL better than SQL better than DQN",
            [*header, "better in", "worse in", "open in"],
            lines,
            text=[first, first + 1, first + 2],
        )
        + f"<p>A claim holds, or its opposite does, if p &lt; {LEVEL}: if equal algorithms would seldom be as different by "
        "chance (permutation test, two-sided). The last columns say the same of each environment alone, with p adjusted for "
        "their number (Benjamini and Hochberg); with 3 runs of each or less it is never as small there.</p>"
    )


def _ablation(bench: Bench, tables: dict[str, list[Row]]) -> str:
    of = {(row["environment"], row["algorithm"], row["minus"]): row for row in tables["ablation"]}
    factor = 100.0 if bench.atari else 1.0
    unit = "percent of a human's score, Mnih et al. 2015" if bench.atari else "raw scores"
    lines = []
    for env in bench.envs:
        cells = []
        for algorithm, other in ABLATION:
            row = of.get((env, algorithm, other))
            without = [label(name) for name in (algorithm, other) if not bench.of(name, env)]
            if row is None:
                cells.append(f'<small class="mark">no run of {", ".join(without)}</small>')
            else:
                cells.append(f"{_estimate(row, factor)}<small>{row['runs']} and {row['other_runs']} runs</small>")
        lines.append([_name(bench, env), *cells])
    wanted = [row for row in tables["improvement"] if (row["algorithm"], row["than"]) in ABLATION]
    return "\n".join(
        [
            "<p>SQL has the uniform ρ everywhere. SQL_m has SQL's target and policy, and explores by the learned ρ. MIRL has "
            "the learned ρ in target and policy too.</p>",
            _table(
                f"Differences of mean scores, {unit}",
                ["environment", *(f"{label(algorithm)} − {label(other)}" for algorithm, other in ABLATION)],
                lines,
            ),
            *([_improvement(bench, wanted)] if wanted else []),
        ]
    )


def _environments(bench: Bench, tables: dict[str, list[Row]], figures: dict[str, bytes]) -> str:
    parts = [
        "<p>Returns are those of the training's own episodes, with exploration. ρ is the prior at the end of the training, "
        "the dotted line the uniform one, which SQL keeps. β is the inverse temperature.</p>"
    ]
    for env in bench.envs:
        rows = {name: [row for row in tables[name] if row["environment"] == env] for name in ("curves", "prior", "beta")}
        shown = []
        for kind, table, caption in (
            ("curve", "curves", "Return over environment steps"),
            ("prior", "prior", "Learned ρ"),
            ("beta", "beta", "β over environment steps"),
        ):
            image = figures.get(figure_name(kind, env))
            if image is not None:
                runs = ", ".join(f"{label(name)} {count}" for name, count in _runs_of(rows[table]).items())
                alt = _prior_alt(rows[table]) if kind == "prior" else _last_values(rows[table])
                shown.append(_figure(image, f"{caption}, {env}. {alt}", f"{caption}. Runs: {runs}"))
        if shown:
            inside = "\n".join(shown)
            parts.append(f'<h3>{_name(bench, env)}</h3>\n<div class="figures">\n{inside}\n</div>')
        else:
            parts.append(f'<h3>{_name(bench, env)}</h3>\n<p class="mark">No run.</p>')
    return "\n".join(parts)


def _runs_of(rows: list[Row]) -> dict[str, int]:
    return {row["algorithm"]: row["runs"] for row in rows}


def _last_values(rows: list[Row]) -> str:
    last = {row["algorithm"]: row["value"] for row in rows}
    return "At the end: " + ", ".join(f"{label(name)} {number(value)}" for name, value in last.items()) + "."


def _prior_alt(rows: list[Row]) -> str:
    """By the last algorithm, which is MIRL where it took part."""
    of = [row for row in rows if row["algorithm"] == rows[-1]["algorithm"]]
    return f"{label(of[0]['algorithm'])}: " + ", ".join(f"{row['name']} {row['value']:.3f}" for row in of) + "."


def _settings(bench: Bench, tables: dict[str, list[Row]]) -> str:
    suite = bench.suite
    facts = [
        f"Evaluation after the training: {suite.episodes} episodes with ε = {suite.epsilon:g}, "
        "rewards as the environment gives them.",
    ]
    if suite.hyperparams:
        facts.append(f"Hyper-parameters of the suite, for every algorithm: {_assignments(suite.hyperparams)}.")
    for algorithm, own in suite.own_hyperparams.items():
        facts.append(f"Of {label(algorithm)} alone: {_assignments(own)}.")
    parts = ["<ul>", *(f"<li>{escape(fact)}</li>" for fact in facts), "</ul>"]
    steps = [[_name(bench, env), f"{suite.steps[env]:,}"] for env in bench.envs or suite.steps]
    parts.append(_table("Environment steps of a training", ["environment", "steps"], steps))
    parts.append(_tuning(bench, tables["settings"]))
    if bench.results:
        parts += [_by_algorithm(tables["settings"]), _speeds(bench, tables["settings"]), _versions(tables["versions"])]
    return "\n".join(parts)


def _tuning(bench: Bench, rows: list[Row]) -> str:
    """Where the hyper-parameters of each algorithm come from."""
    lines = []
    for algorithm in bench.algorithms:
        recorded = dict.fromkeys(row["hyperparameters_file"] for row in rows if row["algorithm"] == algorithm)
        file = ", ".join(filter(None, recorded)) or "not recorded"
        lines.append([_label(algorithm), escape(bench.suite.tuning_of(algorithm)), escape(file)])
    return _table("Where hyper-parameters come from", ["algorithm", "tuning", "file"], lines, text=[1, 2])


def _by_algorithm(rows: list[Row]) -> str:
    lines = []
    for algorithm in dict.fromkeys(row["algorithm"] for row in rows):
        of = [row for row in rows if row["algorithm"] == algorithm]
        same = (", ".join(dict.fromkeys(row[key] for row in of)) for key in ("episodes", "epsilon", "device"))
        lines.append(
            [
                _label(algorithm),
                str(sum(row["runs"] for row in of)),
                *map(escape, same),
                _duration(sum(row["runs"] * row["training_seconds"] for row in of)),
                escape(", ".join(dict.fromkeys(row["random_actions_from"] for row in of))),
            ]
        )
    header = ["algorithm", "runs", "episodes", "ε", "device", "training in all", "random actions from"]
    return _table("Runs as they were", header, lines, text=[6])


def _speeds(bench: Bench, rows: list[Row]) -> str:
    of = {(row["environment"], row["algorithm"]): row for row in rows}
    lines = []
    for env in bench.envs:
        cells = []
        for algorithm in bench.algorithms:
            row = of.get((env, algorithm))
            if row is None:
                cells.append('<small class="mark">no run</small>')
            else:
                steps = f"<small>{row['steps_per_second']:,.0f} steps/s</small><small>{escape(row['steps'])} steps</small>"
                cells.append(_duration(row["training_seconds"]) + steps)
        lines.append([_name(bench, env), *cells])
    caption = "Wall time of a training, mean over runs, and steps trained"
    return _table(caption, ["environment", *map(label, bench.algorithms)], lines)


def _versions(rows: list[Row]) -> str:
    """How many runs had each version, where there are several."""
    lines = []
    for package in dict.fromkeys(row["package"] for row in rows):
        of = [row for row in rows if row["package"] == package]
        several = [f"{row['version']} ({_plural(row['runs'], 'run')})" for row in of]
        lines.append([escape(package), escape(", ".join(several) if len(of) > 1 else of[0]["version"])])
    return _table("Versions", ["package", "version"], lines)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _assignments(values: object) -> str:
    return ", ".join(f"{key} = {value}" for key, value in dict(values).items())  # type: ignore[call-overload]
