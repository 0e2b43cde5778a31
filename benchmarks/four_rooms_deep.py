"""
Does a prior that was learned on some goals help to find new ones? The question of four_rooms.py, with networks.

    python benchmarks/four_rooms_deep.py run --jobs 2   # writes results/four-rooms/deep.json; finished runs are skipped
    python benchmarks/four_rooms_deep.py report         # prints the table, and draws docs/images/four_rooms_deep.png

The goal differs between episodes; only the policy and ρ(z|goal) see it. First MIRL learns eight training goals and a prior:
ρ(a|position), ρ(a|last action), or K = 4 skills Σ_z ρ(z|goal) ρ(a|z,position). Then another network learns four new goals,
with this prior or without. ρ(z|goal) is always learned anew; "frozen" skills are a frozen ρ(a|z,position).

Scores are expected returns of the behaviour policy with ε = 0.05, from a uniform start, in at most 100 steps, averaged over
goals. They are computed from the probabilities of all actions, and not from samples of episodes. The 95% bootstrap intervals
are over seeds; a seed has the same first weights for all algorithms. Batch size, learning rate, α_ρ and numbers of steps were
chosen with seed 1000 and other new goals.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from four_rooms import EPSILON, MAX_STEPS, N_SKILLS, NEW_GOALS, best_return, escaped
from gymnasium.wrappers import TimeLimit
from matplotlib import pyplot as plt
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_mirl import DQNMSE, MIRL, SQL, BaseDQN, PriorUpdateCallback, load_prior
from sb3_mirl.bench.scores import bootstrap_mean
from sb3_mirl.bench.variants import in_processes
from sb3_mirl.common import colors
from sb3_mirl.common.files import write_whole
from sb3_mirl.envs.gridworld import FOUR_ROOMS_GOALS, FourRoomsGoals

ROOT = Path(__file__).parent.parent
RESULTS, FIGURE = ROOT / "results" / "four-rooms" / "deep.json", ROOT / "docs" / "images" / "four_rooms_deep.png"
SEEDS = range(10)
#: Environment steps on the training goals, on the new goals, and between evaluations
STEPS = {"training_steps": 80_000, "steps": 30_000, "eval_every": 2000}
#: What all algorithms share
SETTINGS: dict[str, Any] = {
    "learning_rate": 3e-3,
    "buffer_size": 20_000,
    "learning_starts": 500,
    "batch_size": 256,
    "train_freq": 1,
    "gradient_steps": 4,
    "target_update_interval": 500,
    "exploration_fraction": 0.2,
    "exploration_final_eps": 0.1,
    "gamma": 0.99,
    "policy_kwargs": {"net_arch": [64, 64]},
    "loss": "mse",
}
N_ENVS = 32
#: β of MIRL and SQL
BETA: dict[str, Any] = {"beta_schedule": "constant", "beta_init": 1.0}
#: α_ρ · steps, per value of x, of priors that see something; 20 is the default of MIRL's marginal
FORGETTING = 8
#: Arguments of the kinds of prior, and the number of values of x
PRIORS: dict[str, tuple[dict[str, Any], int]] = {
    "ρ(a|position)": ({"prior_type": "conditional", "prior_observation": ["position"]}, 104),
    "ρ(a|last action)": ({"prior_type": "conditional", "prior_observation": ["last_action"]}, 4),
    "skills": (
        {"prior_type": "skills", "n_skills": N_SKILLS, "prior_observation": {"high": ["goal"], "low": ["position"]}},
        104,
    ),
}
BASELINES: dict[str, type[BaseDQN]] = {"MIRL, ρ(a)": MIRL, "SQL, uniform": SQL, "DQN": DQNMSE}
#: How each kind of prior is used on the new goals
USES = ("frozen", "learned on", "from scratch")
#: Before the name of a prior: the runs that learned it
TRAINING = "training goals, "
#: Learners in the figure, with colour and line
SHOWN = {
    "skills, learned on": (colors.PURPLE, "-"),
    "ρ(a|position), frozen": (colors.GREEN, "-"),
    "ρ(a|position), learned on": (colors.ORANGE, "--"),
    "ρ(a|last action), learned on": (colors.SKY_BLUE, "-."),
    "MIRL, ρ(a)": (colors.VERMILION, "-"),
    "SQL, uniform": (colors.BLUE, "--"),
    "DQN": (colors.GRAY, ":"),
}


class FixedSkills(PriorUpdateCallback):
    """Moves ρ(z|goal), and not ρ(a|z,position)."""

    def _on_step(self) -> bool:
        low = self.model.policy.state_prior.low
        before = low.clone()
        super()._on_step()
        low.copy_(before)
        return True


def expected_return(family: FourRoomsGoals, behaviour: np.ndarray, max_steps: int = MAX_STEPS) -> float:
    """
    :param family: the goals
    :param behaviour: probabilities of the actions, [goals, positions, last actions, actions]
    :param max_steps: of an episode
    :return: the expected return of an episode from a uniform start, as a mean over goals
    """
    reward = np.stack([world.reward for world in family.worlds])
    # Moves have no chance: one next position, or the end
    transition = np.stack([world.transition for world in family.worlds])
    next_position, goes_on = transition.argmax(axis=3), transition.sum(axis=3)
    goal, action = np.arange(len(reward))[:, None, None], np.arange(reward.shape[2])
    values = np.zeros(behaviour.shape[:3])
    for _ in range(max_steps):
        returns = reward + goes_on * values[goal, next_position, action]
        values = np.einsum("gpla,gpa->gpl", behaviour, returns)
    # An episode begins without a last action
    first = [world.initial_state_distrib @ own[:, -1] for world, own in zip(family.worlds, values, strict=True)]
    return float(np.mean(first))


class Evaluation(BaseCallback):
    """
    Computes the expected return at the beginning and during learning.

    :param goals: of the family
    :param every: environment steps between two evaluations
    """

    def __init__(self, goals: Sequence[tuple[int, int]], every: int) -> None:
        super().__init__()
        self.family, self.every = FourRoomsGoals(goals), every
        self.returns: list[float] = []
        sizes = [self.family.observation_space[key].n for key in ("position", "last_action")]
        numbers = [int(np.argmax(world.is_goal)) for world in self.family.worlds]
        goal, position, last_action = np.meshgrid(numbers, *map(np.arange, sizes), indexing="ij")
        self.shape = goal.shape
        self.observations = {"goal": goal.ravel(), "last_action": last_action.ravel(), "position": position.ravel()}

    def behaviour(self) -> np.ndarray:
        """Probabilities of the actions: of the greedy one or, with probability ε, of a draw from ρ; DQN's ρ is uniform."""
        actions, _ = self.model.predict(self.observations, deterministic=True)
        n_actions = int(self.family.action_space.n)
        prior = np.full(n_actions, 1.0 / n_actions)
        if isinstance(self.model, MIRL):
            prior = self.model.policy.prior_probabilities(self.observations).numpy()
        return ((1.0 - EPSILON) * np.eye(n_actions)[actions] + EPSILON * prior).reshape(*self.shape, n_actions)

    def _on_training_start(self) -> None:
        self.returns.append(expected_return(self.family, self.behaviour()))

    def _on_step(self) -> bool:
        if self.num_timesteps >= self.every * len(self.returns):
            self.returns.append(expected_return(self.family, self.behaviour()))
        return True


def train(
    algorithm: type[BaseDQN], arguments: dict[str, Any], goals: Sequence[tuple[int, int]], seed: int, steps: int, every: int
) -> tuple[BaseDQN, list[float]]:
    """
    :param algorithm: the class of the model
    :param arguments: of its own, beside :data:`SETTINGS`; ``callback`` is one of :meth:`learn`
    :param goals: of the family
    :param seed: of the model and of the environments
    :param steps: environment steps
    :param every: environment steps between two evaluations
    :return: the trained model, and the expected returns
    """
    envs = DummyVecEnv([lambda: TimeLimit(FourRoomsGoals(goals), MAX_STEPS)] * N_ENVS)
    arguments = {**SETTINGS, **arguments}
    callbacks = [evaluation := Evaluation(goals, every), *arguments.pop("callbacks", [])]
    model = algorithm("MultiInputPolicy", envs, seed=seed, device="cpu", **arguments)
    model.learn(steps, callback=callbacks)
    return model, evaluation.returns


def prior_lr(n_values: int, steps: int) -> float:
    """
    :param n_values: of what the prior sees; each is met in a share 1/n of the steps
    :param steps: environment steps
    :return: α_ρ with which the first ρ(·|x) has the weight exp(-:data:`FORGETTING`) at the end
    """
    return min(1.0, FORGETTING * n_values / steps)


def run_prior(name: str, seed: int, settings: dict[str, int]) -> dict[str, list[float]]:
    """
    :param name: of :data:`PRIORS`
    :param seed: of all models
    :param settings: as :data:`STEPS`
    :return: expected returns on the training goals, and for each of :data:`USES` on the new goals
    """
    kind, n_values = PRIORS[name]
    training_steps, steps, every = settings["training_steps"], settings["steps"], settings["eval_every"]
    learning = {**BETA, **kind, "prior_lr": prior_lr(n_values, training_steps)}
    model, returns = train(MIRL, learning, FOUR_ROOMS_GOALS, seed, training_steps, every)
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model")
        prior = load_prior(Path(folder) / "model", level="low" if name == "skills" else None)
    curves = {f"{TRAINING}{name}": returns}
    for use in USES:
        arguments = {**BETA, **kind, "prior_lr": prior_lr(n_values, steps)}
        if use != "from scratch":
            arguments["prior_init"] = prior
        if use == "frozen":
            arguments |= {"callbacks": [FixedSkills()]} if name == "skills" else {"prior_lr": 0.0}
        curves[f"{name}, {use}"] = train(MIRL, arguments, NEW_GOALS, seed, steps, every)[1]
    return curves


def run_baseline(name: str, seed: int, settings: dict[str, int]) -> dict[str, list[float]]:
    """
    :param name: of :data:`BASELINES`
    :param seed: of the model
    :param settings: as :data:`STEPS`
    :return: expected returns on the new goals
    """
    algorithm = BASELINES[name]
    arguments = {} if algorithm is DQNMSE else BETA
    return {name: train(algorithm, arguments, NEW_GOALS, seed, settings["steps"], settings["eval_every"])[1]}


def run_task(task: tuple[str, int, dict[str, int]]) -> tuple[str, int, dict[str, list[float]], float]:
    """
    :param task: a name of :data:`PRIORS` or :data:`BASELINES`, the seed, and the settings
    :return: name and seed, the expected returns by learner, and the seconds of processor time
    """
    th.set_num_threads(1)
    name, seed, settings = task
    begun = time.process_time()
    curves = (run_prior if name in PRIORS else run_baseline)(name, seed, settings)
    rounded = {learner: np.round(returns, 3).tolist() for learner, returns in curves.items()}
    return name, seed, rounded, time.process_time() - begun


def run(path: Path, settings: dict[str, int], seeds: Sequence[int], jobs: int) -> None:
    """
    Run what the file does not have yet, and write it after each task.

    :param path: of the results
    :param settings: as :data:`STEPS`
    :param seeds: of the runs
    :param jobs: processes at once
    :raises ValueError: if the file has results of other settings
    """
    results = json.loads(path.read_text()) if path.exists() else {"settings": settings, "runs": {}}
    if results["settings"] != settings:
        raise ValueError(f"{path} has results of {results['settings']}, not of {settings}: choose another file")
    runs = results["runs"]
    tasks = [(name, seed) for seed in seeds for name in (*BASELINES, *PRIORS) if str(seed) not in runs.get(name, {})]
    for name, seed, curves, seconds in in_processes(run_task, [(*task, settings) for task in tasks], jobs):
        runs.setdefault(name, {})[str(seed)] = curves
        write_whole(path, (json.dumps(results, ensure_ascii=False) + "\n").encode())
        ends = ", ".join(f"{learner} {returns[-1]:.1f}" for learner, returns in curves.items())
        print(f"seed {seed}: {ends} ({seconds:.0f} s of one core)", flush=True)


def finished(results: dict[str, Any]) -> tuple[list[str], dict[str, np.ndarray]]:
    """
    :param results: as in the file
    :return: the seeds of which all runs are finished, and the expected returns by learner, [seeds, evaluations]
    :raises ValueError: if there is no such seed
    """
    runs = results["runs"]
    names = (*PRIORS, *BASELINES)
    seeds = sorted(set.intersection(*(set(runs.get(name, {})) for name in names)), key=int)
    if not seeds:
        raise ValueError(f"The results have no seed with runs of all of {names}")
    learners = {learner: runs[name] for name in names for learner in runs[name][seeds[0]]}
    return seeds, {name: np.array([by_seed[seed][name] for seed in seeds]) for name, by_seed in learners.items()}


def draw(curves: dict[str, np.ndarray], every: int, file: Path) -> None:
    """
    :param curves: expected returns by learner, [seeds, evaluations]
    :param every: environment steps between two evaluations
    :param file: the image: expected returns on the new goals by steps, with 95% intervals over seeds
    """
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, (color, line) in SHOWN.items():
        mean, low, high = bootstrap_mean(curves[name])
        steps = every * np.arange(len(mean))
        axis.plot(steps, mean, color=color, linestyle=line, label=name)
        axis.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
    axis.set_xlabel("steps on the new goals")
    axis.set_ylabel("expected return")
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right")
    figure.savefig(file, dpi=120, metadata={"Software": None})


def report(results: dict[str, Any]) -> None:
    """
    Print the tables: the mean of the expected return over all evaluations, over the last three, and the differences from MIRL
    of the same seed.

    :param results: as in the file
    """
    seeds, curves = finished(results)
    every = results["settings"]["eval_every"]
    new = {name: values for name, values in curves.items() if not name.startswith(TRAINING)}
    print("| learner | during learning | minus MIRL | at the end | minus MIRL |\n|---|---:|---:|---:|---:|")
    for name, values in new.items():
        cells = []
        for first in (0, -3):
            own, mirl = (v[:, first:].mean(axis=1) for v in (values, new["MIRL, ρ(a)"]))
            estimates = [bootstrap_mean(numbers) for numbers in (own, own - mirl)]
            cells += [f"{mean:.1f} [{low:.1f}, {high:.1f}]" for mean, low, high in estimates]
        print(f"| {escaped(name)} | " + " | ".join(cells) + " |")
    print("\n| steps | " + " | ".join(map(escaped, new)) + " |\n|---:|" + "---:|" * len(new))
    for k in range(next(iter(new.values())).shape[1]):
        print(f"| {k * every} | " + " | ".join(f"{values[:, k].mean():.1f}" for values in new.values()) + " |")
    print()
    for name in PRIORS:
        mean, low, high = bootstrap_mean(curves[f"{TRAINING}{name}"][:, -3:].mean(axis=1))
        print(f"{TRAINING}{name}: at the end {mean:.1f} [{low:.1f}, {high:.1f}]")
    print(f"The optimal policy without exploration: {best_return():.2f}. Seeds: {', '.join(seeds)}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "report"])
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    for name, value in STEPS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--figure", type=Path, default=FIGURE)
    args = parser.parse_args()
    if args.command == "run":
        run(args.results, {name: getattr(args, name) for name in STEPS}, args.seeds, args.jobs)
        return
    results = json.loads(args.results.read_text())
    report(results)
    draw(finished(results)[1], results["settings"]["eval_every"], args.figure)


if __name__ == "__main__":
    main()
