"""
MIRL with its defaults beside SB3's DQN with its own: final returns after 50,000 steps.

    python benchmarks/defaults.py run --jobs 2      # writes results/defaults.json as runs finish; finished ones are skipped
    python benchmarks/defaults.py run --joint       # the same, a condition's missing runs as one joint training
    python benchmarks/defaults.py report            # the table of docs/results.md
    python benchmarks/defaults.py trial --env FrozenLake-v1 --seeds 200-211 --settings prior_lr=2e-5 beta_scale=100

Environments are CartPole, Acrobot, LunarLander and FrozenLake, each with its rewards multiplied by 1, 0.01 and 100. A run is
one model with `MIRL("MlpPolicy", env, seed=seed)` or `DQN(...)` and no other argument, trained and then evaluated on 30
episodes without exploration, whose returns are counted with the rewards as the environment gives them. Two more conditions, on
CartPole: ten calls `learn(5000, reset_num_timesteps=False)`, and `learn(10**9)` stopped by a callback after 50,000 steps.

With ``--joint`` the DQN is :class:`~sb3_mirl.BaseDQN`, which equals SB3's DQN up to rounding (tests/common/test_dqn.py); those
results have ``"jointly": true``. Ten calls are always trained alone.

The share of DQN's return that a return R reaches is (R - worst) / (DQN - worst); worst is the lowest possible return or,
where rewards have no bound (LunarLander), the mean return of the worst constant action in 100 episodes. The aim is a share of
0.9. DQN counts as having learned if its mean return is above that of random actions (100 episodes) by more than two standard
errors over seeds; other conditions are shown and do not count.
"""

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import StopTrainingOnMaxEpisodes
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_mirl import MIRL, BaseDQN, train_jointly
from sb3_mirl.bench.scores import compare_by_seed
from sb3_mirl.bench.training import EVALUATION_SEED

RESULTS = Path(__file__).parent.parent / "results" / "defaults.json"
STEPS = 50_000
ENVIRONMENTS = {"CartPole-v1": 0.0, "Acrobot-v1": -500.0, "LunarLander-v3": None, "FrozenLake-v1": 0.0}
SCALES = (1.0, 0.01, 100.0)
#: Not used to choose anything
SEEDS = range(100, 110)


class StopAfterSteps(StopTrainingOnMaxEpisodes):
    """Ends the training after so many steps."""

    def __init__(self, steps: int) -> None:
        super().__init__(max_episodes=1)
        self.steps = steps

    def _on_step(self) -> bool:
        return self.num_timesteps < self.steps


def make_env(env_id: str, scale: float) -> gym.Env:
    """
    :param env_id: of Gymnasium
    :param scale: factor of the rewards that the agent sees; those of Monitor are the environment's
    """
    env = Monitor(gym.make(env_id))
    return gym.wrappers.TransformReward(env, lambda reward: scale * float(reward)) if scale != 1 else env


def train(job: dict[str, Any]) -> dict[str, Any]:
    """
    :param job: algorithm, env, scale, condition and seed; ``settings`` where defaults are to be chosen
    :return: the job with its result
    """
    th.set_num_threads(1)
    start = time.perf_counter()
    algorithm = {"dqn": DQN, "mirl": MIRL}[job["algorithm"]]
    model = algorithm("MlpPolicy", make_env(job["env"], job["scale"]), seed=job["seed"], **job.get("settings", {}))
    if job["condition"] == "ten calls":
        for _ in range(10):
            model.learn(STEPS // 10, reset_num_timesteps=False)
    elif job["condition"] == "stopped":
        model.learn(10**9, callback=StopAfterSteps(STEPS))
    else:
        model.learn(STEPS)
    return evaluate(job, model, round(time.perf_counter() - start))


def evaluate(job: dict[str, Any], model: DQN, seconds: int) -> dict[str, Any]:
    """
    :param job: of :func:`jobs`
    :param model: trained
    :param seconds: of the training
    :return: the job with its result
    """
    # Monitor is below the change of scale, so that these returns are the environment's
    set_random_seed(EVALUATION_SEED + job["seed"])
    env = DummyVecEnv([lambda: make_env(job["env"], job["scale"])])
    env.seed(EVALUATION_SEED + job["seed"])
    returns, _ = evaluate_policy(model, env, n_eval_episodes=30, return_episode_rewards=True)
    result = {**job, "return": float(np.mean(returns)), "seconds": seconds}
    if isinstance(model, MIRL):
        result.update(beta=model.beta, prior=[round(probability, 4) for probability in model.prior.tolist()])
    return result


def train_together(together: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """
    :param together: jobs of one condition
    :return: the jobs with their results
    """
    th.set_num_threads(1)
    start = time.perf_counter()
    algorithms = {"dqn": BaseDQN, "mirl": MIRL}
    models = [
        algorithms[job["algorithm"]]("MlpPolicy", make_env(job["env"], job["scale"]), seed=job["seed"]) for job in together
    ]
    stopped = together[0]["condition"] == "stopped"
    callbacks = [StopAfterSteps(STEPS) if stopped else None for _ in models]
    errors = train_jointly(models, 10**9 if stopped else STEPS, callback=callbacks)
    assert errors == [None] * len(models), errors
    seconds = round((time.perf_counter() - start) / len(models))
    return [evaluate({**job, "jointly": True}, model, seconds) for job, model in zip(together, models, strict=True)]


def jobs(algorithms: list[str]) -> list[dict[str, Any]]:
    """All runs, those of one seed after the other, so that an interrupted benchmark has whole seeds."""
    conditions = [(env, scale, "one call") for scale in SCALES for env in ENVIRONMENTS]
    conditions += [("CartPole-v1", 1.0, "ten calls"), ("CartPole-v1", 1.0, "stopped")]
    return [
        {"algorithm": algorithm, "env": env, "scale": scale, "condition": condition, "seed": seed}
        for seed in SEEDS
        for env, scale, condition in conditions
        for algorithm in algorithms
    ]


def key(job: dict[str, Any]) -> tuple:
    return (*(job[name] for name in ("algorithm", "env", "scale", "condition", "seed")), str(job.get("settings", {})))


def run(todo: list[dict[str, Any]], n_jobs: int, path: Path, joint: bool) -> None:
    """
    :param todo: runs
    :param n_jobs: how many at once
    :param joint: train the missing runs of a condition jointly
    :param path: of the results, of which finished runs are skipped
    """
    done = read(path)
    finished = set(map(key, done))
    todo = [job for job in todo if key(job) not in finished]
    packs: dict[tuple, list[dict[str, Any]]] = {}
    for job in todo:
        alone = not joint or job["condition"] == "ten calls"
        packs.setdefault(key(job) if alone else (job["env"], job["scale"], job["condition"]), []).append(job)
    with ProcessPoolExecutor(n_jobs, max_tasks_per_child=1) as pool:
        for future in as_completed([pool.submit(train_pack, pack) for pack in packs.values()]):
            if future.exception() is not None:
                pool.shutdown(wait=False, cancel_futures=True)
            done = [*done, *future.result()]
            lines = ",\n".join(json.dumps(result) for result in sorted(done, key=key))
            path.write_text(f"[\n{lines}\n]\n")
            print(*map(json.dumps, future.result()), sep="\n", flush=True)


def train_pack(pack: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Train one run alone, or several jointly."""
    return [train(pack[0])] if len(pack) == 1 else train_together(pack)


def read(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text()) if path.exists() else []


def mean_return(env_id: str, action: int | None) -> float:
    """Of 100 episodes with one action, or with random actions for None."""
    env = gym.make(env_id)
    env.action_space.seed(0)
    total = 0.0
    for episode in range(100):
        env.reset(seed=episode)
        ended = False
        while not ended:
            chosen = env.action_space.sample() if action is None else action
            _, reward, terminated, truncated, _ = env.step(chosen)
            total, ended = total + float(reward), terminated or truncated
    return total / 100


def worst_return(env_id: str) -> float:
    """The least return that is possible, or that of the worst constant action where rewards have no bound."""
    if (worst := ENVIRONMENTS[env_id]) is not None:
        return worst
    n_actions = int(gym.make(env_id).action_space.n)  # type: ignore[attr-defined]
    return min(mean_return(env_id, action) for action in range(n_actions))


def report(path: Path) -> str:
    """
    The table, in Markdown: mean returns, and the share of DQN's with a bootstrap interval over seeds; and the probability that
    a run of MIRL is better than one of DQN, over the conditions of the table.
    """
    results = [result for result in read(path) if "settings" not in result]
    generator = np.random.default_rng(0)
    worst = {env: worst_return(env) for env in ENVIRONMENTS}
    random = {env: mean_return(env, None) for env in ENVIRONMENTS}
    lines = [
        "| environment | rewards | condition | seeds | random | DQN | MIRL | share of DQN's [95%] "
        "| random actions' share | DQN learned |",
        "|---|---:|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    # Environment, whether DQN learned, and returns of both
    compared: list[tuple[str, bool, list[np.ndarray]]] = []
    for job in jobs(["dqn"])[: len(jobs(["dqn"])) // len(SEEDS)]:
        env, scale, condition = job["env"], job["scale"], job["condition"]
        rows = [r for r in results if (r["env"], r["scale"], r["condition"]) == (env, scale, condition)]
        returns = {name: np.array([r["return"] for r in rows if r["algorithm"] == name]) for name in ("dqn", "mirl")}
        if min(map(len, returns.values())) < 2:
            continue
        dqn, mirl = returns["dqn"], returns["mirl"]
        draws = {
            name: generator.choice(values, (10_000, len(values))).mean(1) - worst[env] for name, values in returns.items()
        }
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = draws["mirl"] / draws["dqn"]
        # Where resampled DQN reaches nothing at all, any share is possible
        low, high = np.quantile(np.where(np.isnan(shares), np.inf, shares), (0.025, 0.975), method="inverted_cdf")
        best = dqn.mean() - worst[env]
        share, of_random = ((value - worst[env]) / best if best > 0 else np.nan for value in (mirl.mean(), random[env]))
        learned = dqn.mean() - random[env] > 2 * dqn.std(ddof=1) / np.sqrt(len(dqn))
        # A file of unfinished runs has some conditions with fewer seeds
        if len(mirl) == len(dqn) == len(SEEDS):
            compared.append((env, learned, [mirl, dqn]))
        counts = f"{len(dqn)}/{len(mirl)}"
        cells = f"{random[env]:.2f} | {_mean_and_spread(dqn)} | {_mean_and_spread(mirl)}"
        interval = f"{share:.2f} [{low:.2f}, {high:.2f}] | {of_random:.2f}"
        lines.append(f"| {env} | x {scale:g} | {condition} | {counts} | {cells} | {interval} | {'yes' if learned else 'no'} |")
    lines.append("")
    for which, chosen in (("in which DQN learned", [one for one in compared if one[1]]), ("of the table", compared)):
        by_env = [[pair for own, _, pair in chosen if own == env] for env in dict.fromkeys(env for env, *_ in chosen)]
        if by_env:
            both = ([np.stack([pair[k] for pair in pairs], axis=1) for pairs in by_env] for k in (0, 1))
            value, low, high, p = compare_by_seed(*both)
            words = f"MIRL better than DQN over the {len(chosen)} conditions {which}"
            lines.append(f"{words}: {value:.2f} [{low:.2f}, {high:.2f}], p = {p:.2g}  ")
    return "\n".join(lines)


def _mean_and_spread(values: np.ndarray) -> str:
    return f"{values.mean():.2f} ± {values.std(ddof=1):.2f}"


def trial(env_id: str, seeds: Sequence[int], settings: Sequence[dict[str, float]]) -> str:
    """
    DQN and MIRL with other settings, trained jointly: mean returns of 50 episodes (15 where they are long), with the standard
    error over seeds.

    :param env_id: of Gymnasium
    :param seeds: not those of :data:`SEEDS`
    :param settings: arguments of MIRL; none are the defaults
    """
    th.set_num_threads(1)
    names = ["DQN", *(", ".join(f"{name}={value:g}" for name, value in own.items()) or "defaults" for own in settings)]
    models: list[list[BaseDQN]] = [[BaseDQN("MlpPolicy", make_env(env_id, 1.0), seed=seed) for seed in seeds]]
    models += [[MIRL("MlpPolicy", make_env(env_id, 1.0), seed=seed, **own) for seed in seeds] for own in settings]
    errors = train_jointly([model for own in models for model in own], STEPS)
    assert not any(errors), errors
    episodes = 50 if env_id.startswith("Frozen") else 15
    lines = []
    for name, own in zip(names, models, strict=True):
        returns = [float(evaluate_policy(model, make_env(env_id, 1.0), episodes)[0]) for model in own]
        error = np.std(returns, ddof=1) / np.sqrt(len(returns))
        lines.append(f"| {env_id} | {seeds[0]} to {seeds[-1]} | {name} | {np.mean(returns):.2f} ± {error:.2f} |")
    return "\n".join(lines)


def parse_settings(text: str) -> dict[str, float]:
    """``name=number,name=number``, or nothing for the defaults."""
    return {name: float(value) for name, value in (item.split("=") for item in text.split(",") if item)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "report", "trial"))
    parser.add_argument("--algos", nargs="+", choices=("dqn", "mirl"), default=["dqn", "mirl"])
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    parser.add_argument("--joint", action="store_true", help="train the missing runs of a condition jointly")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--env", default="FrozenLake-v1", help="of trial")
    parser.add_argument("--seeds", default="200-211", help="of trial")
    parser.add_argument("--settings", nargs="+", type=parse_settings, default=[], help="of trial, besides the defaults")
    arguments = parser.parse_args()
    if arguments.command == "trial":
        first, last = map(int, arguments.seeds.split("-"))
        print(trial(arguments.env, range(first, last + 1), [{}, *arguments.settings]))
    elif arguments.command == "run":
        run(jobs(arguments.algos), arguments.jobs, arguments.results, arguments.joint)
    else:
        print(report(arguments.results))


if __name__ == "__main__":
    main()
