"""``docs/cluster.md``: its commands are valid, and its worked example runs and has the results in ``results/examples/``."""

import contextlib
import io
import itertools
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sb3_mirl.bench.command import parse
from sb3_mirl.bench.jobs import Job, read_folder
from sb3_mirl.bench.suites import SUITES
from sb3_mirl.cli.main import main

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "cluster.md").read_text()
EXAMPLE = PAGE.partition("## A worked example")[2].partition("\n## ")[0]
#: What the worked example has written
RESULTS = ROOT / "results" / "examples" / "atari19-ray"


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(text):
    """The words of each command of ours in blocks of Bash."""
    lines = "\n".join(blocks(text, "bash")).replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines if line.startswith("sb3-mirl ")]
    return [[word.replace("$head:$port", "10.0.0.1:6379") for word in command if word != "&"] for command in words]


(ARRAY,) = (block for block in blocks(PAGE, "bash") if "#SBATCH --array" in block)
#: Those of the array of jobs have elements of arrays as arguments
COMMANDS = [command for command in commands(PAGE) if not any("SLURM_ARRAY_TASK_ID" in word for word in command)]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_are_accepted(command):
    assert command[:2] == ["sb3-mirl", "bench"]
    parse(command[2:])


def test_array_of_slurm_trains_each_algorithm_in_each_game():
    (snippet,) = re.findall(r'python -c "(.*)"', ARRAY)
    with contextlib.redirect_stdout(io.StringIO()) as games:
        exec(snippet, {})
    (last,) = re.findall(r"#SBATCH --array=0-(\d+)", ARRAY)
    # In place of the programs that the script calls
    stand_ins = "source() { :; }; python() { echo $GAMES; }; sb3-mirl() { printf '%s ' \"$@\"; echo; }"
    script = f"{stand_ins}; for SLURM_ARRAY_TASK_ID in $(seq 0 {last}); do\n{ARRAY}\ndone"
    environment = {"GAMES": games.getvalue().strip(), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    suite, pairs = SUITES["atari19"], []
    for line in done.stdout.splitlines():
        args = parse(line.split()[1:])
        assert (args.suite, args.seeds, args.jobs) == ("atari19", None, suite.seeds)
        pairs += [(env, algorithm) for env in args.envs for algorithm in args.algos]
    assert sorted(pairs) == sorted((env, algorithm) for env in suite.steps for algorithm in suite.algorithms)


@pytest.mark.slow
def test_worked_example_runs(tmp_path, monkeypatch, capsys):
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.chdir(tmp_path)
    # Learns in fewer steps, and plays one episode
    short = {"learning_starts": 100, "buffer_size": 1000}
    monkeypatch.setitem(SUITES, "atari19", replace(SUITES["atari19"], episodes=1, hyperparams=short))
    # What the first commands of the page start
    assert len(re.findall(r"^ray start .*--num-cpus 1\b", EXAMPLE, re.MULTILINE)) == 2
    ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        for command in commands(EXAMPLE):
            words = " ".join(command[1:]).replace("127.0.0.1:6379", cluster.address)
            assert main(re.sub(r"--steps \d+", "--steps 300", words).split()) == 0, capsys.readouterr().err
    finally:
        cluster.shutdown()
    printed = capsys.readouterr().out
    assert "4 jobs, 4 done, 0 running, 0 failed, 0 missing" in printed and "nothing to do" in printed
    folder = Path(parse(commands(EXAMPLE)[0][2:]).out)
    assert (folder / "report" / "report.html").exists()
    suite, jobs = read_folder(folder)
    assert jobs == read_folder(RESULTS)[1] and suite.steps == dict.fromkeys(SUITES["atari19"].steps, 300)


def test_worked_example_has_the_scores_of_its_results():
    lines = re.findall(r"\] (\w+) (\S+) seed (\d): mean score (\S+) of (\d+) episodes \((\d+) s, (\d+) steps/s\)", EXAMPLE)
    assert len(lines) == 4
    for algorithm, env, seed, score, episodes, seconds, speed in lines:
        result = Job(algorithm, env, int(seed)).result(RESULTS)
        assert (score, int(episodes)) == (f"{np.mean(result['scores']):.4g}", len(result["scores"]))
        assert (seconds, speed) == (f"{result['time']['training']:.0f}", f"{result['time']['steps_per_second']:.0f}")


def test_worked_example_has_what_status_and_report_print(tmp_path, capsys):
    for command in (["status", str(RESULTS)], ["report", str(RESULTS), "--out", str(tmp_path)]):
        assert main(["bench", *command]) == 0
    printed = capsys.readouterr().out.replace(str(tmp_path), "logs/atari19-example/report")
    shown = [line for block in blocks(EXAMPLE, "text") for line in block.splitlines()]
    assert printed.splitlines() and set(printed.splitlines()) <= set(shown)


def test_worked_example_is_of_the_suite():
    suite, jobs = read_folder(RESULTS)
    args = parse(commands(EXAMPLE)[0][2:])
    assert suite == replace(SUITES["atari19"], steps=dict.fromkeys(SUITES["atari19"].steps, args.steps))
    pairs = itertools.product(args.algos, args.envs, range(args.seeds))
    assert set(jobs) == {Job(*pair) for pair in pairs}
