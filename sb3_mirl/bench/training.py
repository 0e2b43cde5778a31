"""
Training and evaluation of a job: :func:`run_job` trains through rl-zoo3, evaluates the model, and writes the result. Its steps
are :func:`claimed`, :func:`prepare`, the training itself, :func:`finish` and :func:`write_result`; ``packs.py`` takes the same
steps for jobs that are trained jointly.

On a CPU the result depends on the job alone: not on the machine's load, on other jobs, or on interruptions. The algorithms of
this package resume from their last checkpoint. Other algorithms start again with the same seed, and so do environments whose
state cannot be read (LunarLander).
"""

import json
import platform
import shutil
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import rl_zoo3
import torch as th
from sb3_contrib.common.maskable import evaluation as masked_evaluation
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv, sync_envs_normalization

import sb3_mirl
from sb3_mirl import MIRL, SQL, CheckpointCallback
from sb3_mirl.bench.experiment import check_device, experiment_manager, recorded_hyperparameters, register_suite
from sb3_mirl.bench.jobs import MAX_SAVE_FREQ_STEPS, PROGRESS_PERIOD_S, Job, read_folder, write_progress
from sb3_mirl.bench.schema import FORMAT, check_result, parse
from sb3_mirl.bench.suites import Suite
from sb3_mirl.common.dqn import BaseDQN
from sb3_mirl.common.files import locked, package_versions, write_whole
from sb3_mirl.common.inputs import find_action_names
from sb3_mirl.common.resume.state import capture
from sb3_mirl.zoo.manager import ExperimentManager

#: Parts of a training; histories have one number for each
PARTS = 200
#: With more actions than these (18, as on Atari), histories have ρ only at every tenth part
MANY_ACTIONS = 18
#: Added to the job's seed, so that evaluation episodes differ from training episodes
EVALUATION_SEED = 1_000_000
#: Distributions whose versions are recorded
PACKAGES = ("stable_baselines3", "sb3_contrib", "rl_zoo3", "torch", "numpy", "gymnasium", "ale_py", "MinAtar")


class History(BaseCallback):
    """
    Records a training in :data:`PARTS` parts of equal length: the mean return of the episodes that ended in each part, and β
    and ρ at its beginning if the algorithm has them. Checkpoints hold this callback, and thereby the record so far.

    :param total: environment steps of the whole training
    :param steps_path: file that gets the number of steps at the beginning of each part and every few seconds
    """

    def __init__(self, total: int, steps_path: Path) -> None:
        super().__init__()
        self.total, self.steps_path = total, steps_path
        self.returns, self.episodes = np.zeros(PARTS), np.zeros(PARTS, dtype=int)
        self.begun_at, self.betas = np.zeros(PARTS, dtype=int), np.zeros(PARTS)
        self.priors: np.ndarray | None = None
        self.part = -1
        self.written_at = -PROGRESS_PERIOD_S

    def _on_training_start(self) -> None:
        self._write_progress()
        # Of a prior that depends on the observation there is no ρ(a)
        if isinstance(self.model, MIRL) and self.model.prior_type == "marginal" and self.priors is None:
            self.priors = np.zeros((PARTS, len(self.model.prior)))

    def _on_step(self) -> bool:
        part = min((self.num_timesteps - 1) * PARTS // self.total, PARTS - 1)
        for info in self.locals["infos"]:
            if "episode" in info:
                self.returns[part] += info["episode"]["r"]
                self.episodes[part] += 1
        if part != self.part:
            self.part = part
            self.begun_at[part] = self.num_timesteps
            if isinstance(self.model, MIRL) and self.priors is not None:
                self.betas[part], self.priors[part] = self.model.beta, self.model.prior
            self._write_progress()
        # After resuming, written_at may be of another machine's clock
        elif not 0 <= time.monotonic() - self.written_at < PROGRESS_PERIOD_S:
            self._write_progress()
        return True

    def _write_progress(self) -> None:
        self.written_at = time.monotonic()
        write_progress(self.steps_path, self.model.num_timesteps)

    def curve(self) -> dict[str, list[float]]:
        """For each part in which an episode ended: its last step, the mean return, and the number of episodes."""
        ended = self.episodes > 0
        steps = np.arange(1, PARTS + 1) * self.total // PARTS
        means = self.returns[ended] / self.episodes[ended]
        return {"step": steps[ended].tolist(), "return": means.tolist(), "episodes": self.episodes[ended].tolist()}

    def beta_and_prior(self) -> dict[str, list[Any]] | None:
        """
        β, and ρ [n_actions] rounded to six decimal places, at the first step of each part, or of every tenth part if there are
        more than :data:`MANY_ACTIONS` actions. None if the algorithm has no marginal ρ.
        """
        if self.priors is None:
            return None
        begun = np.flatnonzero(self.begun_at)[:: 1 if self.priors.shape[1] <= MANY_ACTIONS else 10]
        return {
            "step": self.begun_at[begun].tolist(),
            "beta": self.betas[begun].tolist(),
            "prior": self.priors[begun].round(6).tolist(),
        }


@contextmanager
def claimed(job: Job, folder: Path) -> Iterator[bool]:
    """
    Hold the lock of a job for the time of the context, and remove its failure of an earlier run.

    :param job: a job of the folder's suite
    :param folder: created by :func:`sb3_mirl.bench.jobs.open_folder`
    :return: whether the job is to be run: it is not finished, and no other process runs it
    """
    job.run_folder(folder).mkdir(parents=True, exist_ok=True)
    with locked(job.lock_file(folder), patience_s=1.0) as free:
        to_be_run = free and not job.finished(folder)
        if to_be_run:
            job.failure_file(folder).unlink(missing_ok=True)
        yield to_be_run


@contextmanager
def logged(job: Job, folder: Path) -> Iterator[None]:
    """Appends what is printed to the log of a job."""
    with open(job.log_file(folder), "a") as log, redirect_stdout(log):
        yield


@contextmanager
def recorded(job: Job, folder: Path) -> Iterator[None]:
    """Suppresses an exception and records it as the failure of a job. What is printed goes to the job's log."""
    try:
        with logged(job, folder):
            yield
    except Exception:
        job.record_failure(folder, traceback.format_exc())


def run_job(job: Job, folder: Path, save_freq: int | None = None, device: str = "auto") -> bool:
    """
    Train and evaluate, unless the job is finished or another process runs it. Writes the whole result, or the traceback if the
    job fails.

    Keys of the result:

    - ``suite``, ``algorithm``, ``environment``, ``seed``: the job;
    - ``steps``: environment steps that were trained;
    - ``scores``: of the evaluation's episodes, with unclipped rewards; ``evaluation``: its settings;
    - ``hyperparameters``: those of the file, overridden by the suite's; ``hyperparameters_file``: its name;
    - ``curve``: returns during the training (:meth:`History.curve`); ``action_names``;
    - of MIRL, SQL and SQL_m ``prior`` and ``beta`` at the end, α_ρ and α_β as ``prior_lr`` and ``beta_lr``, and ``history``
      (:meth:`History.beta_and_prior`);
    - ``versions``, ``machine``: where the result was computed; ``time``: how fast. Only ``time`` differs between two runs of
      a job on the same machine;
    - ``trained_jointly``: number of runs that were trained in lock-step (:func:`sb3_mirl.bench.packs.run_pack`). It is absent
      if the job was trained by itself. ``time`` is then that of all these runs together.

    :param job: a job of the folder's suite
    :param folder: created by :func:`sb3_mirl.bench.jobs.open_folder`
    :param save_freq: environment steps between checkpoints; by default a tenth of the training, at most
        :data:`~sb3_mirl.bench.jobs.MAX_SAVE_FREQ_STEPS`
    :param device: ``"cpu"``, ``"cuda"``, ... or ``"auto"``
    :return: whether there is a result
    """
    with claimed(job, folder) as to_be_run:
        if to_be_run:
            with recorded(job, folder):
                write_result(job, folder, _train_and_evaluate(job, folder, save_freq, device))
        return job.finished(folder)


def write_result(job: Job, folder: Path, result: dict[str, Any]) -> None:
    """
    Write the result of a job, and remove its checkpoints.

    :raises ValueError: if the result could not be read again, which then counts as a failure of the job
    """
    content = _as_json(result).encode()
    check_result(parse(content))
    write_whole(job.result_file(folder), content)
    shutil.rmtree(job.checkpoints(folder), ignore_errors=True)


def _as_json(result: dict[str, Any]) -> str:
    """One line for each key, for human readers."""
    lines = (f"{json.dumps(key)}: {json.dumps(value, default=str)}" for key, value in result.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


@dataclass
class Training:
    """
    The training of a job, from :func:`prepare` to :func:`finish`.

    :param suite: of the job
    :param job: to be trained
    :param manager: of rl-zoo3, with all callbacks
    :param model: new or resumed
    :param hyperparameters: as results have them
    :param history: the first of the callbacks
    :param checkpoints: folder of the checkpoints, None if the training cannot be resumed
    :param resumed_at: environment step of the checkpoint from which it goes on
    :param seconds: how long it took, set at its end
    :param trained_jointly: number of runs in lock-step, None if it is trained by itself
    """

    suite: Suite
    job: Job
    manager: ExperimentManager
    model: BaseAlgorithm
    hyperparameters: dict[str, Any]
    history: History
    checkpoints: Path | None
    resumed_at: int = 0
    seconds: float = 0.0
    trained_jointly: int | None = None

    def resume(self, model: BaseAlgorithm) -> None:
        """Goes on with the model of a checkpoint."""
        self.model, self.resumed_at = model, model.num_timesteps

    def stop_clock(self) -> None:
        """To be called at the end of the training, before evaluations."""
        self.seconds = (time.time_ns() - self.model.start_time) / 1e9


def prepare(job: Job, folder: Path, save_freq: int | None, device: str) -> Training:
    """
    Make the model of a job, its environment and its callbacks. Checkpoints of other hyper-parameters are removed.

    :param job: claimed, see :func:`claimed`
    :param folder: of the benchmark
    :param save_freq: as in :func:`run_job`
    :param device: as in :func:`run_job`
    :return: a training that begins at step 0
    """
    suite, _ = read_folder(folder)
    check_device(device)
    register_suite(suite)
    # Of an interrupted run; its checkpoints are in another folder
    shutil.rmtree(job.run_folder(folder) / job.algorithm, ignore_errors=True)
    set_random_seed(job.seed)
    manager = experiment_manager(suite, job, job.run_folder(folder), device)
    experiment = manager.setup_experiment()
    assert experiment is not None
    model, hyperparams = experiment
    history = History(manager.n_timesteps, job.progress_file(folder))
    manager.callbacks.insert(0, history)
    hyperparameters = recorded_hyperparameters(manager, hyperparams)
    checkpoints = None
    # Without the environment's state a resumed run would differ from an uninterrupted one
    if isinstance(model, BaseDQN) and not capture(model.env).missing:
        checkpoints = job.checkpoints(folder)
        _discard_outdated_checkpoints(job, folder, hyperparameters)
        save_freq = save_freq or min(manager.n_timesteps // 10, MAX_SAVE_FREQ_STEPS)
        manager.callbacks.append(CheckpointCallback(max(save_freq // manager.n_envs, 1), checkpoints))
    return Training(suite, job, manager, model, hyperparameters, history, checkpoints)


def _train_and_evaluate(job: Job, folder: Path, save_freq: int | None, device: str) -> dict[str, Any]:
    training = prepare(job, folder, save_freq, device)
    if training.checkpoints is not None and isinstance(training.model, BaseDQN):
        training.resume(_resumed(training.model, training.checkpoints))
    training.manager.learn(training.model)
    training.stop_clock()
    if training.model.num_timesteps < training.manager.n_timesteps:
        raise KeyboardInterrupt  # again, because rl-zoo3 has caught the first one
    return finish(training)


def finish(training: Training) -> dict[str, Any]:
    """
    Save and evaluate the model of a training that has ended.

    :param training: whose environment is closed
    :return: the result of the job, see :func:`run_job`
    """
    suite, job, model, manager = training.suite, training.job, training.model, training.manager
    manager.save_trained_model(model)
    begun = time.monotonic()
    env = manager.create_envs(1, eval_env=True)
    action_space = model.action_space
    action_names = find_action_names(env, int(action_space.n)) if isinstance(action_space, gym.spaces.Discrete) else None
    scores = evaluate(model, env, suite.episodes, suite.epsilon, EVALUATION_SEED + job.seed)
    env.close()
    own = {"beta": model.beta, **_learning_rates(model)} if isinstance(model, MIRL) else {}
    if isinstance(model, MIRL) and model.prior_type == "marginal":
        own = {"prior": model.prior.tolist(), **own}
    jointly = {} if training.trained_jointly is None else {"trained_jointly": training.trained_jointly}
    return {
        "format": FORMAT,
        "suite": suite.name,
        "algorithm": job.algorithm,
        "environment": job.env,
        "seed": job.seed,
        "steps": model.num_timesteps,
        "scores": scores,
        "evaluation": {
            "episodes": suite.episodes,
            "epsilon": suite.epsilon,
            "random actions from": _source_of_random_actions(model),
            "seed": EVALUATION_SEED + job.seed,
        },
        "hyperparameters": training.hyperparameters,
        "hyperparameters_file": _package_path(manager.config),
        "curve": training.history.curve(),
        "action_names": action_names,
        **own,
        "history": training.history.beta_and_prior(),
        "versions": {"python": platform.python_version(), "sb3_mirl": sb3_mirl.__version__, **package_versions(*PACKAGES)},
        "machine": {"processor": platform.machine(), "device": str(model.device), "threads": th.get_num_threads()},
        **jointly,
        "time": {
            "training": training.seconds,
            "evaluation": time.monotonic() - begun,
            "steps_per_second": model.num_timesteps / training.seconds,
            "resumed_at": training.resumed_at,
        },
    }


def _package_path(config: str) -> str:
    """The path of a file of hyper-parameters, ours or rl-zoo3's, without the folder of the installation."""
    path = Path(config)
    return f"{'rl_zoo3' if path.is_relative_to(Path(rl_zoo3.__file__).parent) else 'sb3_mirl'}/hyperparams/{path.name}"


def _learning_rates(model: MIRL) -> dict[str, float]:
    """α_ρ and α_β as numbers, also where the arguments were ``"auto"``."""
    given = {name: getattr(model, name) for name in ("prior_lr", "beta_lr")}
    return {name: getattr(model, f"resolved_{name}") if isinstance(value, str) else value for name, value in given.items()}


def _discard_outdated_checkpoints(job: Job, folder: Path, hyperparams: dict[str, Any]) -> None:
    """Removes checkpoints of a run with other hyper-parameters, and writes these."""
    file, content = job.run_folder(folder) / "hyperparameters.json", json.dumps(hyperparams, sort_keys=True).encode()
    if job.checkpoints(folder).exists() and not (file.exists() and file.read_bytes() == content):
        print("The hyper-parameters have changed: beginning again")
        shutil.rmtree(job.checkpoints(folder))
    write_whole(file, content)


def _resumed(model: BaseDQN, checkpoints: Path) -> BaseDQN:
    """The model of the last readable checkpoint, or the given new model."""
    if not checkpoints.is_dir():
        return model
    assert model.env is not None
    try:
        return type(model).resume(checkpoints, model.env, model.device)
    except (FileNotFoundError, ValueError) as error:
        print(f"{error}: beginning again")
        shutil.rmtree(checkpoints)
        model.env.seed(model.seed)
        return model


def evaluate(model: BaseAlgorithm, env: VecEnv, episodes: int, epsilon: float, seed: int) -> list[float]:
    """
    Scores of whole episodes, with rewards neither clipped nor normalised.

    :param model: acts by ``predict(deterministic=False)``: with probability ε MIRL and SQL_m draw from ρ, and SQL, DQN and
        QR-DQN uniformly. An algorithm without ε draws from its policy. A model that was trained with action masks gets those
        of the environment
    :param env: one environment, with a Monitor
    :param episodes: number of episodes
    :param epsilon: ε
    :param seed: of the environment and of all random numbers
    :return: [episodes]
    """
    set_random_seed(seed)
    env.seed(seed)
    model.action_space.seed(seed)
    if hasattr(model, "exploration_rate"):
        model.exploration_rate = epsilon
    if model.get_vec_normalize_env() is not None:
        sync_envs_normalization(model.env, env)  # type: ignore[arg-type]
    masked = getattr(model, "uses_action_masks", False)
    evaluation: Any = masked_evaluation.evaluate_policy if masked else evaluate_policy
    scores, _ = evaluation(model, env, episodes, deterministic=False, return_episode_rewards=True)
    return [float(score) for score in scores]


def _source_of_random_actions(model: BaseAlgorithm) -> str:
    if isinstance(model, MIRL) and not isinstance(model, SQL):
        return "the learned prior"
    return "the uniform distribution" if hasattr(model, "exploration_rate") else "the policy, which has no epsilon"
