"""The command ``sb3-mirl gridworld``: runs the experiment, writes CSV files, and draws the figures."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sb3_mirl.common.command_parser import CommandParser
from sb3_mirl.common.text import did_you_mean, printable, printable_lines
from sb3_mirl.envs.gridworld import CORRIDOR, SQUARE, WIDE_CORRIDOR, GridWorld
from sb3_mirl.tabular.learners import TABULAR_ALGORITHMS, TabularSettings

WORLDS = {"corridor": CORRIDOR, "wide_corridor": WIDE_CORRIDOR, "square": SQUARE}
#: Names of other files that the command writes
RESERVED_NAMES = ("returns", "exact", "ablation")


def _number(kind: Callable[[str], float], low: float, high: float = np.inf, infinite: bool = False) -> Callable[[str], float]:
    """An argparse type: a number in [low, high], or infinity as well."""

    def parse_number(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = np.nan
        if not low <= value <= high and not (infinite and value == np.inf):
            whole, more = "a whole number" if kind is int else "a number", " or inf" if infinite else ""
            raise argparse.ArgumentTypeError(f"{text!r} is not {whole} in [{low:g}, {high:g}]{more}")
        return value

    return parse_number


class _Distinct(argparse.Action):
    """Stores values without repetitions."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, list(dict.fromkeys(values)))


def make_parser() -> CommandParser:
    """The parser of ``sb3-mirl gridworld``."""
    parser = CommandParser(
        prog="sb3-mirl gridworld",
        description="The paper's grid worlds: QL, SQL, SQL_m and MIRL with tables. Writes CSV files and draws figures.",
        epilog="--extra-actions, --slip-probability, --gamma, --prior-lr and --beta-lr accept several values: every "
        "combination is run, and an ablation is drawn.",
        examples=(
            ("The paper's experiment", "sb3-mirl gridworld"),
            ("One world and more seeds", "sb3-mirl gridworld --worlds square --seeds 50"),
            ("An ablation: several numbers of useless actions", "sb3-mirl gridworld --extra-actions 0 4 16 64"),
        ),
    )
    share, positive, count = _number(float, 0.0, 1.0), _number(float, 0.0, 1e100), _number(int, 1)
    beta = _number(float, 0.0, 1e100, infinite=True)
    several: dict[str, Any] = {"nargs": "+", "action": _Distinct}
    algorithms = list(TABULAR_ALGORITHMS)
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS), help=f"{', '.join(WORLDS)}, or files with a map")
    parser.add_argument("--algos", **several, default=algorithms, choices=algorithms, help="learners")
    parser.add_argument("--seeds", type=count, default=10, help="number of seeds")
    parser.add_argument("--steps", type=count, default=100_000, help="environment steps of every learner")
    parser.add_argument("--out", type=Path, default=Path("logs/gridworld"), help="folder of the results")
    swept = parser.add_argument_group("settings that may take several values")
    swept.add_argument("--extra-actions", **several, type=_number(int, 0), default=[0], help="useless actions")
    swept.add_argument("--slip-probability", **several, type=share, default=[0.0], help="probability of a random move instead")
    swept.add_argument("--gamma", **several, type=share, default=[TabularSettings.gamma], help="discount γ")
    swept.add_argument("--prior-lr", **several, type=share, default=[TabularSettings.prior_lr], help="α_ρ, the step size of ρ")
    swept.add_argument("--beta-lr", **several, type=positive, default=[TabularSettings.beta_lr], help="c in β = β₀ + c·i")
    learning = parser.add_argument_group("learning")
    learning.add_argument("--beta-init", type=beta, default=TabularSettings.beta_init, help="β₀")
    learning.add_argument("--beta-max", type=beta, default=TabularSettings.beta_max, help="largest β")
    learning.add_argument("--exploration", type=share, default=TabularSettings.exploration, help="ε of the training")
    learning.add_argument("--q-lr", type=share, default=TabularSettings.q_lr, help="α in α_Q = α · n(s,a)^(-ω)")
    learning.add_argument("--q-lr-decay", type=positive, default=TabularSettings.q_lr_decay, help="ω in α_Q")
    evaluation = parser.add_argument_group("evaluation")
    evaluation.add_argument("--eval-every", type=count, default=1000, help="steps between evaluations")
    evaluation.add_argument("--eval-episodes", type=count, default=30, help="episodes of an evaluation")
    evaluation.add_argument("--eval-steps", type=count, default=100, help="largest number of steps of an episode")
    evaluation.add_argument("--eval-exploration", type=share, default=0.05, help="ε of the evaluation")
    evaluation.add_argument("--final", type=count, default=10, help="evaluations at the end that make up the final return")
    evaluation.add_argument("--smoothing", type=count, default=1, help="evaluations per moving mean in the figure (paper: 10)")
    parser.add_argument("--no-plots", dest="plots", action="store_false", help="only the CSV files")
    parser.add_argument("--no-progress", dest="progress", action="store_false", help="no progress bar")
    return parser


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line of ``sb3-mirl gridworld``, validated."""
    parser = make_parser()
    args = parser.parse_args(arguments)
    try:
        args.maps = {_world_name(world): _read_map(world) for world in args.worlds}
    except (OSError, ValueError) as error:
        parser.error(f"argument --worlds: {printable(error)}")
    names = [_world_name(world) for world in args.worlds]
    for name in {name for name in names if names.count(name) > 1 or name in RESERVED_NAMES}:
        parser.error(f"argument --worlds: more than one result would be named {name!r}")
    if not_folder := next((path for path in (args.out, *args.out.parents) if path.exists() and not path.is_dir()), None):
        parser.error(f"argument --out: {str(not_folder)!r} is not a folder")
    args.worlds = list(args.maps)
    if args.eval_every > args.steps:
        parser.error(f"argument --eval-every: {args.eval_every} is more than --steps {args.steps}")
    if args.steps % args.eval_every:
        parser.error(f"argument --steps: {args.steps} is no multiple of --eval-every {args.eval_every}")
    return args


def _world_name(world: str) -> str:
    return world if world in WORLDS else Path(world).stem


def _read_map(world: str) -> str:
    """One of the paper's maps, or a map from a file, validated before any run."""
    if world in WORLDS:
        return WORLDS[world]
    if not Path(world).is_file():
        hint = did_you_mean(world, WORLDS)
        raise ValueError(f"{world!r} is neither one of {', '.join(WORLDS)} nor a file with a map{hint}")
    grid_map = Path(world).read_text()
    GridWorld(grid_map)
    return grid_map


def main(arguments: Sequence[str] | None = None) -> int:
    """The command ``sb3-mirl gridworld``."""
    args = parse(arguments)
    # --help works without the packages that these need
    import pandas as pd

    from sb3_mirl.bench.gridworld import SWEPT, run, solve_exactly, summarize
    from sb3_mirl.bench.gridworld_figures import draw

    args.out.mkdir(parents=True, exist_ok=True)
    results, ends = run(args)
    summary, differences = summarize(results, args.final)
    tables = {"results": results, "summary": summary, "differences": differences}
    fixed = [name for name in SWEPT if len(getattr(args, name)) == 1]
    if len(fixed) == len(SWEPT):
        tables["exact"] = solve_exactly(args)
    for name, table in tables.items():
        table.to_csv(args.out / f"{name}.csv", index=False)
        print(f"wrote {printable(args.out / name)}.csv")
    if args.plots:
        draw(args, tables, ends)
    print(
        f"\nMean return with 95% bootstrap intervals over {args.seeds} seeds; "
        f"area: of all evaluations, final: of the last {args.final}"
    )
    with pd.option_context("display.width", 200, "display.max_rows", None):
        print(printable_lines(summary.drop(columns=fixed).round(2).to_string(index=False)))
    return 0
