"""
Equal tuning of the algorithms of a suite: :func:`tune` runs the same number of random trials for each, and :func:`choose`
takes the best one.

A trial is a choice of an algorithm's own settings, those of :data:`SETTINGS`. Trial i has the same learning rate, β and α_ρ
for every algorithm that has them. Each trial is trained with a part of the suite's steps, on some of its environments, and
with seeds that the suite does not use; all trials of an algorithm on an environment are trained jointly.

Results are files ``<algorithm>_<environment>.json`` in a folder, with all trials. What is finished is skipped.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from scipy.stats import qmc, rankdata

from sb3_mirl.bench.jobs import Job
from sb3_mirl.bench.suites import SETTINGS, Suite, Tuning, constructor_arguments
from sb3_mirl.bench.variants import Variant, in_processes, train_variants
from sb3_mirl.common.files import write_whole

#: Ranges of the settings, on logarithmic scales. β and α_ρ are relative to the length of the training, see
#: :func:`~sb3_mirl.bench.suites.constructor_arguments`
RANGES = {
    "learning_rate": (1e-4, 5e-3),
    "beta_end": (1.0, 300.0),
    "beta_scale": (3.0, 300.0),
    "prior_steps": (1.0, 100.0),
    "entropy_temperature": (1e-3, 3.0),
}
#: Of the trials' settings
SAMPLING_SEED = 0


def sample_trials(algorithm: str, number: int) -> list[dict[str, float]]:
    """
    A Latin hypercube: each setting has one value in each of ``number`` parts of its range, in random order.

    :param algorithm: one of :data:`~sb3_mirl.bench.suites.SETTINGS`
    :param number: of trials
    :return: the settings of each trial; the two schedules of β alternate
    """
    places = qmc.LatinHypercube(len(RANGES), rng=np.random.default_rng(SAMPLING_SEED)).random(number)
    logarithms = qmc.scale(places, *np.log([*RANGES.values()]).T)
    draws = dict(zip(RANGES, np.exp(logarithms).T.tolist(), strict=True))
    trials = []
    for index in range(number):
        names = [*SETTINGS[algorithm]]
        if "beta" in names:
            names[names.index("beta")] = ("beta_end", "beta_scale")[index % 2]
        # Three digits, so that a choice can be written down
        trials.append({name: float(f"{draws[name][index]:.3g}") for name in names})
    return trials


def file_of(folder: Path, algorithm: str, env: str) -> Path:
    """The file of all trials of an algorithm on an environment."""
    return folder / f"{algorithm}_{env.replace('/', '-')}.json"


def tune(suite: Suite, plan: Tuning, algorithms: Sequence[str], folder: Path, workers: int) -> Iterator[Path]:
    """
    Run the trials that are not finished.

    :param suite: to be tuned for
    :param plan: environments, steps, seeds and number of trials
    :param algorithms: of :data:`~sb3_mirl.bench.suites.SETTINGS`
    :param folder: of the results, created if necessary
    :param workers: processes at once, each with one thread
    :return: files, as they are finished or found
    :raises ValueError: if a file in the folder is of other trials
    """
    folder.mkdir(parents=True, exist_ok=True)
    pending = []
    for env in plan.envs:
        for algorithm in algorithms:
            file = file_of(folder, algorithm, env)
            if not file.exists():
                pending.append((suite, plan, algorithm, env, file))
                continue
            found, wanted = json.loads(file.read_text()), _header(suite, plan, algorithm, env)
            if different := [name for name in wanted if found.get(name) != wanted[name]]:
                raise ValueError(
                    f"{str(file)!r} has another {different[0]}: {found.get(different[0])!r} instead of "
                    f"{wanted[different[0]]!r}. Choose another folder"
                )
            yield file
    if not pending:
        return
    yield from in_processes(_run_trials, pending, workers)


def _run_trials(task: tuple[Suite, Tuning, str, str, Path]) -> Path:
    return run_trials(*task)


def _header(suite: Suite, plan: Tuning, algorithm: str, env: str) -> dict[str, Any]:
    """What identifies a file."""
    trials = sample_trials(algorithm, plan.trials)
    return {
        "suite": suite.name,
        "algorithm": algorithm,
        "environment": env,
        "steps": plan.steps(suite, env),
        "episodes": plan.episodes,
        "epsilon": suite.epsilon,
        "seeds": [*plan.seeds],
        "shared": json.loads(json.dumps(dict(suite.hyperparams))),
        "settings": trials,
        "arguments": [constructor_arguments(algorithm, settings, plan.steps(suite, env)) for settings in trials],
    }


def run_trials(suite: Suite, plan: Tuning, algorithm: str, env: str, file: Path) -> Path:
    """
    Train and evaluate all trials of an algorithm on an environment, and write them.

    SB3's DQN is trained as ``BaseDQN`` with its loss, which differs by rounding, because SB3's own class cannot be trained
    jointly.

    :param suite: to be tuned for
    :param plan: of the tuning
    :param algorithm: of the trials
    :param env: of the trials
    :param file: to be written
    :return: the file
    """
    th.set_num_threads(1)
    header = _header(suite, plan, algorithm, env)
    trained, more = ("dqn_mse", {"loss": "huber"}) if algorithm == "dqn" else (algorithm, {})
    suites = [
        replace(suite, steps={env: header["steps"]}, own_hyperparams={trained: {**arguments, **more}})
        for arguments in header["arguments"]
    ]
    variants = [Variant(own, Job(trained, env, seed)) for own in suites for seed in plan.seeds]
    scores: list[float | None] = []
    for run in train_variants(variants):
        scores.append(None if run.error is not None else float(np.mean(run.scores(plan.episodes))))
    by_trial = np.array(scores, dtype=object).reshape(plan.trials, len(plan.seeds)).tolist()
    write_whole(file, (json.dumps({**header, "scores": by_trial}, indent=1) + "\n").encode())
    return file


def choose(results: Sequence[Mapping[str, Any]]) -> tuple[int, list[float]]:
    """
    The best trial of an algorithm: the one with the highest mean rank over environments, which does not depend on the scales
    of their scores. The score of a trial is the mean over its seeds; a trial of which a run had a loss that was not finite is
    the worst. Equal scores share a rank.

    :param results: the contents of the files of one algorithm
    :return: the index of the best trial, the first of equal ones, and the mean rank of each trial, from 1 for the worst
    """
    ranks = []
    for result in results:
        means = [-np.inf if None in scores else np.mean(scores) for scores in result["scores"]]
        ranks.append(rankdata(means))
    mean = np.mean(ranks, axis=0)
    return int(mean.argmax()), mean.tolist()


def chosen_settings(folder: Path, plan: Tuning, algorithm: str) -> dict[str, float]:
    """
    :param folder: of finished trials
    :param plan: of the tuning
    :param algorithm: of the trials
    :return: the settings of the best trial
    """
    results = [json.loads(file_of(folder, algorithm, env).read_text()) for env in plan.envs]
    return results[0]["settings"][choose(results)[0]]
