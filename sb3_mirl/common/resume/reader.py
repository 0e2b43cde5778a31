"""Reads checkpoints, and puts a model, its environment and its callbacks into the state of the newest one."""

import os
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure

from sb3_mirl.common.resume.logs import recorded_values, restore_log_files
from sb3_mirl.common.resume.manifest import (
    DamagedCheckpoint,
    check_file,
    file_names,
    find_manifests,
    is_foreign_model,
    read_manifest,
)
from sb3_mirl.common.resume.model_state import restore_model
from sb3_mirl.common.resume.replay_log import buffer_state, end_trajectory, fill_slots, set_buffer_state
from sb3_mirl.common.resume.run_state import (
    OBSERVATIONS,
    ArrayTable,
    ResumableModel,
    callback_attributes,
    missing_names,
    own_environments,
    own_objects,
    pair_with_saved,
    random_states,
    set_random_states,
    versions,
)
from sb3_mirl.common.resume.state import restore
from sb3_mirl.common.resume.walk import State, StateMismatch
from sb3_mirl.common.text import printable


class Checkpoint:
    """
    A checkpoint whose files have been compared with its manifest.

    To resume: :meth:`restore_replay`, :meth:`restore_env` and :meth:`restore_model` after the model was loaded from
    ``model_file``; :meth:`set_logger` when ``learn()`` begins; :meth:`restore_run` when training has started.

    :param folder: of the checkpoint
    :param path: its manifest
    :raises DamagedCheckpoint: if a file differs from what was written
    """

    def __init__(self, folder: Path, path: Path) -> None:
        self.folder = folder
        self.manifest = read_manifest(path)
        try:
            for name, entry in self.manifest["files"].items():
                check_file(folder, name, entry)
            for segment in self.manifest["replay"]["segments"]:
                check_file(folder / "replay", segment["file"], segment)
        except (AttributeError, KeyError, TypeError) as error:
            raise DamagedCheckpoint(f"{path.name} is not what was written: {type(error).__name__} {error}") from error
        #: Whether the state of the environment could not be restored, so that new episodes begin
        self.new_episodes = False
        #: Whether a part of policy, optimiser or learning rate could not be restored
        self.model_is_incomplete = False
        self._sets_logger = False
        self._arrays = ArrayTable(safetensors.numpy.load_file(folder / f"{self.manifest['name']}.safetensors"))
        self.model_file = folder / f"{self.manifest['name']}.zip"

    @classmethod
    def newest(cls, folder: str | os.PathLike[str], num_timesteps: int | None = None) -> "Checkpoint":
        """
        The newest undamaged checkpoint of a folder. Warns of newer ones that are damaged.

        :param folder: that :class:`~sb3_mirl.CheckpointCallback` has written to
        :param num_timesteps: consider only the checkpoints of this step
        :raises FileNotFoundError: if there is no checkpoint
        :raises ValueError: if all checkpoints are damaged, or if they are of several runs
        """
        folder = Path(folder)
        manifests, damaged = _read_manifests(folder)
        if num_timesteps is not None:
            manifests = [found for found in manifests if found[1]["num_timesteps"] == num_timesteps]
        for path, _ in sorted(manifests, key=lambda found: (found[1]["serial"], found[0]), reverse=True):
            try:
                checkpoint = cls(folder, path)
            except DamagedCheckpoint as error:
                damaged[path] = str(error)
                continue
            if damaged:
                warnings.warn(
                    f"Damaged checkpoint in {str(folder)!r} ({_reasons(damaged)}): going on with {path.stem}. To get rid of "
                    f"this warning, remove {file_names(damaged)}.",
                    stacklevel=3,
                )
            return checkpoint
        raise ValueError(
            f"folder must hold an undamaged checkpoint, got {str(folder)!r}, in which all are damaged: {_reasons(damaged)}. "
            "If only a file in replay/ is damaged, load() can still read the model from its zip file. To begin a new run in "
            f"the folder, remove {file_names(damaged)}."
        )

    @staticmethod
    def steps(folder: str | os.PathLike[str]) -> list[int]:
        """
        The steps of the checkpoints in a folder, ascending. Only their manifests are read.

        :param folder: that :class:`~sb3_mirl.CheckpointCallback` has written to
        :raises FileNotFoundError: if there is no checkpoint
        :raises ValueError: if they are of several runs
        """
        return sorted({manifest["num_timesteps"] for _, manifest in _read_manifests(Path(folder))[0]})

    @property
    def finished(self) -> bool:
        """Whether the training was complete."""
        return self.manifest["num_timesteps"] >= self.manifest["total_timesteps"]

    @property
    def continues_counting(self) -> bool:
        """Whether an unfinished ``learn(..., reset_num_timesteps=False)`` was interrupted."""
        return not self.manifest["reset_num_timesteps"] and not self.finished

    def restore_replay(self, model: ResumableModel) -> None:
        """
        Fill the replay buffer of the model. The model gets the run id and the serial number of the interrupted run.

        :raises ValueError: if the buffer's size or the number of environments has changed
        """
        buffer = model.replay_buffer
        assert buffer is not None
        if model.n_envs != self.manifest["n_envs"]:
            raise ValueError(f"env must have {self.manifest['n_envs']} environments, as in the checkpoint, got {model.n_envs}")
        fill_slots(buffer, self.folder / "replay", self.manifest["replay"])
        state = self._arrays.get(self.manifest["state"]["replay"])
        set_buffer_state(buffer, restore(buffer_state(buffer), state))
        _warn_if_incomplete("The replay buffer", state)
        model.run_id, model.checkpoint_serial = self.manifest["run"], self.manifest["serial"]

    def restore_env(self, model: ResumableModel) -> None:
        """
        Restore the state of the environment. If the checkpoint lacks a part of it, begin new episodes and warn.

        :raises ValueError: if the environment is not made like that of the interrupted run
        """
        env, buffer = model.env, model.replay_buffer
        assert env is not None and buffer is not None
        states = self.manifest["state"]
        state, observations = (self._arrays.get(states[name]) for name in ("env", "observations"))
        env.reset()
        try:
            restore(env, state, own_objects(model))
        except StateMismatch as error:
            raise ValueError(f"env must be made like that of the interrupted run: {error}") from error
        for name, value in restore(dict.fromkeys(OBSERVATIONS), observations).items():
            setattr(model, name, value)
        # DQN explores with the generator of model.action_space. After SB3's load() this is a copy of the environment's space
        if "action_space" in states:
            restore([model.action_space], self._arrays.get(states["action_space"]))
        else:
            model.action_space = env.action_space
        if state.missing:
            warnings.warn(
                "The environment's state is not in the checkpoint, because it cannot be read: "
                f"{missing_names(state.missing)}. Training continues with new episodes; nothing else is lost.",
                stacklevel=3,
            )
            self.new_episodes = True
            env.seed((model.seed or 0) + model.num_timesteps)
            model._last_obs = env.reset()  # type: ignore[assignment]
            model._last_episode_starts = np.ones((env.num_envs,), dtype=bool)
            if model._vec_normalize_env is not None:
                model._last_original_obs = model._vec_normalize_env.get_original_obs()
            end_trajectory(buffer)

    def restore_model(self, model: ResumableModel, replaced: set[str]) -> None:
        """
        Restore the state of policy, optimiser and learning rate that is not in the model file.

        :param model: a model whose environment is restored already
        :param replaced: attributes of the model that the user has replaced
        """
        state = self._arrays.get(self.manifest["state"]["model"])
        restore_model(model, state, replaced)
        self.model_is_incomplete = bool(state.missing)
        _warn_if_incomplete("The policy", state)

    def set_logger(self, model: ResumableModel) -> None:
        """Make the model log into the folder of the interrupted run, unless the user has set a logger."""
        folder = self.manifest["log_folder"]
        if not model._custom_logger and model.tensorboard_log is not None and folder is not None:
            formats = ["stdout", "tensorboard"] if model.verbose >= 1 else ["tensorboard"]
            model.set_logger(configure(os.path.join(model.tensorboard_log, folder), formats))
            self._sets_logger = True

    def restore_run(self, model: ResumableModel, callbacks: list[BaseCallback]) -> None:
        """
        Restore callbacks, logs and random generators. Nothing may draw random numbers between this and the first rollout.

        :param model: whose training has started
        :param callbacks: of the resumed run
        """
        manifest, state = self.manifest, self.manifest["state"]
        if self._sets_logger:
            model._custom_logger = False
        model.start_time = time.time_ns() - int(manifest["seconds"] * 1e9)
        model._num_timesteps_at_start = manifest["num_timesteps_at_start"]
        self._restore_callbacks(model, callbacks)
        recorded = self._arrays.get(state["logger"])
        vars(model.logger).update(restore(recorded_values(model.logger), recorded))
        _warn_if_incomplete("What the logger has recorded", recorded)
        restore_log_files(model.logger, restore({}, self._arrays.get(state["log_files"])), model.num_timesteps)
        old, new = manifest["versions"], versions()
        changed = [f"{name} {old[name]} -> {new.get(name)}" for name in old if new.get(name) != old[name]]
        if changed:
            warnings.warn(
                f"The interrupted run had other versions ({', '.join(changed)}): results may differ by rounding from those "
                "of an uninterrupted run",
                stacklevel=2,
            )
        set_random_states(restore(random_states(), self._arrays.get(state["random"])))

    def _restore_callbacks(self, model: ResumableModel, callbacks: list[BaseCallback]) -> None:
        own = own_objects(model) | own_environments(model)
        pairs, missing = pair_with_saved(self.manifest["state"]["callbacks"], callbacks)
        for name in missing:
            warnings.warn(f"The interrupted run had a callback {name}, which the resumed run does not have", stacklevel=3)
        for node, callback in pairs:
            state = self._arrays.get(node)
            vars(callback).update(restore(callback_attributes(callback), state, own))
            _warn_if_incomplete(f"The state of the {type(callback).__module__}.{type(callback).__qualname__}", state)


def _read_manifests(folder: Path) -> tuple[list[tuple[Path, dict[str, Any]]], dict[Path, str]]:
    """The readable manifests of a folder, all of one run; and for each other file the reason why it cannot be read."""
    paths = find_manifests(folder)
    if not paths:
        if models := sorted(filter(is_foreign_model, folder.glob("*_steps.zip"))):
            raise ValueError(
                f"folder must hold checkpoints of sb3_mirl.CheckpointCallback, got {str(folder)!r}, which holds those of "
                f"stable_baselines3's CheckpointCallback ({file_names(models)}). A run cannot be resumed from these. load() "
                f"reads their models; to write resumable checkpoints, use `from sb3_mirl import CheckpointCallback`."
            )
        raise FileNotFoundError(f"folder must hold a checkpoint (*_steps.json), got {str(folder)!r}, which holds none")
    manifests: list[tuple[Path, dict[str, Any]]] = []
    damaged: dict[Path, str] = {}
    runs: dict[str, list[Path]] = {}
    for path in paths:
        try:
            manifest = read_manifest(path)
        except DamagedCheckpoint as error:
            damaged[path] = str(error)
        else:
            manifests.append((path, manifest))
            runs.setdefault(manifest["run"], []).append(path)
    if len(runs) > 1:
        raise ValueError(
            f"folder must hold the checkpoints of one run, got {str(folder)!r}, which holds those of {len(runs)}: "
            f"{' and '.join(map(file_names, runs.values()))}. Remove the files of all but one of them."
        )
    return manifests, damaged


def _reasons(damaged: dict[Path, str]) -> str:
    return printable("; ".join(damaged.values()))


def _warn_if_incomplete(what: str, state: State) -> None:
    if state.missing:
        warnings.warn(f"{what} is not restored as a whole: {missing_names(state.missing)}", stacklevel=3)
