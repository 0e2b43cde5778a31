"""Folders of benchmarks with made-up results, for the tests of ``sb3-mirl bench status`` and ``report``."""

import json
from dataclasses import replace

from sb3_mirl.bench.jobs import Job, open_folder
from sb3_mirl.bench.suites import SUITES
from sb3_mirl.common.files import write_whole

CLASSIC = replace(SUITES["classic"], steps={"CartPole-v1": 1000, "Acrobot-v1": 1000})
#: Two environments, each with and without useless actions
USELESS = replace(
    CLASSIC, steps=dict.fromkeys(("CartPole-v1", "Useless15/CartPole-v1", "Acrobot-v1", "Useless15/Acrobot-v1"), 1000)
)
ALL = ("dqn", "sql", "sql_m", "mirl")


def write_text(file, text):
    write_whole(file, text.encode(errors="backslashreplace"))


def write_result(folder, suite, job, score=None, /, **changes):
    """The result of a job with episodes of ``score − 1`` and ``score + 1``; by default each job has another score."""
    if score is None:
        score = 10.0 * (1 + ALL.index(job.algorithm)) + job.seed**2
    total = suite.steps[job.env]
    steps = [total // 200 * part for part in range(1, 201)]
    result = {
        "format": 1,
        "suite": suite.name,
        "algorithm": job.algorithm,
        "environment": job.env,
        "seed": job.seed,
        "steps": total,
        "scores": [score - 1.0, score + 1.0] * (suite.episodes // 2),
        "evaluation": {
            "episodes": suite.episodes,
            "epsilon": suite.epsilon,
            "random actions from": "the uniform distribution",
            "seed": 1,
        },
        "hyperparameters": {"n_timesteps": total},
        "curve": {"step": steps, "return": [score * step / total for step in steps], "episodes": [1] * 200},
        "action_names": ["LEFT", "<UP>", "A & B"],
        "history": None,
        "versions": {"python": "3.12.1", "torch": f"2.{8 + job.seed}.0"},
        "machine": {"processor": "x86_64", "device": "cpu", "threads": 1},
        "time": {"training": 50.0, "evaluation": 1.0, "steps_per_second": total / 50.0, "resumed_at": 0},
    }
    if job.algorithm != "dqn":
        prior = [0.5, 0.3 - 0.1 * job.seed, 0.2 + 0.1 * job.seed]
        history = {"step": [1, 501], "beta": [1.0 + job.seed, 5.0 + job.seed], "prior": [prior, prior]}
        result |= {"prior": prior, "beta": 5.0, "history": history}
    write_text(job.result_file(folder), json.dumps({**result, **changes}))


def fill(folder, suite, jobs, missing=()):
    """A folder with results of all jobs but the missing ones."""
    open_folder(folder, suite, jobs)
    for job in jobs:
        if job not in missing:
            write_result(folder, suite, job)
    return folder


def jobs_of(algorithms, envs, seeds):
    return [Job(algorithm, env, seed) for seed in range(seeds) for env in envs for algorithm in algorithms]
