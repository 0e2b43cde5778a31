"""Shared set-up: one thread per test process, and the environments' ids."""

import json
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("MPLBACKEND", "Agg")

import gymnasium as gym
import pytest
import torch as th
from torch import _inductor

try:
    import ale_py
except ImportError:  # an installation without extras
    pass
else:
    gym.register_envs(ale_py)


#: The slowest files. Workers of pytest-xdist run them first: started late, one of them would run alone at the end
LONGEST = [
    "test_pages",
    "bench/test_tuning",
    "common/resume/test_reader",
    "bench/test_ray_engine",
    "common/test_gradient",
    "test_examples",
    "zoo/test_command",
]
LONGEST += ["common/resume/test_writer", "envs/test_atari", "bench/test_training", "mirl/test_mirl"]
LONGEST += [
    "zoo/test_runs",
    "common/test_inputs",
    "common/test_dqn",
    "joint/test_training",
    "bench/test_packs",
    "zoo/test_seeds",
]
LONGEST_FILES = [Path(__file__).parent / f"{name}.py" for name in LONGEST]


def pytest_configure(config):
    # Bit for bit is what a processor computes: only `-m gpu` sees a GPU
    if "gpu" not in config.option.markexpr.replace("not gpu", ""):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(items):
    order = {path: place for place, path in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    th.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def equal_graphs_are_compiled_once():
    """
    Inductor takes a second for each graph, and many tests compile the same one. Its results are pure functions of tensors,
    determined by the code of the graph and the kinds of its inputs; graphs that hold tensors of their own are not shared.
    """
    compile_graph, compiled = _inductor.compile, {}

    def compile_once(graph, examples, **arguments):
        if any(node.op == "get_attr" for node in graph.graph.nodes):
            return compile_graph(graph, examples, **arguments)
        kinds = tuple((tensor.shape, tensor.stride(), tensor.dtype, tensor.device) for tensor in examples)
        key = (graph.code, kinds, str(arguments))
        if key not in compiled:
            compiled[key] = compile_graph(graph, examples, **arguments)
        return compiled[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_inductor, "compile", compile_once)
        yield


@pytest.fixture(scope="session")
def run_script(tmp_path_factory):
    """
    A function that runs a Python script in a process of its own and returns status and output, as ``subprocess.run`` does. The
    processes are forked from one that has imported torch and SB3, which takes most of the time of a short script.
    """
    runner, folder = Path(__file__).parent / "helpers" / "run_scripts.py", tmp_path_factory.mktemp("scripts")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, runner], env=environment, **pipes) as process:

        def run(script, *arguments, cwd="."):
            files = {name: str(folder / name) for name in ("stdout", "stderr")}
            command = [str(script), *map(str, arguments)]
            request = {"script": command[0], "arguments": command[1:], "folder": str(Path(cwd).absolute()), **files}
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            status = int(process.stdout.readline())
            return subprocess.CompletedProcess(command, status, *(Path(file).read_text("utf-8") for file in files.values()))

        yield run
        process.stdin.close()


@pytest.fixture(scope="session")
def trained():
    """A small model after some gradient steps, with names of actions."""
    from exports import FAST
    from probes import NamedActions

    from sb3_mirl import MIRL

    return MIRL("MlpPolicy", NamedActions(), prior_lr=0.1, **FAST).learn(60)


@pytest.fixture
def exported(trained, tmp_path):
    """An export of :func:`trained`."""
    return trained.export(tmp_path / "model")


@pytest.fixture(scope="session")
def bytes_of_export(trained, tmp_path_factory):
    return trained.export(tmp_path_factory.mktemp("export") / "model").read_bytes()


@pytest.fixture
def saved(trained, tmp_path):
    """The same as a zip of SB3's ``save``."""
    trained.save(tmp_path / "saved.zip")
    return tmp_path / "saved.zip"
