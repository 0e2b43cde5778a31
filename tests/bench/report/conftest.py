"""Reports that several modules test."""

import pytest
from bench_reports import ALIEN, ATARI, BOXING, KRULL
from bench_results import ALL, CLASSIC, USELESS, fill, jobs_of, write_result, write_text

from sb3_mirl.bench.jobs import Job, open_folder
from sb3_mirl.bench.report.figures import OVERALL
from sb3_mirl.cli.main import main


@pytest.fixture(scope="session")
def classic(tmp_path_factory):
    """Two environments, four algorithms, up to three seeds: one failed, one unreadable, one without any run, one seed only."""
    folder = tmp_path_factory.mktemp("classic")
    jobs = jobs_of(ALL, ["CartPole-v1", "Acrobot-v1"], 3)
    failed, damaged = Job("dqn", "CartPole-v1", 2), Job("sql", "CartPole-v1", 1)
    none = [Job("sql_m", "Acrobot-v1", seed) for seed in range(3)]
    single = [Job("sql", "Acrobot-v1", seed) for seed in (1, 2)]
    fill(folder, CLASSIC, jobs, [failed, damaged, *none, *single])
    failed.record_failure(folder, "Traceback\nValueError: the loss was <nan>")
    write_text(damaged.result_file(folder), '{"format": 1, "sco')
    assert main(["bench", "report", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def atari(tmp_path_factory):
    """Three games; DQN and MIRL have all runs of two. On the third MIRL has no runs, and SQL was not asked for."""
    folder = tmp_path_factory.mktemp("atari")
    jobs = [*jobs_of(("dqn", "mirl"), [ALIEN, BOXING, KRULL], 4), *jobs_of(("sql",), [ALIEN, BOXING], 2)]
    fill(folder, ATARI, jobs, [Job("mirl", KRULL, seed) for seed in range(4)])
    assert main(["bench", "report", str(folder), "--out", str(folder / "out")]) == 0
    return folder


@pytest.fixture(scope="session")
def useless(tmp_path_factory):
    """Scores from 0 for DQN and from 10 for SQL; MIRL has those of SQL, and from 40 with useless actions."""
    folder = tmp_path_factory.mktemp("useless")
    jobs = jobs_of(("dqn", "sql", "mirl"), list(USELESS.steps), 4)
    open_folder(folder, USELESS, jobs)
    for job in jobs:
        level = 0.0 if job.algorithm == "dqn" else 40.0 if job.algorithm == "mirl" and job.env.startswith("Useless") else 10.0
        write_result(folder, USELESS, job, level + job.seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sb3_mirl.bench.report.figures.draw", lambda bench, tables: dict.fromkeys(OVERALL, b"image"))
        assert main(["bench", "report", str(folder)]) == 0
    return folder


@pytest.fixture
def without_figures(monkeypatch):
    """Figures take most of the time of a report."""
    monkeypatch.setattr("sb3_mirl.bench.report.figures.draw", lambda bench, tables: {})
