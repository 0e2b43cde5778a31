"""
Where rl-zoo3 2.9 leaves no room for an algorithm from outside, or fails: a context for each command, in which it does not. It
belongs to :mod:`sb3_mirl.zoo.command`.
"""

import importlib
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

from sb3_mirl.cli.main import main as sb3_mirl
from sb3_mirl.zoo.runs import CommandError


@contextmanager
def _child_processes_register() -> Iterator[None]:
    """
    ``record_training`` and ``benchmark`` of rl-zoo3 start its other commands as child processes, which would not know our
    algorithms (nor find ``enjoy.py``): run ours instead, in this process.
    """
    started = {("python", "-m", "rl_zoo3.record_video"): "record-video", ("python", "enjoy.py"): "enjoy"}
    call = subprocess.call

    def call_registered(command: Any, *args: Any, **kwargs: Any) -> int:
        for prefix, ours in started.items():
            if tuple(command[: len(prefix)]) == prefix:
                return _exit_status([ours, *command[len(prefix) :]])
        return call(command, *args, **kwargs)

    with mock.patch.object(subprocess, "call", call_registered):
        yield


def _exit_status(arguments: list[str]) -> int:
    try:
        return sb3_mirl(arguments)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1


@contextmanager
def _ffmpeg_on_path() -> Iterator[None]:
    """``record_training`` calls ``ffmpeg``: where the machine has none, offer the one that came with imageio-ffmpeg."""
    if shutil.which("ffmpeg"):
        yield
        return
    import imageio_ffmpeg  # comes with moviepy

    with tempfile.TemporaryDirectory() as folder:
        os.symlink(imageio_ffmpeg.get_ffmpeg_exe(), Path(folder, "ffmpeg"))
        with mock.patch.dict(os.environ, {"PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"}):
            yield


@contextmanager
def _hub_metadata() -> Iterator[None]:
    """``push_to_hub`` of rl-zoo3 2.9 imports ``generate_metadata``, which its own requirement calls ``_generate_metadata``."""
    # Not `import ... as`: the package has a function of the module's name
    hub = importlib.import_module("huggingface_sb3.push_to_hub")

    def generate_metadata(*args: Any) -> dict[str, Any]:
        return hub._generate_metadata(*args).to_dict()

    if hasattr(hub, "generate_metadata"):
        yield
        return
    with mock.patch.object(hub, "generate_metadata", generate_metadata, create=True):
        yield


@contextmanager
def _figures_without_display() -> Iterator[None]:
    """The plots only show their figures: without a display, write them to files and say so."""
    from matplotlib import pyplot as plt

    command, show = sys.argv[0].split()[-1], plt.show

    def show_or_save() -> None:
        figures = [plt.figure(number) for number in plt.get_fignums()]
        if any(figure.canvas.required_interactive_framework for figure in figures):
            show()
            return
        for figure in figures:
            file = re.sub(r"\W+", "-", f"{command} {figure.get_label()}").lower() + ".png"
            figure.savefig(file)
            empty = "" if any(axes.has_data() for axes in figure.axes) else ", but found nothing to draw (--help)"
            print(f"No display: wrote the figure to {file}{empty}")

    with mock.patch.object(plt, "show", show_or_save):
        try:
            yield
        finally:
            plt.close("all")


@contextmanager
def _single_runs_are_plotted() -> Iterator[None]:
    """``plot_from_file`` skips an algorithm of which ``all_plots`` found a single run, and fails if there are only such."""

    def load(file: Any) -> dict[str, Any]:
        results = pickle.load(file)
        plotted = [one for env, by_key in results.items() if env != "results_table" for one in by_key.values()]
        if not plotted:
            raise CommandError(
                f"{file.name} holds no evaluations: all-plots needs runs with two evaluations or more (--eval-freq)"
            )
        for one in plotted:
            one["last_evals"] = np.atleast_1d(one["last_evals"])
        return results

    # Not `import ... as`: the package has a function of the module's name
    module = importlib.import_module("rl_zoo3.plots.plot_from_file")
    with mock.patch.object(module, "pickle", SimpleNamespace(load=load)):
        yield


WORK_AROUNDS: dict[str, tuple[Callable[[], AbstractContextManager[None]], ...]] = {
    "record-training": (_child_processes_register, _ffmpeg_on_path),
    "benchmark": (_child_processes_register,),
    "push-to-hub": (_hub_metadata,),
    "plot-train": (_figures_without_display,),
    "all-plots": (_figures_without_display,),
    "plot-from-file": (_figures_without_display, _single_runs_are_plotted),
}
