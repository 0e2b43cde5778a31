"""rl-zoo3's ``ExperimentManager`` with what our algorithms add: checked hyper-parameters, exact checkpoints, joint seeds."""

import argparse
import copy
import os
import shutil
from typing import Any, NamedTuple

import optuna
import rl_zoo3.exp_manager
from stable_baselines3.common import callbacks
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_mirl.common.dqn import BaseDQN
from sb3_mirl.common.resume.callback import CheckpointCallback
from sb3_mirl.common.resume.reader import Checkpoint
from sb3_mirl.zoo.hyperparams import Places, check_hyperparameters, read_document, read_places
from sb3_mirl.zoo.register import ALGORITHMS
from sb3_mirl.zoo.runs import CommandError, Run
from sb3_mirl.zoo.seeds import SeedRuns
from sb3_mirl.zoo.workarounds import counting_all_episodes


class Resumed(NamedTuple):
    """A run to be continued, and the checkpoint to continue from."""

    run: Run
    checkpoint: Checkpoint


class ExperimentManager(rl_zoo3.exp_manager.ExperimentManager):
    """
    rl-zoo3's ``ExperimentManager``. It accepts ``--trial-id 0``, and its hyper-parameter search leaves no run folder behind.

    For our algorithms it checks the hyper-parameters, writes checkpoints with :class:`sb3_mirl.CheckpointCallback`, and
    continues a run if ``args`` has the attribute ``resume``, a :class:`Resumed`. With the attribute ``seed_runs``, a
    :class:`~sb3_mirl.zoo.seeds.SeedRuns`, the model is trained and saved later, with those of other seeds.
    """

    def __init__(self, args: argparse.Namespace, *arguments: Any, **kwargs: Any) -> None:
        super().__init__(args, *arguments, **kwargs)
        self.resumed: Resumed | None = vars(args).pop("resume", None)
        self.seed_runs: SeedRuns | None = vars(args).pop("seed_runs", None)
        self.made_folder = False
        #: Dicts of the trial of ``--trial-id``, which are merged into those of the file
        self.sampled: dict[str, dict[str, Any]] = {}
        #: Arguments of the environment in the file of hyper-parameters
        self.file_env_kwargs: dict[str, Any] = {}
        # There is one progress bar for all seeds
        self.show_progress &= self.seed_runs is None
        if self.resumed is not None:
            self.continue_training = True
            self.save_path = str(self.resumed.run.folder)
            self.params_path = f"{self.save_path}/{self.env_name}"

    def read_hyperparameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """
        Read the hyper-parameters and, for our algorithms, check them.

        :return: what the zoo preprocesses, and what it saves
        :raises HyperparametersError: if there are mistakes in them
        """
        if self.resumed is not None:
            step = self.resumed.checkpoint.manifest["num_timesteps"]
            print(f"Resuming {self.save_path} at step {step}, with its hyper-parameters")
            return copy.deepcopy(self.resumed.run.hyperparams), self.resumed.run.hyperparams
        places, section = self.check_file()
        hyperparams, saved_hyperparams = self.read_unchecked()
        if self.algo not in ALGORITHMS:
            return hyperparams, saved_hyperparams
        places |= dict.fromkeys(self.custom_hyperparams or {}, "-params")
        evaluated = check_hyperparameters(ALGORITHMS[self.algo], self.env_name.gym_id, hyperparams, places, section)
        # A copy, because rl-zoo3 adds gamma to a dict `normalize` before it saves it
        return {**copy.deepcopy(hyperparams), **evaluated}, saved_hyperparams

    def _preprocess_hyperparams(self, hyperparams: dict[str, Any]) -> tuple[dict[str, Any], Any, Any, Any]:
        arguments, env_wrapper, listed, vec_env_wrapper = super()._preprocess_hyperparams(hyperparams)
        # rl-zoo3 uses the file's env_kwargs in the training only
        given = self._eval_env_kwargs_args
        self.eval_env_kwargs = self.env_kwargs if given is None else {**self.file_env_kwargs, **given}
        return arguments, counting_all_episodes(env_wrapper), listed, vec_env_wrapper

    def check_file(self) -> tuple[Places, str]:
        """
        Check the form of a YAML file of hyper-parameters.

        :return: for our algorithms the places of the hyper-parameters and of their section
        :raises HyperparametersError: if it is not valid
        """
        if self.config.endswith((".yml", ".yaml")):
            root = read_document(self.config)
            if self.algo in ALGORITHMS:
                return read_places(self.config, root, self.env_name.gym_id, self._is_atari)
        return {}, self.config

    def read_unchecked(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """rl-zoo3's ``read_hyperparameters``, corrected: rl-zoo3 takes ``--trial-id 0`` for "no trial"."""
        if self.trial_id is not None and not (self.storage and self.study_name):
            raise CommandError("--trial-id needs --storage and --study-name, which name its study")
        if self.trial_id == 0:
            print("Loading from Optuna study...")
            trial = self.load_trial(str(self.storage), str(self.study_name), 0)
            self.custom_hyperparams = {**trial, **(self.custom_hyperparams or {})}
        # The env_kwargs of the command line are merged into the file's; rl-zoo3 would replace the file's
        given, self.env_kwargs = self.env_kwargs, {}
        hyperparams, saved_hyperparams = super().read_hyperparameters()
        self.env_kwargs = given
        completed: dict[str, Any] = {}
        self.file_env_kwargs = hyperparams.get("env_kwargs") or {}
        if given and "env_kwargs" in hyperparams:
            completed["env_kwargs"] = {**self.file_env_kwargs, **given}
        for name in sorted(self.sampled.keys() - (self.custom_hyperparams or {}).keys()):
            own, sampled = hyperparams.get(name) or {}, self.sampled[name]
            # A file holds a dict, or a Python expression of one as text
            completed[name] = f"{{**{own}, **{sampled}}}" if isinstance(own, str) else {**own, **sampled}
            print(f"From the trial: {name}={sampled}")
        hyperparams.update(completed)
        saved_hyperparams.update(completed)
        return hyperparams, saved_hyperparams

    def load_trial(self, storage: str, study_name: str, trial_id: int | None = None, convert: bool = True) -> dict[str, Any]:
        """
        rl-zoo3's ``load_trial``, after checking that there is such a trial.

        :raises CommandError: if there is none
        """
        is_log = storage.endswith(".log")
        journal = optuna.storages.journal.JournalFileBackend  # type: ignore[attr-defined]
        backend = optuna.storages.JournalStorage(journal(storage)) if is_log else storage
        try:
            trials = optuna.load_study(storage=backend, study_name=study_name).trials
        except KeyError as error:
            raise CommandError(f"--study-name must be a study in {storage}, got {study_name!r}") from error
        if trial_id is not None and trial_id not in range(len(trials)):
            among = f"from 0 to {len(trials) - 1}" if trials else "but there is none"
            raise CommandError(f"--trial-id must be a trial of study {study_name!r}, {among}, got {trial_id}")
        trial = super().load_trial(storage, study_name, trial_id, convert)
        if convert and self.algo in ALGORITHMS:
            # read_unchecked() merges these into the file's dicts, as the search does
            of_buffer = {name: trial.pop(name) for name in ("n_sampled_goal", "goal_selection_strategy") if name in trial}
            sampled = {"policy_kwargs": trial.pop("policy_kwargs", {}), "replay_buffer_kwargs": of_buffer}
            self.sampled = {name: kwargs for name, kwargs in sampled.items() if kwargs}
        return trial

    def setup_experiment(self) -> tuple[BaseAlgorithm, dict[str, Any]] | None:
        """rl-zoo3's. If the model cannot be made, for example because spaces do not match, the run folder is removed."""
        try:
            return super().setup_experiment()
        except Exception:
            self._remove_folder()
            raise

    def create_log_folder(self) -> None:
        """rl-zoo3's. Notes whether the folder is new, because rl-zoo3 also accepts an existing one."""
        try:
            os.makedirs(self.save_path)
            self.made_folder = True
        except FileExistsError:
            self.made_folder = False
        super().create_log_folder()

    def _remove_folder(self) -> None:
        """Remove the run folder, if this run has created it."""
        if self.made_folder:
            shutil.rmtree(self.save_path, ignore_errors=True)

    def create_callbacks(self) -> None:
        """rl-zoo3's callbacks, with our checkpoints for our algorithms."""
        n_before = len(self.callbacks)
        super().create_callbacks()
        if self.algo not in ALGORITHMS:
            return
        for index, callback in enumerate(self.callbacks):
            if index >= n_before and type(callback) is callbacks.CheckpointCallback:
                self.callbacks[index] = CheckpointCallback(
                    callback.save_freq, self.save_path, keep=self.args.keep_checkpoints, verbose=self.verbose
                )

    def _load_pretrained_agent(self, hyperparams: dict[str, Any], env: VecEnv) -> Any:
        if self.resumed is None:
            try:
                return super()._load_pretrained_agent(hyperparams, env)
            except ValueError as error:
                if "spaces do not match" not in str(error):
                    raise
                spaces = f"the spaces of {self.env_name.gym_id} and its wrappers"
                raise CommandError(f"-i must be a model with {spaces}, got {self.trained_agent!r}: {error}") from error
        settings = {"tensorboard_log": self.tensorboard_log, "verbose": self.verbose}
        try:
            return ALGORITHMS[self.algo].resume_checkpoint(self.resumed.checkpoint, env, self.device, **settings)
        except ValueError as error:
            raise CommandError(f"{self.save_path} cannot be resumed: {error}") from error

    def _save_config(self, saved_hyperparams: dict[str, Any]) -> None:
        if self.resumed is None:
            super()._save_config(saved_hyperparams)

    def learn(self, model: BaseAlgorithm) -> None:
        """rl-zoo3's training. With ``--seeds`` it is deferred until the models of all seeds exist."""
        if self.seed_runs is None:
            super().learn(model)
        else:
            assert isinstance(model, BaseDQN)
            try:
                self.seed_runs.add(self, model)
            except CommandError:
                self._remove_folder()
                raise

    def save_trained_model(self, model: BaseAlgorithm) -> None:
        """rl-zoo3's. With ``--seeds`` the model is saved after the joint training."""
        if self.seed_runs is None:
            super().save_trained_model(model)

    def hyperparameters_optimization(self) -> None:
        """
        rl-zoo3's search. The run folder is removed: it holds no model, but ``enjoy`` would take it for the latest run. For our
        algorithms the sampled network is merged into the file's ``policy_kwargs`` instead of replacing them.
        """
        samplers = rl_zoo3.exp_manager.HYPERPARAMS_SAMPLER
        before = dict(samplers)

        def sample(*arguments: Any) -> dict[str, Any]:
            sampled = before[self.algo](*arguments)
            both = {**(self._hyperparams.get("policy_kwargs") or {}), **sampled.get("policy_kwargs", {})}
            return {**sampled, "policy_kwargs": both}

        if self.algo in ALGORITHMS:
            samplers[self.algo] = sample  # type: ignore[assignment]
        try:
            super().hyperparameters_optimization()
        finally:
            samplers.update(before)
            self._remove_folder()
