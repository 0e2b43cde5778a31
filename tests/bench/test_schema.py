"""Folders with arbitrary content: commands end in time, and what is invalid is reported as such."""

import json
import os
import random
import time
from contextlib import nullcontext
from datetime import timedelta

import pytest
from bench_results import ALL, CLASSIC, fill, jobs_of, write_result, write_text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sb3_mirl.bench import run as bench
from sb3_mirl.bench import schema
from sb3_mirl.bench.jobs import FolderError, Job, open_folder, read_folder
from sb3_mirl.bench.report.content import read
from sb3_mirl.cli.main import main
from sb3_mirl.common.files import is_locked, locked

JOB = Job("mirl", "CartPole-v1", 0)
ESCAPE = "\x1b[31m\x07\x9b2J\u202e"
HUGE = 10**400


def nested(depth, inner=1):
    return "[" * depth + str(inner) + "]" * depth


def bad_results():
    """Content of a file, by what is wrong with it."""
    yield from (
        ("empty", b""),
        ("binary", b"\xff\xfe\x00"),
        ("another encoding", '{"format": 1}'.encode("utf-16")),
        ("nested", nested(100_000).encode()),
        ("nested a little", nested(60).encode()),
        ("large", b"[" + b"0," * schema.MAX_BYTES + b"0]"),
        ("a text", b'"text"'),
        ("null", b"null"),
    )


def columns(**values):
    return {"step": [1], "return": [1.0], "episodes": [1], "beta": [1.0], **values}


#: Invalid values by key of a result
BAD_VALUES = {
    "format": (None, "1", 2, HUGE, {}),
    "suite": (None, 1, [], {}, ESCAPE),
    "algorithm": (None, 1, "", "../../etc/passwd", ESCAPE, "\ud800", []),
    "environment": (None, 1, "../..", "a/b/c", {}),
    "seed": (None, "0", -1, 0.5, True, HUGE),
    "steps": (None, "many", -1, 1e300, HUGE, [], True),
    "scores": (None, [], {}, "1", *([score] * 30 for score in (HUGE, -HUGE, 1e308, "1", None, True, [1.0]))),
    "evaluation": (
        None,
        [],
        {"epsilon": 0.0},
        {"epsilon": "0", "random actions from": "x"},
        {"epsilon": 0.0, "random actions from": []},
    ),
    "hyperparameters": (None, [], "x", {"n_timesteps": "1000"}, {"n_timesteps": HUGE}),
    "curve": (
        None,
        [],
        {},
        columns(**{"return": ["x"]}),
        columns(step=[HUGE]),
        columns(**{key: [2, 1] for key in columns()}),
        columns(**{key: [1] * 5000 for key in columns()}),
    ),
    "action_names": ("abc", [1, 2, 3], {}, ["a", "b"]),
    "history": ([], "x", columns(beta=["1"]), columns(beta=[float("inf")]), columns(beta=[])),
    "prior": ("x", [], ["1"], [HUGE], [None], {}),
    "trained_jointly": (0, -1, "2", 1.5, HUGE, [], True),
    "versions": (None, [], {"torch": 2}, {"torch": ["2"]}, {"torch": {}}, {"torch": None}),
    "machine": (None, [], {}, {"device": 1}, {"device": []}),
    "time": (
        None,
        [],
        {},
        {"training": "50", "steps_per_second": 1},
        {"training": None, "steps_per_second": 1},
        {"training": HUGE, "steps_per_second": 1},
        {"training": 1, "steps_per_second": [1]},
    ),
}


def test_unreadable_results_are_reported(tmp_path, capsys):
    good = fill(tmp_path, CLASSIC, [Job(name, "CartPole-v1", 0) for name in ALL])
    bad, pattern = [], JOB.result_file(tmp_path).read_text()
    for content in dict(bad_results()).values():
        bad.append(Job("mirl", "CartPole-v1", 1 + len(bad)))
        bad[-1].result_file(good).write_bytes(content)
    for key, value in ((key, value) for key, values in BAD_VALUES.items() for value in values):
        bad.append(Job("mirl", "CartPole-v1", 1 + len(bad)))
        write_result(good, CLASSIC, bad[-1], 1.0, **{key: value})
    open_folder(good, CLASSIC, bad)
    begun = time.monotonic()
    assert main(["bench", "status", str(good)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f" 4 done, 0 running, {len(bad)} unreadable, 0 failed" in lines[0]
    assert sum(line.startswith("unreadable") for line in lines) == len(bad)
    assert main(["bench", "report", str(good)]) == 0
    assert time.monotonic() - begun < 0.5 * len(bad)
    assert set(read(good).reasons) == set(bad)
    assert f"{len(bad)} unreadable" in (good / "report" / "report.html").read_text(encoding="utf-8")
    assert pattern == JOB.result_file(good).read_text()


def test_free_keys_of_a_result_may_have_any_value(tmp_path):
    fill(tmp_path, CLASSIC, [JOB])
    settings = {
        "n_timesteps": 1000,
        "prior_lr": "auto",
        "nothing": None,
        "x": HUGE,
        "y": [{"z": float("nan")}],
        "\ud800": ESCAPE,
    }
    write_result(
        tmp_path,
        CLASSIC,
        Job("mirl", "CartPole-v1", 1),
        hyperparameters=settings,
        more={"a": 1},
        action_names=["\ud800", ESCAPE, ""],
    )
    write_result(
        tmp_path,
        CLASSIC,
        Job("dqn", "CartPole-v1", 1),
        prior=None,
        action_names=None,
        history=None,
        versions={"\udcff": ESCAPE},
    )
    assert main(["bench", "report", str(tmp_path)]) == 0
    assert len(read(tmp_path).results) == 3
    for file in (tmp_path / "report").glob("*.csv"):
        assert "\x1b" not in file.read_text(encoding="utf-8")


def test_results_with_another_number_of_actions_are_unreadable(tmp_path):
    jobs = jobs_of(("sql", "mirl"), ["CartPole-v1"], 2)
    fill(tmp_path, CLASSIC, jobs)
    write_result(tmp_path, CLASSIC, jobs[0], prior=[0.5, 0.5], action_names=None)
    found = read(tmp_path)
    assert found.reasons == {jobs[0]: "it has a prior of 2 actions, where most results of CartPole-v1 have 3"}
    assert main(["bench", "report", str(tmp_path)]) == 0


BAD_SUITES = {
    "nested": nested(100_000),
    "nested a little": '{"format": 1, "jobs": [], "suite": ' + nested(60) + "}",
    "binary": "\udcff",
    "list": "[]",
    "null": "null",
    "number": "1",
}
BAD_SUITE_VALUES = {
    "name": (None, 1, []),
    "steps": (None, [], {"CartPole-v1": "x"}, {"CartPole-v1": 0}, {"CartPole-v1": HUGE}, {"CartPole-v1": True}, {"../x": 1}),
    "epsilon": (None, "0", -1, 2, HUGE, float("nan"), []),
    "episodes": ("30", 0, HUGE, 1.5, []),
    "algorithms": ("dqn", [1], ["../x"], {}),
    "seeds": ("x", -1, []),
    "packages": ("os", [1], {}),
    "hyperparams": ([], "x", 1),
    "env_kwargs": ([], "x", 1),
    "own_hyperparams": ([], {"mirl": 1}, {"mirl": []}, {"mirl": "x"}, "x"),
    "tuning": ([], {"mirl": 1}, "x"),
    "extra": ([], 1),
    ESCAPE: (1,),
}


def bad_suite_files():
    yield from BAD_SUITES.values()
    for key, values in BAD_SUITE_VALUES.items():
        yield from (lambda content, key=key, value=value: content["suite"].update({key: value}) for value in values)
    for jobs in (None, {}, "x", [1], [[]], [["mirl", "CartPole-v1"]], [["mirl", "CartPole-v1", -1]], [["mirl", "x", 0]],
                 [["../../x", "CartPole-v1", 0]], [[[], {}, 0]], [["mirl", [], 0]], [[ESCAPE, "CartPole-v1", 0]]):  # fmt: skip
        yield lambda content, jobs=jobs: content.update(jobs=jobs)
    for suite in (None, [], "x", 1):
        yield lambda content, suite=suite: content.update(suite=suite)
    yield lambda content: content.update(format=HUGE)


def test_invalid_suite_files_are_refused_in_one_line(tmp_path, capsys):
    open_folder(tmp_path, CLASSIC, [JOB])
    file = tmp_path / "suite.json"
    right = json.loads(file.read_text())
    for change in bad_suite_files():
        if callable(change):
            content = json.loads(json.dumps(right))
            change(content)
            change = json.dumps(content)
        file.write_bytes(change.encode(errors="surrogateescape"))
        with pytest.raises(FolderError):
            read_folder(tmp_path)
        for command in (["status", str(tmp_path)], ["report", str(tmp_path)], ["run", "classic", "--out", str(tmp_path)]):
            assert main(["bench", *command]) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert line.startswith(f"sb3-mirl bench {command[0]}: error: ") and line.isprintable() and len(line) < 1000


# ---- irregular files --------------------------------------------------------------------------------------------------


def kinds(folder):
    """Functions that create something in place of a file."""
    return {
        "fifo": os.mkfifo,
        "folder": os.mkdir,
        "link to nothing": lambda path: os.symlink(folder / "nothing", path),
        "link to itself": lambda path: os.symlink(path, path),
        "link to a folder": lambda path: os.symlink(folder, path),
        "zeros without end": lambda path: os.symlink("/dev/zero", path),
        "memory": lambda path: os.symlink("/proc/self/mem", path),
        "terminal": lambda path: os.symlink("/dev/tty", path),
    }


@pytest.mark.parametrize("kind", list(kinds(None)))
def test_commands_do_not_block_on_irregular_files(kind, tmp_path, monkeypatch):
    """In place of results, failures, locks and progress of different jobs, and of the files of a report."""
    make = kinds(tmp_path)[kind]
    monkeypatch.setattr("sb3_mirl.bench.report.figures.draw", lambda bench, tables: {"curve_CartPole-v1": b"image"})
    jobs = [JOB, *(Job("dqn", "CartPole-v1", seed) for seed in range(5))]
    fill(tmp_path, CLASSIC, jobs, missing=jobs[1:])
    for job in jobs:
        job.run_folder(tmp_path).mkdir()
    result, failure, lock, steps, report = jobs[1:]
    make(result.result_file(tmp_path))
    make(failure.failure_file(tmp_path))
    make(lock.run_folder(tmp_path) / "lock")
    make(steps.progress_file(tmp_path))
    report.record_failure(tmp_path, "known")
    lines = bench.status(tmp_path)
    states = {job: found.split()[0] for job in jobs for found in lines[1:] if str(job) in found}
    assert states[failure] == states[report] == "failed" and states[lock] == states[steps] == "missing"
    assert states[result] == ("missing" if kind == "link to nothing" else "unreadable")
    assert not is_locked(lock.run_folder(tmp_path) / "lock")
    (tmp_path / "report").mkdir()
    if kind != "folder":
        for name in ("report.html", "runs.csv", "curve_CartPole-v1.png"):
            make(tmp_path / "report" / name)
    assert main(["bench", "report", str(tmp_path)]) == 0
    assert "<title>" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert not (tmp_path / "nothing").exists()  # the link itself was replaced


@pytest.mark.parametrize("name", ["suite.json", ".lock"])
def test_folder_with_irregular_own_files_is_refused(name, tmp_path, capsys):
    open_folder(tmp_path, CLASSIC, [JOB])
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    if name == "suite.json":
        assert main(["bench", "status", str(tmp_path)]) == 2
        assert "suite.json cannot be read ([Errno 22] Not a regular file: " in capsys.readouterr().err
    with pytest.raises(FolderError, match=r"Not a regular file|cannot be written \(No such device or address\)"):
        open_folder(tmp_path, CLASSIC, [JOB])


def test_named_pipe_cannot_be_locked(tmp_path):
    os.mkfifo(tmp_path / "lock")
    with pytest.raises(OSError, match=r"No such device or address|Not a regular file"), locked(tmp_path / "lock"):
        pass


# ---- output -------------------------------------------------------------------------------------------------------------


def test_output_has_no_control_characters(tmp_path, capsys):
    jobs = jobs_of(("mirl", "dqn"), ["CartPole-v1"], 2)
    open_folder(tmp_path, CLASSIC, jobs)
    jobs[0].record_failure(tmp_path, f"Traceback\nValueError: {ESCAPE}")
    write_result(tmp_path, CLASSIC, jobs[1], 1.0, suite=ESCAPE)
    write_text(jobs[2].result_file(tmp_path), json.dumps({"format": ESCAPE}))
    write_text(tmp_path / "results" / f"{ESCAPE}_CartPole-v1_0.json", "{}")
    file = tmp_path / "suite.json"
    text = file.read_text()
    content = json.loads(text)
    content["suite"] |= {"name": f"classic{ESCAPE}", "tuning": {"mirl": ESCAPE}}
    for changed in (
        content,
        {"format": ESCAPE},
        content | {"suite": {ESCAPE: 1}},
        content | {"jobs": [[ESCAPE, ESCAPE, ESCAPE]]},
    ):
        file.write_text(json.dumps(changed))
        for command in (["status", str(tmp_path)], ["report", str(tmp_path)], ["run", "classic", "--out", str(tmp_path)]):
            main(["bench", *command])
    file.write_text(text)
    bench.run(CLASSIC, jobs[:1], tmp_path, engine=nullcontext(fails))
    output = capsys.readouterr()
    assert r"\x1b[31m\x07\x9b2J\u202e" in output.out and r"\x1b[31m\x07\x9b2J\u202e" in output.err
    for line in (output.out + output.err).split("\n"):
        assert line.isprintable(), line
    assert "\x1b" not in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


def fails(packs, folder, workers, **options):
    """An engine whose jobs fail."""
    for job in [job for pack in packs for job in pack]:
        job.record_failure(folder, f"ValueError: {ESCAPE}")
        yield job


# ---- mutations ---------------------------------------------------------------------------------------------------------

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([HUGE, -HUGE, 2**63, 10**18, 0, -1, 1e308, -1e308, 5e-324, 1e100]),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from([ESCAPE, "$\\frac{$", "\ud800", "../..", "auto", "\0", "\n", "x" * 1000]),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=5
)


def mutate(document, data):
    """Changes a value somewhere in a document."""
    while True:
        keys = list(document) if isinstance(document, dict) else list(range(len(document)))
        key = data.draw(st.sampled_from(keys))
        inner = document[key]
        if not (isinstance(inner, (dict, list)) and inner) or data.draw(st.integers(0, 2)) == 0:
            break
        document = inner
    if isinstance(document, dict) and data.draw(st.integers(0, 4)) == 0:
        del document[key]
    else:
        document[key] = data.draw(VALUES)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A folder with three results and a failure, and their texts."""
    folder = tmp_path_factory.mktemp("mutations")
    jobs = jobs_of(("dqn", "mirl"), ["CartPole-v1"], 2)
    fill(folder, CLASSIC, jobs, missing=jobs[-1:])
    jobs[-1].record_failure(folder, "Traceback\nValueError: nan")
    return folder, (folder / "suite.json").read_text(), JOB.result_file(folder).read_text()


@pytest.fixture(scope="module")
def without_figures():
    """Figures take most of a report's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sb3_mirl.bench.report.figures.draw", lambda bench, tables: {})
        yield


@settings(max_examples=40, deadline=timedelta(seconds=5), suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_status_and_report_of_mutated_folders(results, data, without_figures):
    folder, suite, result = results
    (folder / "suite.json").write_text(suite)
    texts = []
    for text, times in ((suite, data.draw(st.sampled_from([0, 0, 0, 1]))), (result, data.draw(st.integers(0, 3)))):
        document = json.loads(text)
        for _ in range(times):
            mutate(document, data)
        texts.append(json.dumps(document).encode(errors="surrogatepass"))
    cut = data.draw(st.sampled_from([0, 0, 0, 0, 1, 500, -1]))
    (folder / "suite.json").write_bytes(texts[0])
    JOB.result_file(folder).write_bytes(texts[1][cut:] if cut >= 0 else texts[1][:cut])
    for command in ("status", "report"):
        status = main(["bench", command, str(folder)])
        assert status == 0 or (status == 2 and json.loads(texts[0]) != json.loads(suite))


def test_status_and_report_with_random_bytes(tmp_path, capsys):
    dice = random.Random(0)
    jobs = jobs_of(("dqn", "mirl"), ["CartPole-v1"], 30)
    fill(tmp_path, CLASSIC, jobs)
    for job in jobs[1:]:
        file = dice.choice(
            [job.result_file, job.failure_file, job.progress_file, lambda f, job=job: job.run_folder(f) / "lock"]
        )
        path = file(tmp_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = bytearray(job.result_file(tmp_path).read_bytes() if dice.random() < 0.5 else dice.randbytes(500))
        for _ in range(dice.randrange(1, 20)):
            content[dice.randrange(len(content))] = dice.randrange(256)
        if path != job.result_file(tmp_path):
            job.result_file(tmp_path).unlink()
        path.write_bytes(content)
    for command in ("status", "report"):
        assert main(["bench", command, str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert all(line.isprintable() for line in output.split("\n")) and "60 jobs, " in output
