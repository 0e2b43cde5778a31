"""What is changed in rl-zoo3's ``plot-train``, ``all-plots`` and ``plot-from-file``, and why."""

import importlib
import os
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

from sb3_mirl.zoo.checks import is_run_of
from sb3_mirl.zoo.runs import CommandError
from sb3_mirl.zoo.workarounds import replaced


@contextmanager
def figures_without_display(command: str) -> Iterator[None]:
    """
    The plots of rl-zoo3 2.9.2 only show their figures. Without a display, write them to files and print their names.

    :param command: the beginning of the files' names
    """
    from matplotlib import pyplot as plt

    show = plt.show

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

    with replaced(plt, show=show_or_save):
        try:
            yield
        finally:
            plt.close("all")


class RunName(str):
    """The name of a run folder. ``env in name`` is true for the environments whose plots show the run."""

    def __contains__(self, env: object) -> bool:
        return is_run_of(str(env), str(self))


@contextmanager
def plots_of_named_environments() -> Iterator[None]:
    """
    ``plot_train`` and ``all_plots`` of rl-zoo3 2.9.2 plot all runs whose folder's name contains the value of ``-e``: with
    ``CartPole-v1`` also ``Useless15-CartPole-v1_1``. Leave such runs out.
    """

    def scandir(path: str) -> list[SimpleNamespace]:
        with os.scandir(path) as found:
            return [
                SimpleNamespace(name=RunName(entry.name), path=entry.path, is_dir=entry.is_dir, stat=entry.stat)
                for entry in found
            ]

    module = SimpleNamespace(**{**vars(os), "listdir": lambda path: [*map(RunName, os.listdir(path))], "scandir": scandir})
    # Not `import ... as`: the package has functions of the modules' names
    plot_train, all_plots = (importlib.import_module(f"rl_zoo3.plots.{name}") for name in ("plot_train", "all_plots"))
    with replaced(plot_train, os=module), replaced(all_plots, os=module):
        yield


@contextmanager
def plots_of_single_runs() -> Iterator[None]:
    """``plot_from_file`` of rl-zoo3 2.9.2 fails for single runs, or skips them: ``last_evals`` is no array. Make it one."""

    def load(file: Any) -> dict[str, Any]:
        try:
            results = pickle.load(file)
            plotted = [run for env, by_key in results.items() if env != "results_table" for run in by_key.values()]
        except Exception as error:  # a damaged pickle may raise any
            raise CommandError(f"-i and --merge must be files of all-plots -o, got {file.name!r} ({error})") from error
        if not plotted:
            raise CommandError(f"{file.name} holds no evaluations: all-plots needs runs with two evaluations (--eval-freq)")
        for run in plotted:
            run["last_evals"] = np.atleast_1d(run["last_evals"])
        return results

    # Not `import ... as`: the package has a function of the module's name
    module = importlib.import_module("rl_zoo3.plots.plot_from_file")
    with replaced(module, pickle=SimpleNamespace(load=load)):
        yield
