"""The command ``sb3-mirl prior``: which actions an agent chose seldom, by the ρ of its model file."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from sb3_mirl.cli.output import MAX_SHOWN_ACTIONS, action_labels, fail, hidden_line, new_figure, prior_lines, to_json, to_text
from sb3_mirl.cli.state_prior import show_state_prior
from sb3_mirl.common.colors import BLUE, VERMILION
from sb3_mirl.common.command_parser import CommandParser
from sb3_mirl.common.export.values import decode
from sb3_mirl.common.learning_curve import first_and_last
from sb3_mirl.common.text import plain_label
from sb3_mirl.mirl.priors import checked_prior, inspect_file

#: Share of the uniform 1/n below which an action counts as rare
THRESHOLD = 0.1
# Share of log(n): ρ is called nearly uniform if its KL from uniform is smaller
NEARLY_UNIFORM = 0.01

#: Rows of the text: title, and key in the result of :func:`diagnose`
STATISTICS = {
    "entropy (nats)": "entropy",
    "log(n), of uniform rho": "log_n",
    "effective actions, exp(entropy)": "effective_actions",
    "KL from uniform (nats)": "kl_from_uniform",
    "weight of the initial rho": "initial_weight",
}


def diagnose(path: str | Path, threshold: float = THRESHOLD) -> dict[str, Any]:
    """
    What the ρ of a model file shows about its agent.

    ρ = w ρ₀ + (1 - w) π̄, where ρ₀ is the initial ρ, w = (1 - α_ρ)^k its weight after the k steps since ``learning_starts``,
    and π̄ a weighted mean of π over the states of these steps, with the largest weights for the latest. An action became rare
    if ρ(a) < ``threshold`` / n and ρ₀(a) was larger. With a uniform ρ₀ that needs w < ``threshold``: for a larger w, for
    α_ρ = 0 and for a zip that holds ρ₀ as a pickle the result is inconclusive. k is counted from the last call of ``learn``
    with ``reset_num_timesteps=True``, as are the returns.

    A small ρ(a) means that π chose the action seldom, not that no state needs it. An agent that has not learned the task may
    avoid actions that the task needs.

    :param path: of an export or of SB3's zip; its suffix may be left out
    :param threshold: in (0, 1]
    :return: plain JSON: ``file``, ``algorithm``; ``actions`` and ``prior`` [n_actions]; ``entropy``, ``log_n`` and
        ``kl_from_uniform`` in nats, ``effective_actions`` = exp(entropy); ``beta``, ``prior_lr``, ``steps`` k,
        ``initial_weight`` w, ``limit`` = threshold / n; ``inconclusive``, the reason or None; ``rare``, names of actions, None
        if inconclusive; ``returns`` as in :func:`~sb3_mirl.common.learning_curve.first_and_last`
    :raises ValueError: if the file has no ρ, or does not say how ρ has moved; or if ``threshold`` is out of range
    """
    if not 0.0 < threshold <= 1.0:
        raise ValueError(f"threshold must be a number in (0, 1], got {threshold!r}")
    found = inspect_file(path)
    if found["state_prior"] is not None:
        raise ValueError(f"{str(path)!r} has a prior that depends on the observation: show it without other files")
    prior = checked_prior(found, path)
    n = len(prior)
    labels = action_labels(found["action_names"], n)
    numbers = {**found["training"], **found["arguments"]}
    if numbers.get("prior_lr") == "auto":
        # Before the first learn() "auto" has no number, and ρ has not moved
        numbers["prior_lr"] = numbers.get("resolved_prior_lr") or 0.0
    prior_lr = _number(numbers, "prior_lr", 1, path)
    steps = int(max(0, _number(numbers, "num_timesteps", 2**63, path) - _number(numbers, "learning_starts", 2**63, path)))
    weight, limit = (1.0 - prior_lr) ** steps, threshold / n
    first = _initial_prior(numbers.get("prior_init"), n)
    inconclusive = _why_inconclusive(prior_lr, steps, weight, threshold, first)
    rare = None if inconclusive or first is None else np.flatnonzero((prior < limit) & (first >= limit))
    positive = prior[prior > 0]
    entropy = max(0.0, -float((positive * np.log(positive)).sum()))
    curve = found["learning_curve"]
    return {
        "file": str(path),
        "algorithm": found["algorithm"],
        "actions": labels,
        "prior": prior.tolist(),
        "entropy": entropy,
        "log_n": math.log(n),
        "effective_actions": math.exp(entropy),
        "kl_from_uniform": max(0.0, math.log(n) - entropy),
        "beta": found["beta"],
        "prior_lr": prior_lr,
        "steps": steps,
        "initial_weight": weight,
        "limit": limit,
        "inconclusive": inconclusive,
        "rare": None if rare is None else [labels[action] for action in rare],
        "returns": None if curve is None else first_and_last(curve),
    }


def _number(numbers: dict[str, Any], name: str, largest: float, path: str | Path) -> float:
    value: Any = numbers.get(name)
    if type(value) not in (int, float) or not 0 <= value <= largest:
        raise ValueError(
            f"{str(path)!r} does not say how its prior has moved: {name} must be in [0, {largest}], got {value!r}"
        )
    return value


def _initial_prior(given: Any, n_actions: int) -> np.ndarray | None:
    """ρ₀ by the ``prior_init`` of the file; None if that is a pickle."""
    if given is None:
        return np.full(n_actions, 1.0 / n_actions)
    try:
        first = np.asarray(decode(given, "prior_init", {}), dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    return first if first.shape == (n_actions,) and np.isfinite(first).all() else None


def _why_inconclusive(prior_lr: float, steps: int, weight: float, threshold: float, first: np.ndarray | None) -> str | None:
    if prior_lr == 0.0:
        return "prior_lr is 0, so that rho never changes (SQL has a fixed prior)"
    if steps == 0:
        return "there was no step since learning_starts, so that rho has not moved"
    if weight >= threshold:
        needed = np.floor(math.log(threshold) / math.log1p(-prior_lr)) + 1  # which may be infinite
        return (
            f"too few steps for this prior_lr. The initial rho still has a weight of {weight:.3g}, which must fall below "
            f"{threshold:g}: that takes {needed:.0f} steps since learning_starts, the agent made {steps}"
        )
    return (
        None if first is not None else "the first rho is unknown: prior_init is a pickle in this file (an export can be read)"
    )


# ---- the text ---------------------------------------------------------------------------------------------------------


def _conclusion(found: dict[str, Any]) -> str:
    """What the file shows about the actions and the returns."""
    if found["inconclusive"]:
        return f"Nothing can be concluded: {found['inconclusive']}."
    below = f"rho(a) < {found['limit']:.4g}, {found['limit'] * len(found['prior']):g} of the uniform 1/n"
    if not found["rare"]:
        text = f"No action became rare ({below})."
        if found["kl_from_uniform"] < NEARLY_UNIFORM * found["log_n"]:
            text += (
                "\nrho is nearly uniform: over all states together the agent takes its actions about equally often, as it "
                f"should where all are needed; or beta, {found['beta']:.4g}, is too small for the policy behind rho to choose."
            )
        return text
    shares = dict(zip(found["actions"], found["prior"], strict=True))
    share = sum(shares[name] for name in found["rare"])
    # All steps before the last 1 / prior_lr have a total weight of 1/e in ρ
    recent = min(found["steps"], round(1.0 / found["prior_lr"]))
    return (
        f"The policy seldom chose {', '.join(found['rare'])} ({below}): together {100 * share:.2g} % of its choices in about "
        f"the last {recent} of {found['steps']} steps.\n{_describe_returns(found['returns'])}"
    )


def _describe_returns(returns: dict[str, Any] | None) -> str:
    if returns is None:
        return "The file has too few returns of episodes to say whether the agent got better: the task may need these actions."
    means = f"from {returns['first']:.4g} in the first {returns['episodes']} episodes to {returns['last']:.4g} in the last"
    if returns["improved"]:
        return f"Its mean return rose {means}, nearly without these actions. A policy that earns more may need them."
    return f"Its mean return went {means}, which is no significant improvement: the task may need these actions."


def _origin(found: dict[str, Any]) -> str:
    steps = f"{found['steps']} steps since learning_starts"
    weight = f"initial weight (1 - prior_lr)^steps = {found['initial_weight']:.3g}"
    return f"{to_text(found['algorithm'])}; beta {found['beta']:.4g}, prior_lr {found['prior_lr']:g}, {steps}, {weight}"


def _report(found: dict[str, Any]) -> str:
    """The text for one model."""
    lines = [_origin(found), "prior (rho)", *prior_lines(found["prior"], found["actions"])]
    lines += [f"{title:<32} {found[key]:.4g}" for title, key in STATISTICS.items()]
    return "\n".join([*lines, _conclusion(found)])


def _comparison(all_found: list[dict[str, Any]]) -> str:
    """The text for several models: a column for each."""
    by_action = [dict(zip(found["actions"], found["prior"], strict=True)) for found in all_found]
    actions = list(dict.fromkeys(action for prior in by_action for action in prior))
    actions.sort(key=lambda action: -sum(prior.get(action, 0.0) for prior in by_action))
    columns = [f"[{number}]" for number in range(1, len(all_found) + 1)]
    lines = [f"{column} {to_text(found['file'])}: {_origin(found)}" for column, found in zip(columns, all_found, strict=True)]
    lines.append(f"{'prior (rho)':<32}" + "".join(f"{column:>10}" for column in columns))
    for action in actions[:MAX_SHOWN_ACTIONS]:
        lines.append(f"  {action:<30}" + "".join(f"{p[action]:>10.6f}" if action in p else f"{'-':>10}" for p in by_action))
    lines += hidden_line(len(actions))
    lines += [f"{title:<32}" + "".join(f"{found[key]:>10.4g}" for found in all_found) for title, key in STATISTICS.items()]
    return "\n".join([*lines, *(f"{c} {_conclusion(found)}" for c, found in zip(columns, all_found, strict=True))])


def draw(all_found: list[dict[str, Any]], file: Path) -> None:
    """
    ρ as bars, the largest first: one panel for each model, with the uniform distribution and the threshold.

    :param all_found: of :func:`diagnose`
    :param file: of the figure
    :raises ImportError: without the packages of the extra ``bench``
    """
    height = 1.7 + 0.24 * max(len(found["prior"]) for found in all_found)
    figure = new_figure(figsize=(4.6 * len(all_found), height))
    for axis, found in zip(figure.subplots(1, len(all_found), squeeze=False)[0], all_found, strict=True):
        prior = np.array(found["prior"])
        order = np.argsort(prior, kind="stable")
        rare = set(found["rare"] or ())
        labels = [found["actions"][action] for action in order]
        axis.barh(range(len(order)), prior[order], color=["0.75" if label in rare else BLUE for label in labels])
        axis.set_yticks(range(len(order)), [*map(plain_label, labels)], fontsize=8)
        axis.axvline(1.0 / len(prior), color="black", linestyle=":", linewidth=1, label="uniform")
        axis.axvline(found["limit"], color=VERMILION, linestyle="--", linewidth=1.5, label="rare below")
        name, moved = plain_label(Path(found["file"]).name), found["inconclusive"] is None
        axis.set_title(
            f"{name}\n{found['effective_actions']:.2f} effective actions{'' if moved else ', not conclusive'}", fontsize=9
        )
        axis.set_xlabel("action prior ρ(a), a probability")
        axis.grid(alpha=0.3, axis="x")
    axis.legend(loc="lower right", fontsize=8)
    figure.suptitle("How often the policy chooses each action; grey: became rare", fontsize=10)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


def make_parser() -> CommandParser:
    """The parser of ``sb3-mirl prior``."""
    parser = CommandParser(
        prog="sb3-mirl prior",
        description="Which actions agents chose seldom: the prior rho of model files (of model.export or model.save), its "
        "entropy, the actions that became rare, and how the returns went meanwhile. No code of the files is run.",
        epilog="A rho(a|x) is shown as a table by x, one file at a time. "
        "A marginal rho is the mean of the policy over the states that were visited: a small rho(a) says how seldom the agent "
        "chose the action, not that no state needs it.",
        examples=(
            ("Which actions did this agent learn not to use?", "sb3-mirl prior logs/mirl/CartPole-v1_1/CartPole-v1.zip"),
            ("Two agents side by side, as a figure", "sb3-mirl prior a.zip b.safetensors --out priors.png"),
            ("A rho(a|x) of cells as arrows on the map", "sb3-mirl prior model.zip --map MIRLFourRooms-v0 --out map.png"),
        ),
    )
    parser.add_argument("files", nargs="+", metavar="MODEL", help="a model file; several are set side by side")
    parser.add_argument("--out", type=Path, metavar="FIGURE", help="draw it (.png, .pdf, .svg)")
    parser.add_argument(
        "--map",
        dest="grid_map",
        metavar="WORLD",
        help="draw a table rho(a|x), where x is the cell of a grid world, as arrows on its map. WORLD is an id such as "
        "MIRLFourRooms-v0 or a file with a map",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        default=THRESHOLD,
        metavar="X",
        help="an action is rare if rho(a) < X / n, where n is the number of actions",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, an array of objects; for a rho(a|x) a single object")
    return parser


def main(arguments: list[str]) -> int:
    """
    ``sb3-mirl prior``.

    :param arguments: without the program's name and the command
    :return: exit status, 2 for a file that cannot be read
    """
    args = make_parser().parse_args(arguments)
    try:
        if args.out and (args.out.is_dir() or args.out.suffix.lower() not in (".png", ".pdf", ".svg")):
            raise ValueError(f"argument --out: must be a file with the suffix .png, .pdf or .svg, got {str(args.out)!r}")
        if args.grid_map and len(args.files) > 1:
            raise ValueError(f"argument --map: takes one MODEL, got {len(args.files)}")
        if args.grid_map and not args.out:
            raise ValueError("argument --map: needs --out FIGURE")
        if len(args.files) == 1 and (read := inspect_file(args.files[0]))["state_prior"] is not None:
            print(show_state_prior(read, args.files[0], args.json, args.out, args.grid_map))
            return 0
        if args.grid_map:
            raise ValueError("argument --map: needs a prior that depends on x, the cell; the prior of the file does not")
        all_found = [diagnose(file, args.threshold) for file in args.files]
        if args.json:
            text = to_json(all_found)
        else:
            text = _report(all_found[0]) if len(all_found) == 1 else _comparison(all_found)
        if args.out:
            draw(all_found, args.out)
            text += "" if args.json else f"\nWrote {args.out}"
    except (ValueError, OSError, ImportError) as error:
        return fail("prior", error)
    print(text)
    return 0
