"""
What the README and the pages of the site show is so: their Python, and their commands, in one folder, page by page and in the
order of each page, with fewer steps. A command or block that stands on several pages is run once.
"""

import contextlib
import io
import re
import shlex
from importlib import metadata

import pytest
from pages import PAGES, ROOT, Block, blocks, commands
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_mirl import MIRL
from sb3_mirl.bench import command, gridworld_command
from sb3_mirl.bench.suites import TUNINGS, Tuning
from sb3_mirl.cli.main import OUR_COMMANDS, ZOO_COMMANDS, main

#: Pages whose commands use what the ones before have made; then the others
ORDER = ["README.md", *(f"docs/{name}.md" for name in ("getting_started", "zoo", "benchmarks", "sharing"))]
BLOCKS = [block for page in dict.fromkeys([*ORDER, *PAGES]) for block in blocks(page)]
#: What needs the network
ONLINE = ("push-to-hub", "load-from-hub")
#: What is only parsed: it needs a cluster, belongs to the folder ``results``, which other tests compare with its page, or
#: repeats an experiment with other numbers
PARSED = r"bench (run atari19|.*\bresults/|(status|report) (/shared|logs/atari19))"
PARSED += "|gridworld .*--(eval-exploration|gamma|beta-lr)"
PARSERS = {"bench": command.parse, "gridworld": gridworld_command.parse}
#: Of these it is enough that all is there that they need
CHECKED = ("bench run classic --algos qrdqn", "bench run minatar")
#: What is put in place of what, in commands that match
SHORTER = [
    ("train", "10000", "150"),
    ("train .*CartPole-v1 --eval-freq", "$", " -n 450"),
    ("train .*--resume", "80000", "600"),
    ("train .*--seeds", "0-9", "0-1"),
    ("train .*-optimize", "--n-trials 50", "--n-trials 2 -n 60 --n-evaluations 1 --eval-episodes 1"),
    ("train .*--trial-id", "--trial-id 7", "--trial-id 1 -n 100"),
    ("train .*(MinAtar|Pong|Useless)", "$", " -n 60 --eval-freq -1 -params buffer_size:100 learning_starts:50"),
    ("(train|enjoy|benchmark)", "$", " --num-threads 1"),
    ("(enjoy|record-video)", r"-n \d+", "-n 20"),
    ("record-training", "$", " -n 20"),
    ("benchmark", "$", " -n 600"),
    ("plot-train", "$", " -w 2"),
    ("gridworld", "--seeds 50", ""),
    ("gridworld", "$", " --steps 1000 --seeds 2 --worlds corridor --no-plots"),
    ("bench run classic", "$", " --seeds 1 --steps 200"),
    ("bench run classic --jobs", "--jobs 4", "--algos mirl --envs CartPole-v1"),
    ("bench tune", "--jobs 2", "--algos dqn"),
]
#: The same in Python, unless the page shows what it prints
SHORTER_PYTHON = [
    (r"learn\([\d_]+", "learn(250"),
    (r"learning_starts=1000", "learning_starts=100"),
    (r"eval_freq=[\d_]+", "eval_freq=120"),
    (r"CheckpointCallback\([\d_]+", "CheckpointCallback(100"),
    (r"range\(10\)", "range(2)"),
    (r"(models|n_envs=8)(, |\b.*)20_000", r"\1\g<2>120"),
    (r'"buffer_size": [\d_]+', '"buffer_size": 400'),
]


def words_of(line):
    """The arguments of ``sb3-mirl``, shortened."""
    line = line.partition("sb3-mirl ")[2]
    for pattern, old, new in SHORTER:
        if re.match(pattern, line):
            line = re.sub(old, new, line, count=0 if old != "$" else 1)
    return shlex.split(line)


def steps():
    """Blocks of Python and single commands of ours, each once, in the order in which they are run."""
    seen = set()
    for block in BLOCKS:
        parts = [block] if block.language == "python" else [one for one in commands(block) if "sb3-mirl " in one]
        for part in parts:
            key = part.text if isinstance(part, Block) else shlex.join(words_of(part))
            if key not in seen and not (isinstance(part, str) and part.partition("sb3-mirl ")[2].startswith(ONLINE)):
                seen.add(key)
                yield pytest.param(part, id=str(part))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where everything runs, with models under the names that stand for any file."""
    folder = tmp_path_factory.mktemp("pages")
    model = MIRL("MlpPolicy", "CartPole-v1", learning_starts=50, seed=0).learn(200)
    for name in ("mirl_cartpole", "model", "a"):
        model.save(folder / name)
    for name in ("mirl_cartpole", "b"):
        model.export(folder / name)
    return folder


@pytest.fixture(scope="module")
def names():
    """The variables of each page."""
    return {page: {"__name__": page} for page in PAGES}


def run_python(block, names):
    code = block.text
    for old, new in [] if block.shown else SHORTER_PYTHON:
        code = re.sub(old, new, code)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, str(block), "exec"), names)
    assert block.shown in (None, printed.getvalue())


def run_command(line, folder, capsys):
    words, text = words_of(line), line.partition("sb3-mirl ")[2]
    if re.match(PARSED, text):
        PARSERS[words[0]](words[1:])
        return
    assert main(words) == text.startswith(CHECKED), capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "finished: nothing to resume" not in printed and "nothing to draw" not in printed and "Skipping" not in printed
    if words[0] == "record-training":
        assert len(list(folder.glob("logs/mirl/CartPole-v1_1/videos/checkpoint-*.mp4"))) >= 2


@pytest.mark.parametrize("step", list(steps()))
def test_python_and_commands_run_in_order(step, folder, names, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setitem(TUNINGS, "classic-actions", Tuning(("CartPole-v1",), share=0.002, seeds=(1000,), trials=1, episodes=1))
    if isinstance(step, Block):
        run_python(step, names[step.page])
        return
    if step.partition("sb3-mirl ")[2].startswith(CHECKED):
        monkeypatch.setattr("sb3_mirl.bench.command.run_locally", lambda *args, **kwargs: iter(()))
    run_command(step, folder, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("seed", (20, 21, 22))
def test_quick_start_solves_cartpole(seed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names, (block, *_) = {}, [block for block in blocks("docs/getting_started.md") if block.language == "python"]
    exec(block.text.replace("verbose=1", f"seed={seed}"), names)
    # 475 is what Gymnasium takes for solved
    mean, _ = evaluate_policy(names["model"], make_vec_env("CartPole-v1", seed=0), n_eval_episodes=30)
    assert mean >= 475


def others():
    """Commands that are not ours, each once."""
    found = [one for block in BLOCKS if block.language == "bash" for one in commands(block) if "sb3-mirl " not in one]
    return list(dict.fromkeys(part.strip() for one in found for part in one.split("'&&'")))


@pytest.mark.parametrize("line", others())
def test_what_other_commands_need_exists(line):
    program, *arguments = shlex.split(line)
    if program == "make":
        assert f"\n{arguments[0]}:" in (ROOT / "Makefile").read_text("utf-8")
    elif program == "python":
        script = (ROOT / arguments[0]).read_text("utf-8")
        options = [word for word in arguments if word.startswith("--")]
        assert [option for option in options if f'"{option}"' not in script] == []
    elif program == "pip":
        extras = re.findall(r"\.\[(\S+)\]", line)
        assert {one for listed in extras for one in listed.split(",")} <= set(extras_of_package())
    elif program.startswith(".ci/"):
        assert (ROOT / program).is_file()
    else:  # Ray's own: test_cluster_page.py
        assert program in ("python3", ".", "ray", "export", "source")


def extras_of_package():
    return metadata.metadata("sb3-mirl").get_all("Provides-Extra")


def test_install_command_lists_all_extras():
    for page in ("README.md", "docs/getting_started.md"):
        (extras,) = re.findall(r'pip install -c constraints.txt "\.\[(\S+,\S+)\]"', (ROOT / page).read_text("utf-8"))
        # Ray is for clusters, track for accounts elsewhere; the others are for developers
        assert set(extras.split(",")) == set(extras_of_package()) - {"ray", "track", "test", "dev", "docs"}


def test_the_pages_show_all_commands():
    shown = {words_of(one)[0] for block in BLOCKS if block.language == "bash" for one in commands(block) if "sb3-mirl " in one}
    assert shown == {*ZOO_COMMANDS, *OUR_COMMANDS}
