"""
What a job does: :func:`run_job` trains through rl-zoo3's ``ExperimentManager`` with the hyper-parameters that come with this
package, evaluates, and writes the result.

On a CPU a result depends on the job alone: whoever runs it, beside whatever else, interrupted or not. MIRL, SQL and SQL_m go
on from their last checkpoint; other algorithms, and environments whose state cannot be read (LunarLander), begin again with
the same seed.

:func:`main` is a job as a process of its own, with one thread, which ends when its standard input does, and so with whoever
started it.
"""

import argparse
import importlib
import importlib.metadata
import inspect
import json
import os
import platform
import shutil
import threading
import time
import traceback
import warnings
from collections.abc import Iterable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import rl_zoo3
import torch as th
import yaml
from gymnasium.error import DependencyNotInstalled
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv, sync_envs_normalization

import sb3_mirl
from sb3_mirl import MIRL, SQL, CheckpointCallback
from sb3_mirl.bench.jobs import (
    MAX_SAVE_FREQ,
    PROGRESS_PERIOD,
    FolderError,
    Job,
    locked,
    read_folder,
    write_progress,
    write_whole,
)
from sb3_mirl.bench.schema import FORMAT, check_result, parse
from sb3_mirl.bench.suites import Suite
from sb3_mirl.common.inputs import find_action_names
from sb3_mirl.common.resume.state import capture
from sb3_mirl.zoo.command import ALGORITHMS, ExperimentManager, hyperparams_file, register

#: Parts of a training, for each of which its history has one number
PARTS = 200
#: Added to the job's seed: the evaluation's episodes are not those of the training
EVALUATION_SEED = 1_000_000
_PACKAGES = ("stable_baselines3", "sb3_contrib", "rl_zoo3", "torch", "numpy", "gymnasium", "ale_py", "MinAtar")


class History(BaseCallback):
    """
    The training in :data:`PARTS` parts of equal length: mean return of the episodes that ended in each, and β and ρ at its
    beginning where the algorithm has them.

    :param total: environment steps of the whole training
    :param steps_path: where the number of steps is written down, as text, at the beginning of each part and from time to time
    """

    def __init__(self, total: int, steps_path: Path) -> None:
        super().__init__()
        self.total, self.steps_path = total, steps_path
        # Arrays, which a checkpoint restores
        self.returns, self.episodes = np.zeros(PARTS), np.zeros(PARTS, dtype=int)
        self.begun_at, self.betas = np.zeros(PARTS, dtype=int), np.zeros(PARTS)
        self.priors: np.ndarray | None = None
        self.part = -1
        self.written_at = -PROGRESS_PERIOD

    def _on_training_start(self) -> None:
        self._write_progress()
        if isinstance(self.model, MIRL) and self.priors is None:
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
        # A checkpoint may bring the time of another machine's clock
        elif not 0 <= time.monotonic() - self.written_at < PROGRESS_PERIOD:
            self._write_progress()
        return True

    def _write_progress(self) -> None:
        self.written_at = time.monotonic()
        write_progress(self.steps_path, self.model.num_timesteps)

    def curve(self) -> dict[str, list[float]]:
        """By the steps at the end of each part in which an episode ended: mean return, and number of episodes."""
        ended = self.episodes > 0
        steps = np.arange(1, PARTS + 1) * self.total // PARTS
        means = self.returns[ended] / self.episodes[ended]
        return {"step": steps[ended].tolist(), "return": means.tolist(), "episodes": self.episodes[ended].tolist()}

    def temperature(self) -> dict[str, list[Any]] | None:
        """By environment step: β, and ρ [n_actions]."""
        if self.priors is None:
            return None
        begun = self.begun_at > 0
        return {
            "step": self.begun_at[begun].tolist(),
            "beta": self.betas[begun].tolist(),
            "prior": self.priors[begun].tolist(),
        }


def check(suite: Suite, jobs: Iterable[Job], folder: Path | None = None) -> None:
    """
    Whether the jobs can be run: algorithms, environments and hyper-parameters are there and go together. Nothing is trained.

    :param suite: of the jobs
    :param jobs: of which each algorithm and environment is looked at once
    :param folder: of the benchmark, if it is there: results that it has already must be of the same hyper-parameters
    :raises ValueError: if not; the message says what is missing, or does not fit
    """
    _register(suite)
    pairs = dict.fromkeys((job.algorithm, job.env) for job in jobs)
    for algorithm in dict.fromkeys(algorithm for algorithm, _ in pairs):
        if algorithm not in rl_zoo3.ALGOS:
            raise ValueError(f"unknown algorithm {algorithm!r}, choose among {', '.join(rl_zoo3.ALGOS)}")
    for env in dict.fromkeys(env for _, env in pairs):
        try:
            gym.make(env).close()
        except Exception as error:
            missing = isinstance(error, (ImportError, DependencyNotInstalled)) and suite.extra
            raise ValueError(f"{env} cannot be made: {error}{_installation(suite) if missing else ''}") from error
    for algorithm, env in pairs:
        with open(os.devnull, "w") as nothing, redirect_stdout(nothing):
            wanted = _check_pair(suite, algorithm, env)
        if folder is not None:
            _check_results(folder, algorithm, env, wanted)


def _installation(suite: Suite) -> str:
    return f". Suite {suite.name} needs more packages: pip install 'sb3-mirl[zoo,bench,{suite.extra}]'"


def _check_pair(suite: Suite, algorithm: str, env: str) -> dict[str, Any]:
    """:return: the hyper-parameters, as a result has them"""
    manager = _manager(suite, Job(algorithm, env, 0), Path(os.devnull), "cpu")
    try:
        hyperparams, saved = manager.read_hyperparameters()
    except (KeyError, OSError) as error:
        raise ValueError(f"no hyper-parameters of {algorithm} for {env} ({error})") from error
    arguments, manager.env_wrapper, _, manager.vec_env_wrapper = manager._preprocess_hyperparams(hyperparams)
    vec_env = manager.create_envs(1, no_log=True)
    try:
        arguments = manager._preprocess_action_noise(arguments, saved, vec_env)
        with warnings.catch_warnings():
            # Of PPO, which has one environment here and more in a job
            warnings.simplefilter("ignore")
            # Neither network nor replay buffer are made
            rl_zoo3.ALGOS[algorithm](env=vec_env, device="cpu", _init_setup_model=False, **arguments)  # type: ignore[call-arg]
    except (AssertionError, TypeError, ValueError) as error:
        raise ValueError(f"{algorithm} cannot be trained on {env} in suite {suite.name}: {error}") from error
    finally:
        vec_env.close()
    return _recorded(manager, saved)


def _recorded(manager: ExperimentManager, hyperparams: dict[str, Any]) -> dict[str, Any]:
    """Hyper-parameters as they are in a result's file."""
    return json.loads(json.dumps({**hyperparams, "n_timesteps": manager.n_timesteps}, default=str))


def _check_results(folder: Path, algorithm: str, env: str, wanted: dict[str, Any]) -> None:
    for file in (folder / "results").glob(f"{Job(algorithm, env, 0).name.removesuffix('0')}*.json"):
        seed = file.stem.rpartition("_")[2]
        job = Job(algorithm, env, int(seed) if seed.isdecimal() else 0)
        if job.result_file(folder) == file:
            try:
                there = job.result(folder)["hyperparameters"]
            except (OSError, ValueError):
                continue  # no result that could be mixed with others
            different = [
                f"{key} {there.get(key, 'not set')!r} instead of {wanted.get(key, 'not set')!r}"
                for key in sorted({*there, *wanted})
                if there.get(key) != wanted.get(key)
            ]
            if different:
                raise FolderError(
                    f"{str(folder)!r} holds a result of {job} with other hyper-parameters: {'; '.join(different)}. "
                    "Choose another folder"
                )


def check_device(device: str) -> None:
    """:raises ValueError: if PyTorch has no such device here; SB3 itself would take the CPU instead"""
    try:
        th.zeros((), device=None if device == "auto" else device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device must be auto, cpu, or one that PyTorch has here, got {device!r} ({error})") from error


def run_job(job: Job, folder: Path, save_freq: int | None = None, device: str = "auto") -> bool:
    """
    Train and evaluate, unless the result is there already or another process is at it. The folder gets either the whole result
    or, if the job fails, the traceback.

    The result is a dict of ``suite``, the job's ``algorithm``, ``environment`` and ``seed``; ``steps`` that were trained;
    ``scores``, those of the evaluation's episodes, as the environment gives them; ``evaluation``, its settings;
    ``hyperparameters`` as in the file, with the suite's changes, and ``hyperparameters_file``, which file that was; ``curve``,
    the returns of the training (:meth:`History.curve`); ``action_names``; and, of MIRL, SQL and SQL_m, ``prior`` and ``beta``
    at the end, α_ρ and α_β as ``prior_lr`` and ``beta_lr``, and ``history`` (:meth:`History.temperature`). ``versions`` and
    ``machine`` say where it was computed, ``time`` how fast: that alone differs when a job is run again on the same machine.

    :param job: of those that the folder's suite has
    :param folder: made by :func:`sb3_mirl.bench.jobs.open_folder`
    :param save_freq: environment steps from one checkpoint to the next; by default a tenth of the training, and
        :data:`~sb3_mirl.bench.jobs.MAX_SAVE_FREQ` at most
    :param device: ``"cpu"``, ``"cuda"``, ... or ``"auto"``
    :return: whether the result is there
    """
    runs = job.run_folder(folder)
    runs.mkdir(parents=True, exist_ok=True)
    with locked(runs / "lock", patience=1.0) as free:
        if not free or job.finished(folder):
            return job.finished(folder)
        job.failure_file(folder).unlink(missing_ok=True)
        try:
            suite, _ = read_folder(folder)
            check_device(device)
            with open(runs / "log.txt", "a") as log, redirect_stdout(log):
                result = _as_json(_train_and_evaluate(suite, job, runs, save_freq, device))
            # What nobody could read is a failure now
            check_result(parse(result.encode()))
            write_whole(job.result_file(folder), result)
        except Exception:
            job.record_failure(folder, traceback.format_exc())
            return False
        shutil.rmtree(runs / "checkpoints", ignore_errors=True)
        return True


def _as_json(result: dict[str, Any]) -> str:
    """One line for each entry, so that a file can be read by people too."""
    lines = (f"{json.dumps(key)}: {json.dumps(value, default=str)}" for key, value in result.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _register(suite: Suite) -> None:
    register()
    for package in suite.packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ImportError(f"{package} cannot be imported: {error}{_installation(suite) if suite.extra else ''}") from error


def _manager(suite: Suite, job: Job, log_folder: Path, device: str) -> ExperimentManager:
    """rl-zoo3's, without its own evaluations and checkpoints, and with our hyper-parameters where we have some."""
    shared = suite.hyperparams if _takes(job.algorithm, suite.hyperparams) else {}
    file = hyperparams_file(job.algorithm)
    config: str | None = str(file)
    if job.algorithm not in ALGORITHMS and not _has_section(file, job.env):
        config = None
    return ExperimentManager(
        argparse.Namespace(algo=job.algorithm, env=job.env, seed=job.seed, n_timesteps=suite.steps[job.env]),
        job.algorithm,
        job.env,
        str(log_folder),
        n_timesteps=suite.steps[job.env],
        eval_freq=-1,
        save_freq=-1,
        hyperparams={**shared, **suite.own_hyperparams.get(job.algorithm, {})},
        seed=job.seed,
        verbose=0,
        log_interval=-2,
        device=device,
        config=config,
    )


def _takes(algorithm: str, arguments: Iterable[str]) -> bool:
    """Whether the algorithm's constructor has all these arguments."""
    parameters = inspect.signature(rl_zoo3.ALGOS[algorithm]).parameters
    # SQL and SQL_m hand theirs on to MIRL
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return True
    return all(name in parameters for name in arguments)


def _has_section(file: Path, env: str) -> bool:
    if not file.exists():
        return False
    sections = yaml.safe_load(file.read_text())
    return env in sections or (ExperimentManager.is_atari(env) and "atari" in sections)


def _train_and_evaluate(suite: Suite, job: Job, runs: Path, save_freq: int | None, device: str) -> dict[str, Any]:
    _register(suite)
    # What is left of an interrupted run; its checkpoints lie beside it
    shutil.rmtree(runs / job.algorithm, ignore_errors=True)
    set_random_seed(job.seed)
    manager = _manager(suite, job, runs, device)
    experiment = manager.setup_experiment()
    assert experiment is not None
    model, hyperparams = experiment
    history = History(manager.n_timesteps, runs / "steps.txt")
    manager.callbacks.insert(0, history)
    resumed_at = 0
    # Where the environment's state is not in a checkpoint, a resumed run would be another one
    if isinstance(model, MIRL) and not capture(model.env).missing:
        _forget_others(runs, _recorded(manager, hyperparams))
        model = _resumed(model, runs / "checkpoints")
        resumed_at = model.num_timesteps
        save_freq = save_freq or min(manager.n_timesteps // 10, MAX_SAVE_FREQ)
        manager.callbacks.append(CheckpointCallback(max(save_freq // manager.n_envs, 1), runs / "checkpoints"))
    manager.learn(model)
    seconds = (time.time_ns() - model.start_time) / 1e9
    if model.num_timesteps < manager.n_timesteps:
        raise KeyboardInterrupt  # rl-zoo3 takes it for the end of the training
    manager.save_trained_model(model)

    begun = time.monotonic()
    env = manager.create_envs(1, eval_env=True)
    action_names = (
        find_action_names(env, model.action_space.n) if isinstance(model.action_space, gym.spaces.Discrete) else None
    )
    scores = evaluate(model, env, suite.episodes, suite.epsilon, EVALUATION_SEED + job.seed)
    env.close()
    of_mirl = {"prior": model.prior.tolist(), "beta": model.beta, **_resolved(model)} if isinstance(model, MIRL) else {}
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
            "random actions from": _exploration(model),
            "seed": EVALUATION_SEED + job.seed,
        },
        "hyperparameters": _recorded(manager, hyperparams),
        "hyperparameters_file": _package_path(manager.config),
        "curve": history.curve(),
        "action_names": action_names,
        **of_mirl,
        "history": history.temperature(),
        "versions": _versions(),
        "machine": {"processor": platform.machine(), "device": str(model.device), "threads": th.get_num_threads()},
        "time": {
            "training": seconds,
            "evaluation": time.monotonic() - begun,
            "steps_per_second": model.num_timesteps / seconds,
            "resumed_at": resumed_at,
        },
    }


def _package_path(config: str) -> str:
    """Of a file of hyper-parameters: ours or rl-zoo3's, without the folder of the installation."""
    path = Path(config)
    return f"{'rl_zoo3' if path.is_relative_to(Path(rl_zoo3.__file__).parent) else 'sb3_mirl'}/hyperparams/{path.name}"


def _resolved(model: MIRL) -> dict[str, float]:
    """α_ρ and α_β as numbers, where the arguments were ``"auto"``."""
    given = {name: getattr(model, name) for name in ("prior_lr", "beta_lr")}
    return {name: getattr(model, f"resolved_{name}") if isinstance(value, str) else value for name, value in given.items()}


def _forget_others(runs: Path, hyperparams: dict[str, Any]) -> None:
    """Removes checkpoints of a run with other hyper-parameters, and writes down these."""
    file, text = runs / "hyperparameters.json", json.dumps(hyperparams, sort_keys=True)
    if (runs / "checkpoints").exists() and not (file.exists() and file.read_text() == text):
        print("The hyper-parameters have changed: beginning again")
        shutil.rmtree(runs / "checkpoints")
    write_whole(file, text)


def _resumed(model: MIRL, checkpoints: Path) -> MIRL:
    """The model of the last checkpoint if there is one that can be read; else the new one that is given."""
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
    Scores of whole episodes, with rewards as the environment gives them, not clipped or normalised.

    :param model: acts by ``predict(deterministic=False)``: with probability ε at random, which is from ρ for MIRL and SQL_m
        and uniformly for SQL, DQN and QR-DQN. An algorithm without ε draws from its policy
    :param env: of one environment, with a Monitor
    :param episodes: how many
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
    scores, _ = evaluate_policy(model, env, episodes, deterministic=False, return_episode_rewards=True)
    return [float(score) for score in scores]  # type: ignore[union-attr]


def _exploration(model: BaseAlgorithm) -> str:
    if isinstance(model, MIRL) and not isinstance(model, SQL):
        return "the learned prior"
    return "the uniform distribution" if hasattr(model, "exploration_rate") else "the policy, which has no epsilon"


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "sb3_mirl": sb3_mirl.__version__}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _end_with_standard_input() -> None:
    # Not through sys.stdin, which the interpreter could not close at its end
    while os.read(0, 1):
        pass
    os._exit(1)


def main() -> int:
    """A job as a process of its own, with the command line of :func:`sb3_mirl.bench.run.process_command`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("algorithm")
    parser.add_argument("env")
    parser.add_argument("seed", type=int)
    parser.add_argument("--save-freq", type=int)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    th.set_num_threads(1)
    run_job(Job(args.algorithm, args.env, args.seed), args.folder, args.save_freq, args.device)
    return 0
