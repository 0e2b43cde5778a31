"""
Packs: jobs that are trained jointly, in lock-step in one process. :func:`plan_packs` chooses them, :func:`run_pack` runs one.
Each job has its own result, log, checkpoints, progress and failure, as if it had been run alone; results differ by rounding.
In a pack ``dqn`` is trained as ``BaseDQN``, which is SB3's DQN up to rounding.
"""

import os
import shutil
import tempfile
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import CallbackList

from sb3_mirl import resume_jointly, train_jointly
from sb3_mirl.bench.experiment import experiment_manager, register_suite
from sb3_mirl.bench.jobs import Job, Pack
from sb3_mirl.bench.suites import Suite
from sb3_mirl.bench.training import Training, claimed, finish, logged, prepare, recorded, run_job, write_result
from sb3_mirl.common.resume.reader import Checkpoint
from sb3_mirl.joint.compatibility import check_models
from sb3_mirl.zoo.register import base_dqn_for_dqn

# ---- planning ---------------------------------------------------------------------------------------------------------


class _Kind(NamedTuple):
    """Jobs that can be trained together: the steps of a training, and a model of one of them."""

    n_timesteps: int
    model: BaseAlgorithm


def plan_packs(suite: Suite, jobs: Sequence[Job], size: int) -> tuple[list[Pack], list[str]]:
    """
    Put jobs together that can be trained jointly, in as few packs as possible and of equal size.

    :param suite: of the jobs, which :func:`sb3_mirl.bench.experiment.check` has accepted
    :param jobs: to be run
    :param size: jobs of a pack, at most
    :return: packs in the order of their first jobs, and for each algorithm that has to be trained alone a line with the reason
    """
    register_suite(suite)
    kinds: list[_Kind] = []
    kind_of: dict[tuple[str, str], int] = {}
    reasons: dict[tuple[str, str], str] = {}
    for pair in dict.fromkeys((job.algorithm, job.env) for job in jobs):
        try:
            kind_of[pair] = _find_kind(kinds, _model_of(suite, *pair))
        except Exception as error:  # whatever a constructor may raise: the job itself will fail with it
            reasons[pair] = str(error)
    groups: dict[Hashable, list[Job]] = defaultdict(list)
    for job in jobs:
        groups[kind_of.get((job.algorithm, job.env), job)].append(job)
    packs = [pack for group in groups.values() for pack in _split(group, size)]
    place = {job: index for index, job in enumerate(jobs)}
    lines = dict.fromkeys(f"{algorithm} is trained alone: {reason}" for (algorithm, _), reason in reasons.items())
    return sorted(packs, key=lambda pack: place[pack[0]]), [*lines]


def _model_of(suite: Suite, algorithm: str, env: str) -> _Kind:
    """The model of a job, created as :func:`~sb3_mirl.bench.training.prepare` does; its environment is closed."""
    with (
        tempfile.TemporaryDirectory(prefix="sb3-mirl-") as folder,
        open(os.devnull, "w") as nothing,
        redirect_stdout(nothing),
        warnings.catch_warnings(),
        base_dqn_for_dqn(),
    ):
        warnings.simplefilter("ignore")
        manager = experiment_manager(suite, Job(algorithm, env, 0), Path(folder), "cpu")
        experiment = manager.setup_experiment()
        assert experiment is not None
        model, _ = experiment
        assert model.env is not None
        model.env.close()
        check_models([model])  # type: ignore[list-item]
        return _Kind(manager.n_timesteps, model)


def _find_kind(kinds: list[_Kind], new: _Kind) -> int:
    """The index of the kind to which a model belongs; a new one is added."""
    for index, kind in enumerate(kinds):
        if kind.n_timesteps != new.n_timesteps:
            continue
        try:
            check_models([kind.model, new.model])  # type: ignore[list-item]
        except ValueError:
            continue  # they disagree
        return index
    kinds.append(new)
    return len(kinds) - 1


def _split(jobs: list[Job], size: int) -> Iterator[Pack]:
    n_packs = -(-len(jobs) // size)
    for indices in np.array_split(np.arange(len(jobs)), n_packs):
        yield tuple(jobs[index] for index in indices)


# ---- running ----------------------------------------------------------------------------------------------------------


def run_pack(jobs: Sequence[Job], folder: Path, save_freq: int | None = None, device: str = "auto") -> None:
    """
    Run the jobs of a pack, as :func:`~sb3_mirl.bench.training.run_job` runs one: train those jointly that are neither finished
    nor run by another process, evaluate them, and write their results or failures.

    Jobs go on from the newest step of which they have checkpoints. Jobs without a common step are trained in several groups,
    one after the other.

    :param jobs: of :func:`plan_packs`; a single one is trained by itself
    :param folder: created by :func:`sb3_mirl.bench.jobs.open_folder`
    :param save_freq: environment steps between checkpoints, as in :func:`~sb3_mirl.bench.training.run_job`
    :param device: ``"cpu"``, ``"cuda"``, ... or ``"auto"``
    """
    if len(jobs) == 1:
        run_job(jobs[0], folder, save_freq, device)
        return
    with base_dqn_for_dqn(), ExitStack() as locks:
        trainings = []
        for job in jobs:
            if locks.enter_context(claimed(job, folder)):
                with recorded(job, folder):
                    trainings.append(prepare(job, folder, save_freq, device))
        for group in _with_common_step(trainings, folder):
            _Group(group, folder, save_freq, device).run()


def _with_common_step(trainings: Iterable[Training], folder: Path) -> list[list[Training]]:
    """Groups of trainings that can go on from the same step, largest first."""
    waiting = []
    for training in trainings:
        with logged(training.job, folder):
            waiting.append((training, _steps(training)))
    groups = []
    while waiting:
        counts = Counter(step for _, steps in waiting for step in steps)
        common = max(counts, key=lambda step: (counts[step], step))
        groups.append([training for training, steps in waiting if common in steps])
        waiting = [(training, steps) for training, steps in waiting if common not in steps]
    return groups


def _steps(training: Training) -> list[int]:
    """The steps at which a training can begin: those of its checkpoints, else 0."""
    if training.checkpoints is None or not training.checkpoints.is_dir():
        return [0]
    try:
        if steps := Checkpoint.steps(training.checkpoints):
            return steps
        reason = "no checkpoint can be read"
    except (FileNotFoundError, ValueError) as error:
        reason = str(error)
    print(f"{reason}: beginning again")
    shutil.rmtree(training.checkpoints)
    return [0]


class _Group:
    """
    Jobs of a pack that are trained in lock-step.

    :param trainings: with a common step, see :func:`_with_common_step`
    :param folder: of the benchmark
    :param save_freq: of :func:`run_pack`
    :param device: of :func:`run_pack`
    """

    def __init__(self, trainings: list[Training], folder: Path, save_freq: int | None, device: str) -> None:
        self.trainings, self.folder = trainings, folder
        self._save_freq, self._device = save_freq, device

    def run(self) -> None:
        """Train, evaluate, and write the results; an exception that ends the training is the failure of all jobs."""
        jobs = [training.job for training in self.trainings]
        first = jobs[0].log_file(self.folder)
        for job in jobs:
            with logged(job, self.folder):
                print(f"Trained jointly, {len(jobs)} jobs in all; {first} has the warnings: {', '.join(map(str, jobs))}")
        try:
            with logged(jobs[0], self.folder):
                errors = self._train()
        except Exception:
            for job in jobs:
                job.record_failure(self.folder, traceback.format_exc())
            return
        for training, error in zip(self.trainings, errors, strict=True):
            with recorded(training.job, self.folder):
                if error is not None:
                    raise error
                write_result(training.job, self.folder, finish(training))

    def _train(self) -> list[ValueError | None]:
        try:
            self._resume()
            models = [training.model for training in self.trainings]
            callbacks = [CallbackList(training.manager.callbacks) for training in self.trainings]
            errors = train_jointly(models, self.trainings[0].manager.n_timesteps, callbacks)  # type: ignore[arg-type]
        finally:
            self._close_environments()
        for training in self.trainings:
            training.stop_clock()
            training.trained_jointly = len(models)
        return errors

    def _resume(self) -> None:
        folders = [training.checkpoints for training in self.trainings if training.checkpoints is not None]
        if not all(map(os.path.isdir, folders)) or len(folders) < len(self.trainings):
            return
        models = [training.model for training in self.trainings]
        try:
            resumed = resume_jointly(
                [type(model) for model in models],  # type: ignore[misc]
                folders,
                [model.env for model in models],  # type: ignore[misc]
                models[0].device,
            )
        except (FileNotFoundError, ValueError) as error:
            print(f"{error}: beginning again")
            self._close_environments()
            for checkpoints in folders:
                shutil.rmtree(checkpoints)
            # Prepare again, because some environments may already have the state of a checkpoint
            self.trainings = [prepare(training.job, self.folder, self._save_freq, self._device) for training in self.trainings]
            return
        for training, model in zip(self.trainings, resumed, strict=True):
            training.resume(model)

    def _close_environments(self) -> None:
        for training in self.trainings:
            assert training.model.env is not None
            training.model.env.close()
