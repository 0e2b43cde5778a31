"""Commands about a model file: ``sb3-mirl inspect`` shows its content, ``sb3-mirl export-onnx`` writes its policy as ONNX."""

from typing import Any

from sb3_mirl.cli.output import action_labels, fail, prior_lines, to_json, to_text
from sb3_mirl.common.command_parser import CommandParser
from sb3_mirl.common.dqn import DQNMSE, BaseDQN
from sb3_mirl.common.export.model_file import ZIP_FORMAT
from sb3_mirl.common.munchausen import MDQN
from sb3_mirl.mirl.mirl import MIRL, SQL, SQLDecoupled, SQLm
from sb3_mirl.mirl.priors import inspect_file

_CLASSES: tuple[type[BaseDQN], ...] = (MIRL, SQL, SQLDecoupled, SQLm, MDQN, BaseDQN, DQNMSE)
CLASSES_BY_SAVED_NAME = {cls.algorithm: cls for cls in _CLASSES}
#: Characters of a value in the text
MAX_VALUE_LENGTH = 120


def _report(found: dict[str, Any]) -> str:
    """The text of ``sb3-mirl inspect``."""
    lines = [f"format     {to_text(found['file_format'])}"]
    lines += [f"algorithm  {to_text(found['algorithm'] or 'not one of sb3_mirl')}"]
    if found["state_prior"] is not None:
        lines += [f"beta       {found['beta']:.6g}", "prior (rho) depends on the observation: sb3-mirl prior shows it"]
    elif found["prior"] is not None:
        names = action_labels(found["action_names"], len(found["prior"]))
        lines += [f"beta       {found['beta']:.6g}", "prior (rho)", *prior_lines(found["prior"], names)]
    for title in ("training", "arguments", "versions"):
        lines.append(title)
        for name, value in found[title].items():
            number = found["training"].get(f"resolved_{name}") if value == "auto" else None
            resolved = "" if number is None else f" ({_short(number)})"
            lines.append(f"  {to_text(name):<24} {_short(value)}{resolved}")
    lines += [f"{title}\n  {_short(found[title])}" for title in ("observation_space", "action_space")]
    return "\n".join(lines)


def _short(value: Any) -> str:
    text = to_text(value)
    return text if len(text) <= MAX_VALUE_LENGTH else text[: MAX_VALUE_LENGTH - 3] + "..."


def make_inspect_parser() -> CommandParser:
    """The parser of ``sb3-mirl inspect``."""
    parser = CommandParser(
        prog="sb3-mirl inspect",
        description="Show what is in a model file of model.export or model.save (zip). Nothing is unpickled and no code of "
        "the file is run: policy.pth of a zip is read by torch's restricted reader (weights_only).",
        examples=(
            ("Settings, beta and rho of a model", "sb3-mirl inspect logs/mirl/CartPole-v1_1/CartPole-v1.zip"),
            ("For a program", "sb3-mirl inspect model.safetensors --json"),
        ),
    )
    parser.add_argument("file", help="the model file")
    parser.add_argument("--json", action="store_true", help="print JSON; NaN and infinity as text")
    return parser


def inspect_main(arguments: list[str]) -> int:
    """
    ``sb3-mirl inspect``.

    :param arguments: without the program's name and the command
    :return: exit status, 2 for a file that cannot be read
    """
    args = make_inspect_parser().parse_args(arguments)
    try:
        found = inspect_file(args.file)
        text = to_json(found) if args.json else _report(found)
    except (ValueError, OSError) as error:
        return fail("inspect", error)
    print(text)
    return 0


def make_onnx_parser() -> CommandParser:
    """The parser of ``sb3-mirl export-onnx``."""
    parser = CommandParser(
        prog="sb3-mirl export-onnx",
        description="Write a model's policy as ONNX: observations in, action, probabilities and q_values out.",
        epilog="SB3 loads a zip by unpickling its content, which runs code of the file: use only zips that you trust. "
        "Loading a file of model.export runs no code of it.",
        examples=(("The policy of an export", "sb3-mirl export-onnx model.safetensors policy.onnx"),),
    )
    parser.add_argument("model", help="a file of model.export, or a zip of model.save")
    parser.add_argument("output", help="the ONNX file")
    return parser


def onnx_main(arguments: list[str]) -> int:
    """
    ``sb3-mirl export-onnx``.

    :param arguments: without the program's name and the command
    :return: exit status, 2 for a file that cannot be read or exported
    """
    args = make_onnx_parser().parse_args(arguments)
    try:
        found = inspect_file(args.model)
        if str(found["algorithm"]) not in CLASSES_BY_SAVED_NAME:
            raise ValueError(
                f"the algorithm must be one of {sorted(CLASSES_BY_SAVED_NAME)}, the file has {found['algorithm']!r}"
            )
        cls = CLASSES_BY_SAVED_NAME[found["algorithm"]]
        load = cls.load if found["file_format"] == ZIP_FORMAT else cls.load_exported
        # Acting needs no replay buffer
        buffer: dict[str, Any] = {"buffer_size": 1, "replay_buffer_class": None, "replay_buffer_kwargs": {}}
        model = load(args.model, device="cpu", n_steps=1, compile_update=False, optimize_memory_usage=False, **buffer)
        model.export_onnx(args.output)
    except (ValueError, OSError, ImportError) as error:
        return fail("export-onnx", error)
    except KeyError as missing:
        # SB3 leaves out what it cannot unpickle
        if missing.args[:1] != ("policy_class",):
            raise
        return fail("export-onnx", ValueError(f"{args.model}: {missing} cannot be read: is its class installed?"))
    print(f"Wrote {args.output}")
    return 0
