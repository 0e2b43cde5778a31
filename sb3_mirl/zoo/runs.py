"""
Run folders of rl-zoo3 for ``--resume``: which folder it refers to, whether the run is finished, and whether a command line
contradicts the run.
"""

import json
import os
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from huggingface_sb3 import EnvironmentName

from sb3_mirl.common.files import write_whole
from sb3_mirl.common.text import printable
from sb3_mirl.zoo.hyperparams import HyperparametersError, check_size

#: Options that may differ in a resumed run: where and how it runs, and what is shown and kept of it
FREE_OPTIONS = frozenset(
    "resume keep_checkpoints save_freq save_replay_buffer log_folder uuid device num_threads verbose progress log_interval "
    "gym_packages no_optim_plots track wandb_project_name wandb_entity wandb_group wandb_tags".split()
)


class CommandError(ValueError):
    """A mistake in a command line or a run folder, in one line."""

    def __init__(self, text: str) -> None:
        super().__init__(printable(text))


class Run:
    """
    A run folder, such as ``logs/mirl/CartPole-v1_1``.

    :param folder: the folder
    :raises CommandError: if it has no settings that rl-zoo3 wrote
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise CommandError(f"--resume must be followed by a run folder, got {str(folder)!r}, which does not exist")
        files = list(self.folder.glob("*/args.yml"))
        if len(files) != 1:
            raise CommandError(
                f"--resume must be followed by a run folder, such as logs/mirl/CartPole-v1_1, got {str(folder)!r}, which "
                f"has {'several files' if files else 'no file'} */args.yml"
            )
        #: The folder of rl-zoo3's settings
        self.params_folder = files[0].parent
        self.args = self._read("args.yml")
        if missing := {"algo", "env", "seed", "n_timesteps", "gym_packages", "trained_agent"} - self.args.keys():
            raise CommandError(f"{files[0]} must hold the arguments of a run, got none for {', '.join(sorted(missing))}")

    @classmethod
    def newest(cls, log_folder: str | os.PathLike[str], algorithm: str, env: str, seed: int | None) -> "Run | None":
        """
        The newest run of an algorithm on an environment.

        :param log_folder: the folder of all runs (``-f``)
        :param algorithm: the algorithm's name in the zoo
        :param env: the environment's id
        :param seed: the run's seed; None: any
        :return: the run, or None if there is none
        """
        name = EnvironmentName(env)
        runs = []
        for file in Path(log_folder, algorithm).glob(f"*/{name}/args.yml"):
            # --uuid adds 36 characters; several runs may then have the same number
            match = re.fullmatch(re.escape(name) + r"_(\d+)(_[-0-9a-f]{36})?", file.parent.parent.name)
            if match:
                runs.append((int(match[1]), file.stat().st_mtime_ns, file.parent.parent))
        for _, _, folder in sorted(runs, reverse=True):
            try:
                run = cls(folder)
            except CommandError as error:
                if any(folder.glob("rl_model_*")):
                    raise
                # The run was killed before its settings were written
                print(f"Left out: {error}")
                continue
            if seed is None or run.args["seed"] == seed:
                return run
        return None

    def _read(self, name: str) -> dict[str, Any]:
        file = self.params_folder / name
        try:
            text = file.read_text()
            check_size(str(file), text)
            # As rl-zoo3 reads it: the file may create objects of any class
            content = yaml.load(text, Loader=yaml.UnsafeLoader)
        except HyperparametersError as error:
            raise CommandError(str(error)) from error
        except Exception as error:
            raise CommandError(f"{file} cannot be read: {' '.join(str(error).split())}") from error
        if not isinstance(content, dict):
            raise CommandError(f"{file} must hold settings, got {content!r}")
        return dict(content)

    @cached_property
    def hyperparams(self) -> dict[str, Any]:
        """The hyper-parameters, including those of the command line that began the run."""
        return self._read("config.yml")

    @property
    def n_timesteps(self) -> int:
        """The number of environment steps that the run is to have."""
        return int(self.args["n_timesteps"] if self.args["n_timesteps"] > 0 else self.hyperparams["n_timesteps"])

    def extend(self, n_timesteps: int) -> None:
        """
        Increase the number of steps of a finished run, so that it can be resumed.

        :param n_timesteps: the new total
        """
        self.args["n_timesteps"] = n_timesteps
        # In rl-zoo3's format
        write_whole(self.params_folder / "args.yml", yaml.dump(OrderedDict(sorted(self.args.items()))).encode())

    @property
    def model_file(self) -> Path:
        """The path of the final model, which may not exist yet."""
        return self.folder / f"{EnvironmentName(self.args['env'])}.zip"

    @property
    def has_checkpoint(self) -> bool:
        """Whether :class:`sb3_mirl.CheckpointCallback` has written a checkpoint."""
        return any(self.folder.glob("rl_model_*_steps.json"))

    @property
    def finished(self) -> bool:
        """Whether the final model has made all its steps. rl-zoo3 also saves a model after Ctrl-C."""
        try:
            with zipfile.ZipFile(self.model_file) as file:
                data = json.loads(file.read("data"))
            return bool(data["num_timesteps"] >= max(data["_total_timesteps"], self.n_timesteps))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            return False

    def check(self, given: Mapping[str, Any], hyperparams: Mapping[str, Any]) -> None:
        """
        Compare a command line with the run. Options that are not given do not contradict it.

        :param given: options of the command line, by their names in ``args.yml``
        :param hyperparams: hyper-parameters of the command line
        :raises CommandError: if they contradict those of the run
        """
        own_hyperparams = self.hyperparams
        own = {**self.args, "n_timesteps": self.n_timesteps}
        # With --track rl-zoo3 has replaced --tensorboard-log. Negative values mean "not given" to rl-zoo3
        free = FREE_OPTIONS | {"conf_file", "hyperparams"} | ({"tensorboard_log"} if own.get("track") else set())
        free |= {name for name, first in (("seed", 0), ("n_timesteps", 1)) if given.get(name, first) < first}
        differing = [
            f"--{name.replace('_', '-')} is {own.get(name)!r} there, got {value!r}"
            for name, value in given.items()
            if name not in free and not _equal(own.get(name), value)
        ]
        differing += [
            f"{name} is {own_hyperparams[name]!r} there, got {value!r}"
            if name in own_hyperparams
            else f"{name} is not given there, got {value!r}"
            for name, value in hyperparams.items()
            if name not in own_hyperparams or not _equal(own_hyperparams[name], value)
        ]
        if differing:
            raise CommandError(
                f"{self.folder} goes on with its own settings, and the command line contradicts them: {'; '.join(differing)}. "
                "Options that are left out keep the run's values. Without --resume a new run begins."
            )


def _equal(value: Any, other: Any) -> bool:
    return bool(yaml.dump(value) == yaml.dump(other) or value == other)
