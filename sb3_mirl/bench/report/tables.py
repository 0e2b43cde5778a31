"""
``sb3-mirl bench report`` turns the folder of a benchmark, finished or not, into tables (CSV), figures (PNG) and one page that
needs nothing else (``report.html``).

A run is one training; its score is the mean over the episodes of its evaluation. Intervals are those of
:func:`sb3_mirl.bench.scores.bootstrap`, NaN for a single run. Every number comes with the number of runs behind it, and
what is missing is said.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import false_discovery_control

from sb3_mirl.bench.jobs import FolderError, Job, look, read_folder, write_whole
from sb3_mirl.bench.schema import is_algorithm
from sb3_mirl.bench.scores import (
    CONVENTIONS,
    Estimate,
    bootstrap,
    compare,
    human_normalized,
    interquartile_mean,
    mean,
    median,
    over_games,
    reference_scores,
)
from sb3_mirl.bench.suites import LABELS, Suite, label
from sb3_mirl.common import files
from sb3_mirl.common.text import printable

#: What MIRL consists of, step by step: an algorithm and what it is compared with
ABLATION = (("sql_m", "sql"), ("mirl", "sql_m"), ("mirl", "sql"))
#: The paper's claim MIRL > SQL > DQN
CLAIMS = (("mirl", "sql"), ("sql", "dqn"), ("mirl", "dqn"))
STATISTICS = {"mean": mean, "median": median, "IQM": interquartile_mean}
#: Claims are judged at this level, each for itself, and environments with p adjusted for their number
LEVEL = 0.05
#: Parts of a training in a learning curve; results have more, with few episodes each
POINTS = 50
#: Of the mean of several runs' curves
MAX_POINTS = 400

Row = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """
    What a folder holds.

    :param suite: as it was started
    :param states: of all jobs that were asked for, or have a result all the same: one of
        :data:`~sb3_mirl.bench.jobs.STATES`
    :param results: of the jobs that are done
    :param reasons: why others have no result, as far as that is known
    """

    suite: Suite
    states: dict[Job, str]
    results: dict[Job, dict[str, Any]]
    reasons: dict[Job, str]

    @property
    def algorithms(self) -> list[str]:
        names = dict.fromkeys(job.algorithm for job in self.states)
        return [name for name in LABELS if name in names] + [name for name in names if name not in LABELS]

    @property
    def envs(self) -> list[str]:
        asked = {job.env for job in self.states}
        return [env for env in self.suite.steps if env in asked]

    @property
    def atari(self) -> bool:
        """Whether all environments are games of the paper, whose scores can be normalised."""
        try:
            return all(reference_scores(env) for env in self.suite.steps)
        except ValueError:
            return False

    def of(self, algorithm: str, env: str) -> list[dict[str, Any]]:
        """Results of the pair, by seed."""
        jobs = sorted(job for job in self.results if (job.algorithm, job.env) == (algorithm, env))
        return [self.results[job] for job in jobs]

    def scores(self, algorithm: str, env: str) -> np.ndarray:
        """Of each run, [runs]."""
        return np.array([np.mean(result["scores"]) for result in self.of(algorithm, env)])

    def coverage(self, algorithm: str, env: str) -> Counter[str]:
        """How many jobs of the pair are in each state."""
        return Counter(state for job, state in self.states.items() if (job.algorithm, job.env) == (algorithm, env))

    def common_envs(self) -> list[str]:
        """Those in which every algorithm that has run somewhere has run: only there can all be compared."""
        started = {job.algorithm for job in self.results}
        return [env for env in self.envs if all(self.of(algorithm, env) for algorithm in started)] if started else []

    def shared_envs(self, algorithm: str, other: str) -> list[str]:
        """Those in which both have run."""
        return [env for env in self.envs if self.of(algorithm, env) and self.of(other, env)]

    def matrix(self, algorithm: str, envs: Sequence[str]) -> np.ndarray:
        """Scores [runs, envs]; of environments with more runs than others, the first."""
        columns = [self.scores(algorithm, env) for env in envs]
        return np.stack([column[: min(map(len, columns))] for column in columns], axis=-1)


def read(folder: Path) -> Bench:
    """
    :param folder: of a benchmark
    :return: all that can be read; results that cannot are named, and do not stop the others
    :raises FolderError: if it is none
    """
    suite, jobs = read_folder(folder)
    found = look(folder, suite, dict.fromkeys([*jobs, *_unplanned(folder, suite)]))
    return Bench(
        suite,
        states={job: one.state for job, one in found.items()},
        results={job: one.result for job, one in found.items() if one.result is not None},
        reasons={job: one.reason for job, one in found.items() if one.reason},
    )


def _unplanned(folder: Path, suite: Suite) -> list[Job]:
    """Jobs of results that came from elsewhere, such as another machine."""
    jobs = []
    for file in sorted((folder / "results").glob("*.json")):
        head, _, seed = file.stem.rpartition("_")
        for env in suite.steps:
            algorithm = head.removesuffix(f"_{env.replace('/', '-')}")
            if algorithm != head and is_algorithm(algorithm) and re.fullmatch(r"0|[1-9][0-9]{0,11}", seed):
                jobs.append(Job(algorithm, env, int(seed)))
    return jobs


def oddities(bench: Bench) -> list[str]:
    """Why runs in the same column may not be comparable: more steps than asked for, or different hyper-parameters."""
    odd = []
    for env in bench.envs:
        asked = bench.suite.steps[env]
        for algorithm in bench.algorithms:
            results = bench.of(algorithm, env)
            most = max((result["steps"] for result in results), default=0)
            if most > 1.02 * asked:
                odd.append(
                    f"{label(algorithm)} was trained for {most:,} steps on {env}, not {asked:,}: it takes whole rollouts."
                )
            settings = {json.dumps(result["hyperparameters"], sort_keys=True) for result in results}
            if len(settings) > 1:
                odd.append(f"{label(algorithm)} was trained with {len(settings)} sets of hyper-parameters on {env}.")
    return odd


# ---- tables ----------------------------------------------------------------------------------------------------------


def _columns(estimate: Estimate) -> Row:
    return {"value": float(estimate.value), "low": float(estimate.low), "high": float(estimate.high)}


def run_rows(bench: Bench) -> list[Row]:
    """One row for each job, whatever has become of it."""
    rows = []
    for job, state in bench.states.items():
        row: Row = {"environment": job.env, "algorithm": job.algorithm, "seed": job.seed, "state": state}
        if job in bench.results:
            result = bench.results[job]
            score = float(np.mean(result["scores"]))
            row |= {"score": score, "episodes": len(result["scores"]), "steps": result["steps"]}
            if bench.atari:
                row |= {f"human_{name}": float(human_normalized(job.env, score, name)) for name in CONVENTIONS}
            row["training_seconds"] = result["time"]["training"]
        rows.append({**row, "reason": bench.reasons.get(job, "")})
    return rows


def score_rows(bench: Bench) -> list[Row]:
    """Mean score with its interval for each environment and algorithm, and how many runs there are, and should be."""
    rows = []
    for env in bench.envs:
        for algorithm in bench.algorithms:
            scores, coverage = bench.scores(algorithm, env), bench.coverage(algorithm, env)
            row: Row = {"environment": env, "algorithm": algorithm, "runs": len(scores), "asked_for": coverage.total()}
            row |= {state: coverage[state] for state in ("running", "failed", "missing", "unreadable")}
            if len(scores):
                estimate = bootstrap(mean, scores[:, None])
                row |= _columns(estimate)
                for name in CONVENTIONS if bench.atari else ():
                    normalized = _columns(Estimate(*human_normalized(env, np.array(estimate), name)))
                    row |= {f"human_{name}_{key}": number for key, number in normalized.items()}
            rows.append(row)
    return rows


def scales(bench: Bench) -> list[str]:
    """Names of the scales on which scores of different environments are comparable, see :func:`on_scale`."""
    return [f"human_{name}" for name in CONVENTIONS] if bench.atari else ["relative"]


def on_scale(bench: Bench, scale: str, env: str, scores: np.ndarray) -> np.ndarray:
    """
    :param scale: for Atari, shares of a human's score by one of both conventions. Else ``"relative"``, the place between the
        lowest (0) and the highest (1) score that any run of the folder has in the environment
    :param env: of the scores
    :param scores: raw, any shape
    :return: the same shape
    """
    if scale != "relative":
        return human_normalized(env, scores, scale.removeprefix("human_"))
    pooled = np.concatenate([bench.scores(algorithm, env) for algorithm in bench.algorithms])
    low, span = pooled.min(), np.ptp(pooled)
    # Where all runs have the same score there is neither: all are in the middle
    return (scores - low) / span if span else np.full_like(scores, 0.5)


def aggregate_rows(bench: Bench) -> list[Row]:
    """Each of :data:`STATISTICS` for each algorithm, over :meth:`Bench.common_envs`."""
    envs = bench.common_envs()
    if not envs:
        return []
    raw = {algorithm: bench.matrix(algorithm, envs) for algorithm in bench.algorithms if bench.of(algorithm, envs[0])}
    rows = []
    for scale in scales(bench):
        matrices = {
            algorithm: np.stack([on_scale(bench, scale, env, scores[:, k]) for k, env in enumerate(envs)], axis=-1)
            for algorithm, scores in raw.items()
        }
        for name, statistic in STATISTICS.items():
            for algorithm, scores in matrices.items():
                row: Row = {
                    "scale": scale,
                    "statistic": name,
                    "algorithm": algorithm,
                    **_columns(bootstrap(statistic, scores)),
                }
                rows.append(row | {"runs": len(scores), "environments": len(envs)})
    return rows


def improvement_rows(bench: Bench) -> list[Row]:
    """Probability that a run is better than one of another algorithm: MIRL than all others, and each step of both chains."""
    of_mirl = (("mirl", name) for name in bench.algorithms if name != "mirl")
    pairs = dict.fromkeys([*of_mirl, *ABLATION, *CLAIMS])
    return [_compared(bench, *pair, envs) for pair in pairs if (envs := bench.shared_envs(*pair))]


def _compared(bench: Bench, algorithm: str, other: str, envs: Sequence[str]) -> Row:
    ours, others = ([bench.scores(name, env) for env in envs] for name in (algorithm, other))
    comparison = compare(ours, others)
    row: Row = {"algorithm": algorithm, "than": other, **_columns(Estimate(*comparison[:3])), "p": comparison.p}
    return row | {"runs": sum(map(len, ours)), "other_runs": sum(map(len, others)), "environments": len(envs)}


def claim_rows(bench: Bench) -> list[Row]:
    """
    What the runs say about each of :data:`CLAIMS`, over the environments in which both algorithms have run.

    The verdict rests on the probability of improvement and its permutation test: ``"holds"`` or ``"the opposite"`` if
    p < :data:`LEVEL`, else ``"open"``. ``better_in``, ``worse_in`` and ``open_in`` say the same of each environment, with p
    adjusted for how many there are (Benjamini and Hochberg, 1995). Unlike the difference of mean scores it depends neither on
    the scale of an environment nor on what else is in the folder. That difference is there beside it, on the first of the
    :func:`scales`: for Atari of human-normalised scores (2015), which the paper compares.
    """
    rows = []
    for algorithm, other in CLAIMS:
        envs = bench.shared_envs(algorithm, other)
        if envs:
            row = _compared(bench, algorithm, other, envs)
            row["verdict"] = {1: "holds", -1: "the opposite", 0: "open"}[_side(row)]
            alone = [_compared(bench, algorithm, other, [env]) for env in envs]
            adjusted = false_discovery_control([one["p"] for one in alone])
            sides = {env: _side(one | {"p": p}) for env, one, p in zip(envs, alone, adjusted, strict=True)}
            for side, name in ((1, "better_in"), (-1, "worse_in"), (0, "open_in")):
                row[name] = " ".join(env for env in envs if sides[env] == side)
            ours, others = (
                [on_scale(bench, scales(bench)[0], env, bench.scores(name, env)) for env in envs]
                for name in (algorithm, other)
            )
            difference = _columns(over_games(_difference, ours, others))
            rows.append(row | {f"mean_{key}": number for key, number in difference.items()})
    return rows


def _side(row: Row) -> int:
    """Of ½ on which the probability of improvement lies: 1 above, -1 below, 0 if that cannot be said."""
    return 0 if row["p"] >= LEVEL else 1 if row["value"] > 0.5 else -1


def _difference(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    return mean(scores) - mean(others)


def ablation_rows(bench: Bench) -> list[Row]:
    """Differences of mean scores for each pair of :data:`ABLATION`; of Atari, shares of a human's score, as in the paper."""
    rows = []
    for env in bench.envs:
        for algorithm, other in ABLATION:
            scores = [bench.scores(name, env)[:, None] for name in (algorithm, other)]
            if all(map(len, scores)):
                if bench.atari:
                    scores = [human_normalized(env, of_one) for of_one in scores]
                row: Row = {"environment": env, "algorithm": algorithm, "minus": other}
                row |= _columns(bootstrap(_difference, *scores))
                rows.append(row | {"runs": len(scores[0]), "other_runs": len(scores[1])})
    return rows


def _band(series: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[Row]:
    """
    Mean of several runs' curves with its interval, at each step of any of them from where all have begun. In between, a curve
    is a straight line; after its last point it stays.

    :param series: steps and values of each run
    """
    series = [(steps, values) for steps, values in series if len(steps)]
    if not series:
        return []
    grid = np.unique(np.concatenate([steps for steps, _ in series]))
    grid = grid[grid >= max(steps[0] for steps, _ in series)]
    if len(grid) > MAX_POINTS:  # of runs that have other steps each
        grid = grid[np.linspace(0, len(grid) - 1, MAX_POINTS).astype(int)]
    values = np.stack([np.interp(grid, *one) for one in series])
    estimate = bootstrap(lambda runs: runs.mean(axis=-2), values)
    return [
        {"step": int(step), "value": value, "low": low, "high": high, "runs": len(values)}
        for step, value, low, high in zip(grid, *(part.tolist() for part in estimate), strict=True)
    ]


def _learning_curve(result: dict[str, Any], total: int) -> tuple[np.ndarray, np.ndarray]:
    """Of one run: steps at the ends of :data:`POINTS` equal parts, and the mean return of the episodes that ended in each."""
    steps, returns, episodes = (np.array(result["curve"][key], dtype=float) for key in ("step", "return", "episodes"))
    part = np.clip(np.ceil(steps * POINTS / total).astype(int) - 1, 0, POINTS - 1)
    count = np.bincount(part, episodes, minlength=POINTS)
    returns = np.bincount(part, episodes * returns, minlength=POINTS)
    ends = np.arange(1, POINTS + 1) * total // POINTS
    return ends[count > 0], returns[count > 0] / count[count > 0]


def curve_rows(bench: Bench) -> list[Row]:
    """Return over the training, for each environment and algorithm."""
    return [
        {"environment": env, "algorithm": algorithm, **row}
        for env in bench.envs
        for algorithm in bench.algorithms
        for row in _band([_learning_curve(result, bench.suite.steps[env]) for result in bench.of(algorithm, env)])
    ]


def beta_rows(bench: Bench) -> list[Row]:
    """β over the training, for each environment and each algorithm that has one."""
    rows = []
    for env in bench.envs:
        for algorithm in bench.algorithms:
            histories = [result["history"] for result in bench.of(algorithm, env) if result.get("history")]
            series = [(np.array(history["step"]), np.array(history["beta"])) for history in histories]
            rows += [{"environment": env, "algorithm": algorithm, **row} for row in _band(series)]
    return rows


def prior_rows(bench: Bench) -> list[Row]:
    """ρ at the end of the training, for each environment, each algorithm that has one, and each action."""
    rows = []
    for env in bench.envs:
        for algorithm in bench.algorithms:
            results = [result for result in bench.of(algorithm, env) if result.get("prior")]
            if results:
                priors = np.array([result["prior"] for result in results])
                names = next(filter(None, (result.get("action_names") for result in results)), None)
                for action, name in enumerate(names or (f"action {k}" for k in range(priors.shape[1]))):
                    row: Row = {"environment": env, "algorithm": algorithm, "action": action, "name": name}
                    rows.append(row | _columns(bootstrap(mean, priors[:, action : action + 1])) | {"runs": len(priors)})
    return rows


def setting_rows(bench: Bench) -> list[Row]:
    """What the runs of each environment and algorithm were, and the means of how long they took."""
    rows = []
    for env in bench.envs:
        for algorithm in bench.algorithms:
            results = bench.of(algorithm, env)
            if results:
                rows.append(
                    {
                        "environment": env,
                        "algorithm": algorithm,
                        "runs": len(results),
                        "steps": _join(result["steps"] for result in results),
                        "episodes": _join(len(result["scores"]) for result in results),
                        "epsilon": _join(result["evaluation"]["epsilon"] for result in results),
                        "random_actions_from": _join(result["evaluation"]["random actions from"] for result in results),
                        "training_seconds": float(np.mean([result["time"]["training"] for result in results])),
                        "steps_per_second": float(np.mean([result["time"]["steps_per_second"] for result in results])),
                        "device": _join(result["machine"]["device"] for result in results),
                        "hyperparameters_file": _join(result.get("hyperparameters_file") or "" for result in results),
                        "tuning": bench.suite.tuning_of(algorithm),
                    }
                )
    return rows


def _join(values: Iterable[Any]) -> str:
    """Different values, where there should be one."""
    return ", ".join(str(value) for value in dict.fromkeys(values))


def version_rows(bench: Bench) -> list[Row]:
    """Versions of packages, and how many runs had each."""
    counts = Counter(pair for result in bench.results.values() for pair in result["versions"].items())
    return [{"package": package, "version": version, "runs": count} for (package, version), count in counts.items()]


TABLES = {
    "runs": run_rows,
    "scores": score_rows,
    "aggregates": aggregate_rows,
    "improvement": improvement_rows,
    "claims": claim_rows,
    "ablation": ablation_rows,
    "curves": curve_rows,
    "prior": prior_rows,
    "beta": beta_rows,
    "settings": setting_rows,
    "versions": version_rows,
}


def write_csv(rows: Sequence[Row], file: Path) -> None:
    """Columns are all that any row has; what a row has not, or is NaN, stays empty. Without rows there is no file."""
    if not rows:
        file.unlink(missing_ok=True)
        return
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    write_whole(file, text.getvalue())


def _cell(value: Any) -> Any:
    return printable(value) if isinstance(value, str) else "" if value != value else value


def write_report(folder: Path, out: Path) -> list[Path]:
    """
    Reads the folder of a benchmark and writes tables, figures and the page.

    :param folder: of the benchmark
    :param out: folder of the report, made if it is not there
    :return: the files
    :raises FolderError: if the folder is none of a benchmark, or the other cannot be written
    """
    from sb3_mirl.bench.report.figures import draw, names
    from sb3_mirl.bench.report.page import page

    bench = read(folder)
    tables = {name: rows(bench) for name, rows in TABLES.items()}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, rows in tables.items():
            write_csv(rows, out / f"{name}.csv")
        figures = draw(bench, tables)
        for name in names(bench):
            # Of an earlier report
            (out / f"{name}.png").unlink(missing_ok=True)
        for name, image in figures.items():
            files.write_whole(out / f"{name}.png", image)
        write_whole(out / "report.html", page(bench, tables, figures))
    except OSError as error:
        raise FolderError(f"{str(out)!r} cannot be written ({error.strerror or error})") from error
    return [
        out / "report.html",
        *(out / f"{name}.csv" for name, rows in tables.items() if rows),
        *(out / f"{name}.png" for name in figures),
    ]
