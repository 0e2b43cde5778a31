"""
``train --seeds``: one command for several seeds, which are trained jointly. Each seed gets the run folder that the command
with ``--seed`` would write.

rl-zoo3's own ``train()`` runs once for each seed. It makes the run folder and the model; training and saving wait until the
models of all seeds are there (:class:`SeedRuns`).
"""

import argparse
import contextlib
import io
import re
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

from rl_zoo3.exp_manager import ExperimentManager
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import HumanOutputFormat

from sb3_mirl.common.dqn import BaseDQN
from sb3_mirl.common.text import printable
from sb3_mirl.joint.compatibility import check_models
from sb3_mirl.joint.training import train_jointly
from sb3_mirl.zoo.runs import CommandError

MAX_SEEDS = 1000
#: Of NumPy's global generator
LARGEST_SEED = 2**32 - 1


class FailedRuns(Exception):
    """Some runs have ended with an error; the text names their seeds."""


# ---- the command line -----------------------------------------------------------------------------------------------


def parse_seeds(text: str) -> list[int]:
    """
    :param text: seeds and ranges of seeds, such as ``0-4,10``
    :return: the seeds
    :raises argparse.ArgumentTypeError: if it is malformed, or names a seed twice
    """
    ranges = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,10})\s*(?:-\s*([0-9]{1,10})\s*)?", part)
        if match is None:
            raise argparse.ArgumentTypeError(f"must be seeds such as 0-9, 3,5,8 or 0-4,10, got {text!r}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise argparse.ArgumentTypeError(f"must have ranges that ascend, such as 0-9, got {part.strip()} in {text!r}")
        if last > LARGEST_SEED:
            raise argparse.ArgumentTypeError(f"must be at most {LARGEST_SEED}, got {last} in {text!r}")
        ranges.append(range(first, last + 1))
    if (count := sum(map(len, ranges))) > MAX_SEEDS:
        raise argparse.ArgumentTypeError(f"must be at most {MAX_SEEDS} seeds, got {count} in {text!r}")
    seeds = [seed for each in ranges for seed in each]
    twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    if twice:
        raise argparse.ArgumentTypeError(f"must name each seed once, got {', '.join(map(str, twice))} twice in {text!r}")
    return seeds


def check_options(given: Mapping[str, Any], algorithm: str, algorithms: Collection[str]) -> None:
    """
    :param given: the options of the command line that has ``--seeds``, by name
    :param algorithm: of the command line
    :param algorithms: those that can be trained jointly
    :raises CommandError: if ``--seeds`` cannot be combined with one of them
    """
    if algorithm not in algorithms:
        raise CommandError(f"--seeds is for --algo {' or '.join(algorithms)}, got {algorithm}")
    reasons = {
        "seed": "--seeds names all seeds: leave out --seed",
        "resume": "--seeds begins new runs: continue each run by its own folder, with --resume FOLDER and without --seeds",
        "optimize_hyperparameters": "--seeds is for trainings, not for a search (--optimize-hyperparameters)",
        "track": "--seeds cannot be combined with --track: Weights & Biases records one run of a process",
    }
    for name, reason in reasons.items():
        if name in given:
            raise CommandError(reason)


# ---- the runs -------------------------------------------------------------------------------------------------------


class SeedRuns:
    """The runs of one command with ``--seeds``. Without that option, the command runs as it is."""

    def __init__(self) -> None:
        self._seeds: list[int] = []
        self._runs: list[tuple[ExperimentManager, BaseDQN]] = []
        #: What has ended a run, by seed
        self._errors: dict[int, ValueError] = {}

    def next_seed(self, seeds: list[int]) -> int:
        """
        :param seeds: of the command line
        :return: the seed of the run that begins now
        """
        self._seeds = seeds
        return seeds[len(self._runs)]

    def add(self, manager: ExperimentManager, model: BaseDQN) -> None:
        """
        :param manager: of the next run, after its set-up
        :param model: to be trained
        :raises CommandError: if models with its settings cannot be trained jointly
        """
        if not self._runs:
            try:
                # One model is enough, because other seeds have the same settings
                check_models([model])
            except (TypeError, ValueError) as error:
                raise CommandError(f"--seeds cannot train these settings jointly: {error}") from error
        self._runs.append((manager, model))

    def run(self, train: Callable[[], None]) -> None:
        """
        Run a command.

        :param train: rl-zoo3's ``train()``, whose parser calls :meth:`next_seed` and whose manager calls :meth:`add` if there
            is ``--seeds``
        :raises FailedRuns: if runs have failed; the others have been trained and saved
        """
        train()
        for seed in self._seeds[1:]:
            # rl-zoo3 would print the same settings for each seed
            with contextlib.redirect_stdout(io.StringIO()):
                train()
            print(f"Seed: {seed}\nLog path: {self._runs[-1][0].save_path}")
        if self._runs:
            self._train()

    def _train(self) -> None:
        manager = self._runs[0][0]
        models = [model for _, model in self._runs]
        callbacks = [
            LabelledCallbacks(run.callbacks, f"seed {run.seed}: ") if run.callbacks or run.verbose > 0 else None
            for run, _ in self._runs
        ]
        settings: dict[str, Any] = {"progress_bar": manager.args.progress}
        if manager.log_interval != -1:
            settings["log_interval"] = manager.log_interval if manager.log_interval >= 0 else None
        print(f"Training the seeds {', '.join(map(str, self._seeds))} jointly")
        try:
            # As in rl-zoo3: Ctrl-C ends the training, and the models are saved as they are
            with contextlib.suppress(KeyboardInterrupt):
                train_jointly(models, manager.n_timesteps, callbacks, on_error=self._report, **settings)
            self._save()
        finally:
            for model in models:
                # As in rl-zoo3: Ctrl-C may have ended the processes of SubprocVecEnv
                with contextlib.suppress(EOFError, ConnectionError):
                    model.env.close()  # type: ignore[union-attr]

    def _report(self, model: BaseDQN, error: ValueError) -> None:
        assert model.seed is not None
        self._errors[model.seed] = error
        text = f"seed {model.seed} ended at step {model.num_timesteps}, the others go on: {error}"
        print(printable(text), file=sys.stderr)

    def _save(self) -> None:
        failed = []
        for manager, model in self._runs:
            if manager.seed in self._errors:
                failed.append(f"seed {manager.seed} ({manager.save_path}): {self._errors[manager.seed]}")
            else:
                # rl-zoo3's own method, because our manager's override saves nothing with --seeds
                ExperimentManager.save_trained_model(manager, model)
        if failed:
            raise FailedRuns(
                f"{len(failed)} of {len(self._runs)} runs failed and have no final model:\n"
                + "\n".join(map(printable, failed))
            )


# ---- what the runs print --------------------------------------------------------------------------------------------


class LabelledOutput(io.TextIOBase):
    """
    A stream that writes to the standard output, with a label before each line.

    :param label: the label
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._in_line = False
        #: The real standard output while this stream replaces ``sys.stdout``
        self.target = sys.stdout

    def write(self, text: str) -> int:
        """Write ``text``; return its length."""
        labelled = []
        for line in text.splitlines(keepends=True):
            labelled.append(line if self._in_line else self._label + line)
            self._in_line = not line.endswith("\n")
        self._stdout.write("".join(labelled))
        return len(text)

    def flush(self) -> None:
        """Flush the standard output."""
        self._stdout.flush()

    @property
    def _stdout(self) -> Any:
        return self.target if sys.stdout is self else sys.stdout


class LabelledCallbacks(CallbackList):
    """
    The callbacks of one of several runs, whose lines on the standard output, and those of the logger, begin with a label.

    :param callbacks: of the run
    :param label: the label
    """

    def __init__(self, callbacks: list[BaseCallback], label: str) -> None:
        super().__init__(callbacks)
        self._output = LabelledOutput(label)
        self._redirection = contextlib.redirect_stdout(self._output)  # type: ignore[type-var]

    def _labelled(self) -> contextlib.AbstractContextManager[Any]:
        # Read anew each time, because a progress bar also replaces sys.stdout
        self._output.target = sys.stdout
        return self._redirection

    def _on_training_start(self) -> None:
        for output in self.logger.output_formats:
            if isinstance(output, HumanOutputFormat) and not output.own_file:
                output.file = self._output  # type: ignore[assignment]
        with self._labelled():
            super()._on_training_start()

    def _on_rollout_start(self) -> None:
        with self._labelled():
            super()._on_rollout_start()

    def _on_step(self) -> bool:
        with self._labelled():
            return super()._on_step()

    def _on_rollout_end(self) -> None:
        with self._labelled():
            super()._on_rollout_end()

    def _on_training_end(self) -> None:
        with self._labelled():
            super()._on_training_end()
