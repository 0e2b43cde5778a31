"""
Variants of a suite's runs, which differ in their settings: trained jointly, and evaluated as the suite's runs are. Tuning and
the experiments of ``benchmarks/`` are made of them. They leave no checkpoints.
"""

import json
import os
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from multiprocessing import get_context
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from sb3_mirl.bench.experiment import experiment_manager, register_suite
from sb3_mirl.bench.jobs import Job
from sb3_mirl.bench.suites import Suite
from sb3_mirl.bench.training import EVALUATION_SEED, evaluate
from sb3_mirl.common.files import write_whole
from sb3_mirl.joint.training import train_jointly
from sb3_mirl.zoo.manager import ExperimentManager


class Variant(NamedTuple):
    """A suite with the settings of one run, and that run."""

    suite: Suite
    job: Job


class TrainedVariant(NamedTuple):
    """A variant after its training; ``error`` is the error that ended its run early, or None."""

    variant: Variant
    manager: ExperimentManager
    model: Any
    error: Exception | None

    def scores(self, episodes: int, acting: Any = None) -> list[float]:
        """
        :param episodes: number of episodes
        :param acting: what acts, with the ``predict`` of an algorithm; by default the model
        :return: returns of whole episodes, with rewards neither clipped nor normalised, and with the suite's ε, [episodes]
        """
        suite, job = self.variant
        env = self.manager.create_envs(1, eval_env=True)
        try:
            return evaluate(acting or self.model, env, episodes, suite.epsilon, EVALUATION_SEED + job.seed)
        finally:
            env.close()


def train_variants(variants: Sequence[Variant], callbacks: Sequence[BaseCallback] | None = None) -> list[TrainedVariant]:
    """
    Train all variants jointly, on a processor.

    :param variants: of one environment, with the same number of steps, and of algorithms that can be trained jointly
    :param callbacks: one for each variant
    :return: one for each variant
    :raises ImportError: if a package of the suite is not installed
    :raises ValueError: if the variants cannot be trained jointly; the message names what differs
    """
    register_suite(variants[0].suite)
    managers: list[ExperimentManager] = []
    models: list[BaseAlgorithm] = []
    with tempfile.TemporaryDirectory(prefix="sb3-mirl-") as logs, open(os.devnull, "w") as nothing, redirect_stdout(nothing):
        for suite, job in variants:
            managers.append(experiment_manager(suite, job, Path(logs), "cpu"))
            experiment = managers[-1].setup_experiment()
            assert experiment is not None
            models.append(experiment[0])
        steps = variants[0].suite.steps[variants[0].job.env]
        errors = train_jointly(models, steps, callback=callbacks)  # type: ignore[arg-type]
    return [TrainedVariant(*parts) for parts in zip(variants, managers, models, errors, strict=True)]


def stored_results(path: Path, steps: int | Mapping[str, int]) -> list[dict[str, Any]]:
    """
    The results that an experiment has already.

    :param path: of the results, a list in JSON; each has its ``steps`` and ``environment``
    :param steps: environment steps of each run, or those of each environment
    :return: none if there is no file
    :raises ValueError: if the file has runs with another number of steps
    """
    results = json.loads(path.read_text()) if path.exists() else []
    for result in results:
        wanted = steps if isinstance(steps, int) else steps[result["environment"]]
        if result["steps"] != wanted:
            raise ValueError(f"{path} has runs of {result['steps']} steps, not {wanted}: choose another --results")
    return results


def write_results(path: Path, results: list[dict[str, Any]]) -> None:
    """
    :param path: of the results, replaced atomically
    :param results: all of an experiment
    """
    write_whole(path, (json.dumps(results, indent=1) + "\n").encode())


def run_environments(
    path: Path,
    envs: Iterable[str],
    steps: int,
    train: Callable[[tuple[str, int]], list[dict[str, Any]]],
    jobs: int,
    order: Callable[[dict[str, Any]], Any] | None = None,
) -> None:
    """
    Train environments that have no results in a file yet, and add theirs as they finish.

    :param path: of the results, a list in JSON; each has its ``environment`` and ``steps``
    :param envs: to be trained
    :param steps: environment steps of each run
    :param train: a module-level function, because other processes call it; takes the tuple (environment, ``steps``)
    :param jobs: processes at once
    :param order: the key by which the results are sorted; None: as they finish
    :raises ValueError: if the file has runs with another number of steps
    """
    results = stored_results(path, steps)
    finished = {result["environment"] for result in results}
    tasks = [(env, steps) for env in envs if env not in finished]
    for more in in_processes(train, tasks, jobs):
        results += more
        if order is not None:
            results.sort(key=order)
        write_results(path, results)
        print(f"{more[0]['environment']}: done", flush=True)


def in_processes(function: Callable[[Any], Any], tasks: Iterable[Any], processes: int) -> Iterator[Any]:
    """
    Call a function in a new process for each task. If a call fails, the others are finished before the error is raised.

    :param function: a module-level function, because other processes call it
    :param tasks: its arguments
    :param processes: at once
    :return: results, in the order in which they are finished
    :raises RuntimeError: if a process was killed
    :raises Exception: the first that a call raises
    """
    context, waiting = get_context("spawn"), list(tasks)[::-1]
    running: dict[Any, Any] = {}
    failed: Exception | None = None
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_call, args=(sender, function, waiting.pop()), daemon=True)
                process.start()
                sender.close()
                running[receiver] = process
            ready: list[Any] = wait(list(running))
            for receiver in ready:
                # multiprocessing.Pool would wait for ever for the task of a process that was killed
                result, error = _answer(receiver)
                running.pop(receiver).join()
                if error is None:
                    yield result
                failed = failed or error
    finally:
        for process in running.values():
            process.terminate()
    if failed is not None:
        raise failed


def _call(sender: Any, function: Callable[[Any], Any], task: Any) -> None:
    try:
        sender.send((function(task), None))
    except Exception as error:
        traceback.print_exc()
        sender.send((None, error))


def _answer(receiver: Any) -> tuple[Any, Exception | None]:
    with receiver:
        try:
            return receiver.recv()  # type: ignore[no-any-return]
        except EOFError:
            return None, RuntimeError("A process was killed, perhaps for lack of memory: try fewer at once")
