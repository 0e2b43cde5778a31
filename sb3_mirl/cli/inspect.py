"""
Model files at the command line: ``sb3-mirl inspect`` says what is in one without building anything from it, ``sb3-mirl
export-onnx`` writes its policy as ONNX.
"""

import argparse
import io
import json
import math
import pickle
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch as th

from sb3_mirl.common.export import document as export
from sb3_mirl.common.learning_curve import is_curve
from sb3_mirl.common.text import printable
from sb3_mirl.mirl.mirl import MIRL, SQL, SQLm

ALGORITHMS: dict[str, type[MIRL]] = {cls.algorithm: cls for cls in (MIRL, SQL, SQLm)}
# Of the text of a zip's entry, which may be compressed a thousandfold
LARGEST_TEXT = 2**26
LARGEST_INFO = 2**16
# Of rho, which is shown
MOST_ACTIONS = 2**20
# Actions in the text output, so that it fits on a screen
MAX_SHOWN_ACTIONS = 32
BAR_WIDTH = 30


def inspect_file(path: str | Path) -> dict[str, Any]:
    """
    What a model file says about itself, of either format: an export, or the zip of SB3's ``save``.

    Nothing is unpickled. In SB3's zip the JSON entry ``data`` holds pickles in base64: they are never decoded, and what SB3
    wrote beside them to be read is shown in their place. ρ and β are in ``policy.pth``, which ``torch.load`` reads with
    ``weights_only=True``: torch's restricted reader, which makes tensors and plain containers and runs no other code.

    :param path: of the file
    :return: plain JSON: ``file_format``, ``algorithm``, ``training``, ``arguments``, ``observation_space``,
        ``action_space``, ``action_names``, ``learning_curve``, ``prior``, ``beta``, ``versions``; None for what the file does
        not say
    :raises ValueError: if it is neither, or damaged; the message says why
    """
    path = next((one for suffix in ("", export.SUFFIX, ".zip") if (one := Path(f"{path}{suffix}")).is_file()), Path(path))
    if not path.exists():
        raise ValueError(f"there is no file {str(path)!r}")
    export.check_regular_file(path)
    with open(path, "rb") as file:
        start = file.read(4)
    if start == b"PK\x03\x04" and zipfile.is_zipfile(path):
        return _inspect_zip(path)
    shown = ("algorithm", "training", "arguments", "observation_space", "action_space", "action_names", "learning_curve")
    with export.opened(path) as (document, file):
        names = [name for name in ("prior", "beta") if f"policy.{name}" in file.keys()]
        for name in names:
            _check_size(math.prod(file.get_slice(f"policy.{name}").get_shape()), path)
        return {
            "file_format": f"{export.FORMAT} export, version {document['version']}",
            **{name: document.get(name) for name in shown},
            **_prior_and_beta({name: file.get_tensor(f"policy.{name}") for name in names}, path),
            "versions": document["versions"],
        }


def _check_size(n_elements: int, path: Path) -> None:
    if n_elements > MOST_ACTIONS:
        raise ValueError(f"{str(path)!r}: prior must have at most {MOST_ACTIONS} elements, got {n_elements}")


def _inspect_zip(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = set(archive.namelist())
            if not {"data", "policy.pth"} <= entries:
                raise ValueError(f"{str(path)!r} is a zip file but no model of SB3's: it lacks data or policy.pth")
            text = _content(archive, "data").decode()
            system = ""
            if "system_info.txt" in entries:
                with archive.open("system_info.txt") as file:
                    system = file.read(LARGEST_INFO).decode()
            weights = _content(archive, "policy.pth")
        with zipfile.ZipFile(io.BytesIO(weights)) as inner:
            for name in inner.namelist():
                # torch's restricted reader makes bytearrays, of any size that a number in the file says
                if name.endswith(".pkl") and b"bytearray\n" in _content(inner, name):
                    raise ValueError(f"{str(path)!r}: policy.pth has a bytearray, which no weights are")
                _check_expansion(inner, name)
    except (zipfile.BadZipFile, OSError, EOFError, UnicodeDecodeError, RuntimeError, zlib.error, MemoryError) as error:
        raise ValueError(f"{str(path)!r} is a damaged zip file: {error}") from error
    try:
        data = json.loads(text)
        export.check_depth(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{str(path)!r}: the entry data is not JSON as SB3 writes it: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{str(path)!r}: the entry data must be a JSON object, got {type(data).__name__}")
    arguments = {export._attribute(name): name for name in [*export.argument_names(MIRL), "tensorboard_log"]}
    attributes = {**{name: attribute for name, (attribute, _) in export.TRAINING.items()}, **{n: n for n in export.RESOLVED}}
    found = {"training": {name: data.get(attribute) for name, attribute in attributes.items()}}
    curve = data.get("learning_curve")
    return {
        "file_format": "SB3 zip",
        "algorithm": data.get("algorithm"),
        **found,
        "arguments": {name: _readable(data[attribute]) for attribute, name in arguments.items() if attribute in data},
        "observation_space": _readable(data.get("observation_space")),
        "action_space": _readable(data.get("action_space")),
        "action_names": data.get("action_names"),
        "learning_curve": curve if is_curve(curve) else None,
        **_prior_and_beta(_restricted_load(weights, path), path),
        "versions": dict(line.removeprefix("- ").split(": ", 1) for line in system.splitlines() if ": " in line),
    }


def _content(archive: zipfile.ZipFile, name: str) -> bytes:
    _check_expansion(archive, name)
    return archive.read(name)


def _check_expansion(archive: zipfile.ZipFile, name: str) -> None:
    """SB3 and torch do not compress: only an entry that is may be larger than its file."""
    entry = archive.getinfo(name)
    if entry.file_size > max(entry.compress_size, LARGEST_TEXT):
        raise ValueError(f"the entry {name} is compressed, and must have at most {LARGEST_TEXT} bytes, got {entry.file_size}")


def _restricted_load(weights: bytes, path: Path) -> dict[str, Any]:
    """The state_dict of ``policy.pth``, by torch's reader that runs no code of the file."""
    try:
        state_dict = th.load(io.BytesIO(weights), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own message recommends to load the file without the restriction
        reason = next((line for line in str(error).splitlines() if "GLOBAL" in line or "Unsupported" in line), "it is damaged")
        raise ValueError(
            f"{str(path)!r}: policy.pth is refused by torch's restricted reader, which runs no code: {reason.strip()[:300]}"
        ) from error
    except Exception as error:  # of damaged files torch raises whatever comes
        raise ValueError(f"{str(path)!r}: policy.pth is damaged: {str(error).splitlines()[:1]}") from error
    if not isinstance(state_dict, dict):
        raise ValueError(f"{str(path)!r}: policy.pth must hold a state_dict, got {type(state_dict).__name__}")
    return state_dict


def _readable(value: Any) -> Any:
    """What SB3 wrote beside a pickle to be read, instead of the pickle."""
    if not isinstance(value, dict) or ":serialized:" not in value:
        return value
    if value.get(":type:") in ("<class 'abc.ABCMeta'>", "<class 'type'>"):
        return {"pickle of": f"a class of {value.get('__module__')}"}
    beside = {key: item for key, item in value.items() if key != ":serialized:" and not key.startswith("__")}
    return {"pickle of": beside.pop(":type:", None), **beside}


def _prior_and_beta(state_dict: dict[str, Any], path: Path) -> dict[str, Any]:
    prior, beta = state_dict.get("prior"), state_dict.get("beta")
    if prior is None and beta is None:
        return {"prior": None, "beta": None}
    _check_size(prior.numel() if isinstance(prior, th.Tensor) else 0, path)
    exact = all(isinstance(one, th.Tensor) and one.dtype == th.float64 and one.device.type == "cpu" for one in (prior, beta))
    if not exact or prior.layout != th.strided or (prior.dim(), beta.dim()) != (1, 0):  # type: ignore[union-attr]
        raise ValueError(f"{str(path)!r}: prior must be a vector and beta a number, both float64")
    return {"prior": prior.tolist(), "beta": beta.item()}  # type: ignore[union-attr]


# ---- the text ----------------------------------------------------------------------------------------------------------


def _printable(value: Any) -> str:
    """What a file says, as text without what a terminal would obey."""
    return printable(value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False))


def _short(value: Any) -> str:
    text = _printable(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _report(found: dict[str, Any]) -> str:
    """The text of ``sb3-mirl inspect``."""
    lines = [f"format     {_printable(found['file_format'])}"]
    lines += [f"algorithm  {_printable(found['algorithm'] or 'not one of sb3_mirl')}"]
    if found["beta"] is not None:
        lines += [f"beta       {found['beta']:.6g}", "prior (rho)", *_prior_lines(found["prior"], found["action_names"])]
    for title in ("training", "arguments", "versions"):
        lines += [title]
        lines += [
            f"  {_printable(name):<24} {_short(value)}{_resolved(name, value, found)}" for name, value in found[title].items()
        ]
    lines += [f"{title}\n  {_short(found[title])}" for title in ("observation_space", "action_space")]
    return "\n".join(lines)


def _resolved(name: str, value: Any, found: dict[str, Any]) -> str:
    """What ``"auto"`` was made in the first ``learn``."""
    number = found["training"].get(f"resolved_{name}")
    return f" ({_short(number)})" if value == "auto" and number is not None else ""


def _prior_lines(prior: list[float], names: Any) -> list[str]:
    """ρ(a), the largest first, with a bar."""
    named = isinstance(names, list) and len(names) == len(prior)
    labels = [_printable(names[a])[:25] if named else f"action_{a}" for a in range(len(prior))]
    order = sorted(range(len(prior)), key=lambda action: -prior[action])
    width = max(map(len, labels), default=0)
    largest = max((p for p in prior if math.isfinite(p)), default=0.0) or 1.0
    lines = []
    for action in order[:MAX_SHOWN_ACTIONS]:
        share = prior[action] / largest if math.isfinite(prior[action]) else 0.0
        lines.append(f"  {labels[action]:<{width}}  {prior[action]:.6f}  {'#' * max(0, round(share * BAR_WIDTH))}".rstrip())
    hidden = len(order) - MAX_SHOWN_ACTIONS
    return [*lines, *([f"  and {hidden} more (--json shows all)"] if hidden > 0 else [])]


# ---- the commands ------------------------------------------------------------------------------------------------------


def _fail(command: str, error: Exception) -> int:
    print(f"sb3-mirl {command}: {_printable(' '.join(str(error).split()))}", file=sys.stderr)
    return 2


def inspect_main(arguments: list[str]) -> int:
    """
    ``sb3-mirl inspect``.

    :param arguments: without the program's name and the command
    :return: exit status, 2 for a file that cannot be read
    """
    parser = argparse.ArgumentParser(
        prog="sb3-mirl inspect",
        description="Say what is in a model file, of model.export or model.save (zip). Nothing is unpickled, no code of the "
        "file is run: policy.pth of a zip is read by torch's restricted reader (weights_only).",
    )
    parser.add_argument("file", help="the model file")
    parser.add_argument("--json", action="store_true", help="print JSON; numbers that it cannot hold as text")
    args = parser.parse_args(arguments)
    try:
        found = inspect_file(args.file)
        text = json.dumps(_finite(found), indent=2) if args.json else _report(found)
    except (ValueError, OSError) as error:
        return _fail("inspect", error)
    print(text)
    return 0


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value


def onnx_main(arguments: list[str]) -> int:
    """
    ``sb3-mirl export-onnx``.

    :param arguments: without the program's name and the command
    :return: exit status, 2 for a file that cannot be read or exported
    """
    parser = argparse.ArgumentParser(
        prog="sb3-mirl export-onnx",
        description="Write a model's policy as ONNX: observations in, action, probabilities and q_values out.",
        epilog="A zip is loaded by SB3, which unpickles what is in it and so runs code of the file: only for files that you "
        "trust. A file of model.export is loaded without.",
    )
    parser.add_argument("model", help="a file of model.export, or a zip of model.save")
    parser.add_argument("output", help="the ONNX file")
    args = parser.parse_args(arguments)
    try:
        found = inspect_file(args.model)
        if str(found["algorithm"]) not in ALGORITHMS:
            raise ValueError(f"the algorithm must be one of {sorted(ALGORITHMS)}, the file has {found['algorithm']!r}")
        cls = ALGORITHMS[found["algorithm"]]
        load = cls.load if found["file_format"] == "SB3 zip" else cls.load_exported
        # Acting needs no replay buffer
        small: dict[str, Any] = {
            "buffer_size": 1,
            "replay_buffer_class": None,
            "replay_buffer_kwargs": {},
            "optimize_memory_usage": False,
        }
        model = load(args.model, device="cpu", n_steps=1, compile_update=False, **small)
        export.export_onnx(model, args.output)
    except (ValueError, OSError, ImportError) as error:
        return _fail("export-onnx", error)
    print(f"Wrote {args.output}")
    return 0
