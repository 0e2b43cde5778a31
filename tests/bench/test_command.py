"""The command line of ``sb3-mirl bench``: what is refused, each in a line."""

import json
import sys
from dataclasses import replace

import pytest
from bench_results import write_text
from bench_runs import CARTPOLE, COMMAND, TINY, fresh

from sb3_mirl.bench import local_engine
from sb3_mirl.bench.suites import SUITES
from sb3_mirl.cli.main import main


def blocked(folder):
    """A file where an empty folder was."""
    folder.rmdir()
    folder.touch()


def damaged_suite(folder, change):
    file = fresh(folder, TINY) / "suite.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["run", "clasic"], "argument SUITE: invalid choice: 'clasic'"),
        (["run", "classic", "--envs", "Pong-v4"], "'Pong-v4' is not in suite classic, choose among CartPole-v1, "),
        (["run", "classic", "--seeds", "0"], "argument --seeds: '0' is not a whole number from 1 to"),
        (["run", "classic", "--steps", "1e6"], "argument --steps: '1e6' is not a whole number from 1 to"),
        (["run", "classic", "--steps", "9" * 20], "is not a whole number from 1 to 1000000000000"),
        (["run", "classic", "--joint", "0"], "argument --joint: '0' is not a whole number from 1 to"),
        (["run", "classic", "--sticky-actions", "0.25"], "--sticky-actions: only with suites of Atari games (atari19, "),
        (["run", "atari19", "--sticky-actions", "25"], "--sticky-actions: '25' is not a number between 0 and 1"),
        (["run", "classic", "--engine", "cloud"], "argument --engine: invalid choice: 'cloud'"),
    ],
)
def test_invalid_arguments_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as error:
        main(["bench", *arguments])
    assert error.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "prepare, changed, message",
    [
        (lambda out: None, ["--algos", "mirl", "dqm"], "unknown algorithm 'dqm', choose among a2c, "),
        (
            lambda out: None,
            ["--algos", "sac"],
            "sac cannot be trained on CartPole-v1 in suite classic: The algorithm only supports",
        ),
        (lambda out: None, ["--device", "abacus"], "device must be auto, cpu, or one that PyTorch has here, got 'abacus'"),
        (lambda out: write_text(out, "a file"), [], "is not a folder"),
        (lambda out: blocked(fresh(out, TINY) / "runs"), [], "cannot be written (File exists)"),
        (lambda out: write_text(out.parent / "file", ""), ["--out", "{tmp}/file/out"], "cannot be written (Not a directory)"),
        (lambda out: write_text(out / "thesis.tex", ""), [], "is not empty, and has no suite.json"),
        (
            lambda out: write_text(out / "suite.json", "{}"),
            [],
            "is not what `sb3-mirl bench run` writes (format None instead of 1)",
        ),
        (lambda out: fresh(out, SUITES["classic"]), [], "holds other results: 50000 steps of CartPole-v1 instead of 600"),
        (lambda out: fresh(out, SUITES["minatar"]), [], "holds other results: name 'minatar' instead of 'classic'"),
        (lambda out: fresh(out, replace(TINY, epsilon=0.5)), [], "holds other results: epsilon 0.5 instead of 0.0"),
        (lambda out: None, ["--out", "a" * 300], "File name too long"),
        (
            lambda out: damaged_suite(out, lambda content: content["suite"].update(steps=["CartPole-v1"])),
            [],
            "steps must be numbers by environment, got ['CartPole-v1']",
        ),
        (
            lambda out: damaged_suite(out, lambda content: content["jobs"].append([1, 2, 3])),
            [],
            "jobs must be [algorithm, environment, seed], got [1, 2, 3]",
        ),
        # Where it cannot be said whether a job is finished, it is not done twice
        (lambda out: CARTPOLE.result_file(fresh(out, TINY)).mkdir(), [], "Is a directory"),
    ],
)
def test_invalid_run_is_refused_before_a_job_starts(prepare, changed, message, tmp_path, capsys, monkeypatch):
    def start(*_):
        raise AssertionError("a job was started")

    monkeypatch.setattr(local_engine, "_start", start)
    out = tmp_path / "out"
    prepare(out)
    assert main([*COMMAND, "--out", str(out), *(one.replace("{tmp}", str(tmp_path)) for one in changed)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("sb3-mirl bench run: error: ") and message in line


def test_status_refuses_a_folder_without_benchmark(tmp_path, capsys):
    assert main(["bench", "status", str(tmp_path)]) == 2
    assert "is not the folder of a benchmark" in capsys.readouterr().err


@pytest.mark.parametrize(
    "suite, missing, ours, message",
    [
        ("classic", "Box2D", "gymnasium.envs.box2d", "LunarLander-v3 cannot be made: "),
        ("minatar-200k", "minatar", "sb3_mirl.envs.minatar", "sb3_mirl.envs.minatar cannot be imported: "),
        ("atari19", "ale_py", "ale_py", "ale_py cannot be imported: "),
    ],
)
def test_missing_environments_are_named_with_their_extra(suite, missing, ours, message, tmp_path, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.startswith((missing, ours))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    assert main(["bench", "run", suite, "--algos", "dqn", "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line and line.endswith(f"pip install 'sb3-mirl[zoo,bench,{SUITES[suite].extra}]'")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "command, missing, ours",
    [
        ("run", "rl_zoo3", ["experiment"]),
        ("report", "scipy.stats", ["report.write", "report.page", "report.comparison", "report.tables", "report.claims"]),
        ("report", "matplotlib", ["report.write", "report.page", "report.figures"]),
    ],
)
def test_missing_packages_are_named_with_their_extra(command, missing, ours, finished, tmp_path, capsys, monkeypatch):
    for name in ours:
        monkeypatch.delitem(sys.modules, f"sb3_mirl.bench.{name}", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    assert main(["bench", "status", str(finished)]) == 0
    capsys.readouterr()
    arguments = [*COMMAND, "--out", str(tmp_path / "out")] if command == "run" else ["bench", "report", str(finished)]
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"sb3-mirl bench {command}: error: ") and missing in line
    assert line.endswith("pip install 'sb3-mirl[zoo,bench]'") and not (tmp_path / "out").exists()
