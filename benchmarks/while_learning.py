"""
Returns of MIRL, SQL and DQN_mse during and after training, where many actions do nothing and β is fixed.

    python benchmarks/while_learning.py run       # writes results/while_learning.json; environments that are in it are skipped
    python benchmarks/while_learning.py report    # the tables of docs/results.md; draws docs/images/while_learning.png

With ``--plan repeat`` the same for the plan that tests with other seeds what the first one suggested: results/acting.json,
docs/images/acting.png. ``--plan without`` is its control, the same environments without useless actions:
results/without_useless.json, docs/images/without_useless.png.

β is 1 on CartPole and 30 on Acrobot, as was best there with useless actions in ``regularisation_strength.py``. MIRL has that
script's α_ρ and one ten times as large. All else is as there; no other experiment on these environments uses the seeds.
The return during training is an average over steps: a step counts the return of its episode. Exploration is included.
"""

import argparse
import json
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from matplotlib import pyplot as plt
from regularisation_strength import SHARED, interval, with_fixed

from sb3_mirl import DrawsFromPolicy
from sb3_mirl.bench.jobs import Job
from sb3_mirl.bench.report.scales import useless_actions
from sb3_mirl.bench.scores import bootstrap_mean, compare, holm, over_games, probability_of_improvement
from sb3_mirl.bench.suites import SUITES
from sb3_mirl.bench.variants import TrainedVariant, Variant, run_environments, train_variants
from sb3_mirl.common import colors

ROOT = Path(__file__).parent.parent
#: β by environment, with useless actions and without
BETAS = {
    "Useless15/CartPole-v1": 1.0,
    "Useless63/CartPole-v1": 1.0,
    "Useless15/Acrobot-v1": 30.0,
    "Useless63/Acrobot-v1": 30.0,
}
BETAS_WITHOUT = {"CartPole-v1": 1.0, "Acrobot-v1": 30.0}
CARTPOLE = [env for env in BETAS if "CartPole" in env]
SLOW, FAST = "MIRL, α_ρ = 1e-4", "MIRL, α_ρ = 1e-3"
#: The algorithm of each learner, what it does not share with the others, and its colour
LEARNERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "DQN": ("dqn_mse", {"loss": "huber"}, colors.BLACK),
    "DQN_mse": ("dqn_mse", {}, colors.GRAY),
    "SQL": ("sql", {}, colors.BLUE),
    SLOW: ("mirl", {"prior_lr": 1e-4}, colors.ORANGE),
    FAST: ("mirl", {"prior_lr": 1e-3}, colors.VERMILION),
}
#: What is measured of each run
MEASURES = {"during": "during training", "draws": "after training, draws from π", "argmax": "after training, argmax π"}


@dataclass(frozen=True)
class Plan:
    """
    An experiment of docs/results.md.

    :param name: of the files with its results and its figure
    :param learners: of :data:`LEARNERS`
    :param seeds: those of each learner on each environment
    :param hypotheses: a measure, two learners of which the first one should be better, and environments, by name
    :param betas: β by environment
    :param control_of: a plan; the hypotheses are then that its probabilities of improvement, of the same measure and
        learners, are larger than those of this plan
    """

    name: str
    learners: tuple[str, ...]
    seeds: range
    hypotheses: dict[str, tuple[str, str, str, list[str]]]
    betas: dict[str, float]
    control_of: str | None = None


PLANS = {
    "first": Plan(
        "while_learning",
        ("DQN_mse", "SQL", SLOW, FAST),
        range(3000, 3010),
        {
            "H8": ("during", FAST, "SQL", [*BETAS]),
            "H9": ("during", FAST, "DQN_mse", [*BETAS]),
            "H10": ("during", FAST, SLOW, [*BETAS]),
            "H11, SQL": ("argmax", "SQL", "DQN_mse", CARTPOLE),
            "H11, MIRL": ("argmax", FAST, "DQN_mse", CARTPOLE),
        },
        BETAS,
    ),
    "repeat": Plan(
        "acting",
        ("DQN", "SQL", SLOW, FAST),
        range(4000, 4016),
        {
            "H12": ("draws", SLOW, "SQL", [*BETAS]),
            "H13": ("draws", FAST, "SQL", [*BETAS]),
            "H14": ("argmax", SLOW, "SQL", [*BETAS]),
            "H15": ("argmax", SLOW, "DQN", CARTPOLE),
        },
        BETAS,
    ),
    "without": Plan(
        "without_useless",
        ("SQL", SLOW, FAST),
        range(5000, 5032),
        {
            "H18": ("draws", SLOW, "SQL", [*BETAS_WITHOUT]),
            "H19": ("draws", FAST, "SQL", [*BETAS_WITHOUT]),
        },
        BETAS_WITHOUT,
        control_of="repeat",
    ),
}


def variants_of(plan: Plan, env: str, steps: int) -> list[tuple[str, Variant]]:
    """
    :param plan: of :data:`PLANS`
    :param env: of the plan
    :param steps: environment steps of each run
    :return: the learner's name, and the run
    """
    suite, beta = SUITES["classic-actions"], plan.betas[env]
    suite = replace(suite, steps={env: steps})
    runs = []
    for name in plan.learners:
        algorithm, own, _ = LEARNERS[name]
        own = {**(SHARED if algorithm == "dqn_mse" else with_fixed(beta)), **own}
        one = replace(suite, own_hyperparams={algorithm: own})
        runs += [(name, Variant(one, Job(algorithm, env, seed))) for seed in plan.seeds]
    return runs


def train(plan: Plan, task: tuple[str, int]) -> list[dict[str, Any]]:
    """
    :param plan: of :data:`PLANS`
    :param task: an environment, and the steps of each run
    :return: the result of each run
    """
    th.set_num_threads(1)
    trained: list[tuple[str, TrainedVariant]] = []
    # Runs that are trained jointly have the same loss
    for _, own in groupby(variants_of(plan, *task), lambda pair: pair[0] == "DQN"):
        names, variants = zip(*own, strict=True)
        trained += zip(names, train_variants(variants), strict=True)
    results = []
    for name, run in trained:
        assert run.error is None, run.error
        suite, job = run.variant
        returns, lengths = (run.model.env.env_method(f"get_episode_{what}")[0] for what in ("rewards", "lengths"))
        result = {"environment": job.env, "learner": name, "seed": job.seed, "steps": suite.steps[job.env]}
        result["during"] = float(np.average(returns, weights=lengths))
        result["argmax"] = float(np.mean(run.scores(suite.episodes)))
        if job.algorithm != "dqn_mse":
            result["draws"] = float(np.mean(run.scores(suite.episodes, DrawsFromPolicy(run.model))))
            result["prior"] = run.model.policy.reference_prior.tolist()
        results.append(result)
    return results


def values(results: list[dict[str, Any]], env: str, learner: str, measure: str) -> np.ndarray:
    """Those of all seeds, [seeds]; none if the learner has no such measure."""
    own = [r for r in results if (r["environment"], r["learner"]) == (env, learner)]
    return np.array([r[measure] for r in own if measure in r])


def report(plan: Plan, path: Path, image: Path) -> None:
    """
    Print the means, the share of ρ on useless actions and the tests of the hypotheses; draw the means.

    :param plan: of :data:`PLANS`
    :param path: of the results
    :param image: to be written
    """
    results = json.loads(path.read_text())
    envs = [env for env in plan.betas if any(r["environment"] == env for r in results)]
    print("| environment | β | learner | " + " | ".join(MEASURES.values()) + " | ρ on useless actions |")
    print("|---|---:|---|" + "---:|" * (len(MEASURES) + 1))
    for env in envs:
        n_useless = useless_actions(env)[1]
        for name in plan.learners:
            measured = (values(results, env, name, measure) for measure in MEASURES)
            cells = [interval(numbers) if len(numbers) else "–" for numbers in measured]
            priors = np.array(
                [r["prior"] for r in results if (r["environment"], r["learner"]) == (env, name) and "prior" in r]
            )
            share = f"{priors[:, -n_useless:].sum(axis=1).mean():.0%}" if len(priors) and n_useless else "–"
            print(f"| {env} | {plan.betas[env]:g} | {name} | " + " | ".join(cells) + f" | {share} |")
    if plan.control_of is None:
        tests = {}
        for name, (measure, better, than, members) in plan.hypotheses.items():
            pairs = [[values(results, env, who, measure) for env in members if env in envs] for who in (better, than)]
            if pairs[0]:
                tests[name] = (f"{better} > {than}, {MEASURES[measure]}", compare(*pairs))
        print_verdicts(tests)
    else:
        print_control(plan, PLANS[plan.control_of], results)
    draw(plan, results, envs, image)


def print_control(plan: Plan, other: Plan, results: list[dict[str, Any]]) -> None:
    """
    Print the probabilities of improvement of a plan and of its control, and their differences.

    :param plan: the control
    :param other: its plan
    :param results: of the control
    """
    results = results + json.loads((ROOT / "results" / f"{other.name}.json").read_text())
    print("\n| | probability of improvement | with useless actions | without | difference | verdict |")
    print("|---|---|---:|---:|---:|---|")
    bases = [env for env in plan.betas if any(r["environment"] == env for r in results)]
    with_useless = [env for env in other.betas if useless_actions(env)[0] in bases]
    for name, (measure, better, than, _) in plan.hypotheses.items():
        pairs = {env: [values(results, env, who, measure) for who in (better, than)] for env in (*with_useless, *bases)}
        apart = [compare(*zip(*(pairs[env] for env in envs), strict=True)) for envs in (with_useless, bases)]
        by_base = [[*(env for env in with_useless if useless_actions(env)[0] == base), base] for base in bases]
        scores = [[runs for env in envs for runs in pairs[env]] for envs in by_base]
        change = over_games(_less_control, *map(list, zip(*scores, strict=True)))
        verdict = "holds" if change.low > 0 else "refuted" if change.high < 0 else "open"
        cells = " | ".join(f"{value:.2f} [{low:.2f}, {high:.2f}]" for value, low, high, *_ in (*apart, change))
        print(f"| {name} | {better} > {than}, {MEASURES[measure]} | {cells} | {verdict} |")


def _less_control(*scores: np.ndarray) -> np.ndarray:
    """
    The mean probability of improvement less that of the last pair.

    :param scores: those of one learner and of the other, for each environment in turn
    """
    *own, control = (probability_of_improvement(*pair) for pair in zip(scores[::2], scores[1::2], strict=True))
    return np.mean(own, axis=0) - control


def print_verdicts(tests: dict[str, tuple[str, tuple[float, float, float, float]]]) -> None:
    """
    Print a table of hypotheses that are adjusted together.

    :param tests: by name: the hypothesis in words, and what :func:`~sb3_mirl.bench.scores.compare` says of it
    """
    print("\n| | hypothesis | probability of improvement | p | adjusted p | verdict |\n|---|---|---:|---:|---:|---|")
    adjusted = holm([p for _, (*_, p) in tests.values()])
    for (name, (text, (value, low, high, p))), own in zip(tests.items(), adjusted, strict=True):
        verdict = "open" if own > 0.05 else "holds" if value > 0.5 else "refuted"
        print(f"| {name} | {text} | {value:.2f} [{low:.2f}, {high:.2f}] | {p:.2g} | {own:.2g} | {verdict} |")


def draw(plan: Plan, results: list[dict[str, Any]], envs: list[str], image: Path) -> None:
    """The mean of each measure with its interval, one panel for each environment."""
    figure, axes = plt.subplots(1, len(envs), figsize=(3 * len(envs), 3.6), layout="constrained", squeeze=False)
    for axis, env in zip(axes[0], envs, strict=True):
        for place, name in enumerate(plan.learners):
            for k, measure in enumerate(MEASURES):
                numbers = values(results, env, name, measure)
                if len(numbers):
                    mean, low, high = bootstrap_mean(numbers)
                    style = {"fmt": "o", "color": LEARNERS[name][-1], "capsize": 3, "label": name if k == 0 else None}
                    axis.errorbar(k + 0.15 * (place - 1.5), mean, [[mean - low], [high - mean]], **style)
        axis.set_title(f"{env}, β = {plan.betas[env]:g}", fontsize="medium")
        axis.set_xticks(range(len(MEASURES)))
        axis.set_xticklabels(["during\ntraining", "draws\nfrom π", "argmax π"])
        axis.grid(alpha=0.3, axis="y")
    # One scale for each environment, whatever the number of useless actions
    for base in {useless_actions(env)[0] for env in envs}:
        alike = [axis for axis, env in zip(axes[0], envs, strict=True) if useless_actions(env)[0] == base]
        low, high = zip(*(axis.get_ylim() for axis in alike), strict=True)
        for axis in alike:
            axis.set_ylim(min(low), max(high))
    axes[0, 0].set_ylabel("return")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    figure.savefig(image, dpi=120, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "report"])
    parser.add_argument("--plan", choices=[*PLANS], default="first")
    parser.add_argument("--envs", nargs="+", help="by default those of the plan")
    parser.add_argument("--steps", type=int, default=50_000, help="of the suite unless given")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--results", type=Path, help="by default those of the plan in results/")
    parser.add_argument("--figure", type=Path, help="by default that of the plan in docs/images/")
    args = parser.parse_args()
    plan = PLANS[args.plan]
    results = args.results or ROOT / "results" / f"{plan.name}.json"
    if args.command == "run":
        run_environments(results, args.envs or [*plan.betas], args.steps, partial(train, plan), args.jobs)
    else:
        report(plan, results, args.figure or ROOT / "docs" / "images" / f"{plan.name}.png")


if __name__ == "__main__":
    main()
