"""
What the files of a benchmark's folder must hold. A folder may come from anywhere, so its files are read by :func:`read` and
checked by :func:`check_result` and :func:`check_suite_file` before anything is done with them.

Each table has, by key, words for what a value must be and a function that says whether it is.
"""

import errno
import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

FORMAT = 1
#: Of a result, which takes up to 100 kB, and of ``suite.json``, which has 60 bytes for each job
MAX_BYTES, MAX_SUITE_BYTES = 4 * 2**20, 16 * 2**20
#: Levels of lists and dicts
MAX_DEPTH = 50
#: Rows of a learning curve, or of the history of β
MAX_ROWS = 1000
MAX_COUNT = 10**12
#: Sums and squares of such numbers are finite
MAX_NUMBER = 1e100
#: Digits of an integer that NumPy holds without loss
MAX_DIGITS = 18

Table = dict[str, tuple[str, Callable[[Any], bool]]]


# ---- files ------------------------------------------------------------------------------------------------------------


def regular(path: str | os.PathLike[str], flags: int) -> int:
    """
    An opener for :func:`open`, for regular files only: a FIFO or a device may let whoever opens or reads it wait for ever.

    :raises OSError: if the file is something else
    """
    handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return handle


def read_bytes(file: Path, most: int = MAX_BYTES) -> bytes:
    """
    :param file: to be read
    :param most: bytes that it may have
    :raises OSError: if it cannot be read, or is no regular file
    :raises ValueError: if it is larger
    """
    with open(file, "rb", opener=regular) as handle:
        content = handle.read(most + 1)
    _check_size(content, most)
    return content


def _check_size(content: bytes, most: int) -> None:
    if len(content) > most:
        raise ValueError(f"it has more than {most:,} bytes")


def read(file: Path, most: int = MAX_BYTES) -> Any:
    """
    A JSON file, with neither huge integers nor deep nesting.

    :param file: to be read
    :param most: bytes that it may have
    :raises OSError: if it cannot be read, or is no regular file
    :raises ValueError: if it is not JSON, or more than there should be
    """
    return parse(read_bytes(file, most), most)


def parse(content: bytes, most: int = MAX_BYTES) -> Any:
    """:raises ValueError: as :func:`read`"""
    _check_size(content, most)
    try:
        document = json.loads(content.decode("utf-8"), parse_int=_parse_int)
    except RecursionError:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep") from None
    level, depth = [document], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
        level = [inner for outer in level if isinstance(outer, (dict, list)) for inner in _inside(outer)]
    return document


def _parse_int(text: str) -> int | float:
    return int(text) if len(text) <= MAX_DIGITS else float(text)


def _inside(outer: dict[str, Any] | list[Any]) -> Any:
    return outer.values() if isinstance(outer, dict) else outer


# ---- values -----------------------------------------------------------------------------------------------------------


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_algorithm(value: Any) -> bool:
    """As rl-zoo3 names it; it is a part of files' names."""
    return isinstance(value, str) and len(value) <= 100 and re.fullmatch(r"[\w.-]+", value) is not None


def is_env(value: Any) -> bool:
    """As Gymnasium names it."""
    return isinstance(value, str) and len(value) <= 100 and re.fullmatch(r"([\w:-]+/)?[\w:.-]+", value) is not None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER


def _is_count(value: Any, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= MAX_COUNT


def _are(fits: Callable[[Any], bool], values: Any, least: int = 0, most: int = MAX_COUNT) -> bool:
    return isinstance(values, list) and least <= len(values) <= most and all(map(fits, values))


def _is_dict(value: Any, fits: Callable[[Any], bool], keys: Callable[[Any], bool] = _is_text) -> bool:
    return isinstance(value, dict) and all(map(keys, value)) and all(map(fits, value.values()))


def _has(value: Any, **kinds: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(fits(value.get(key)) for key, fits in kinds.items())


def _are_columns(value: Any, *keys: str) -> bool:
    """Steps in order and as many numbers of each, ``episodes`` being counts."""
    return (
        _has(value, step=lambda steps: _are(_is_count, steps, most=MAX_ROWS) and steps == sorted(steps))
        and all(_are(_is_count if key == "episodes" else _is_number, value.get(key)) for key in keys)
        and len({len(value[key]) for key in ("step", *keys)}) == 1
    )


def _is_job(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and is_algorithm(value[0]) and is_env(value[1]) and _is_count(value[2])


def _is_anything(value: Any) -> bool:
    return True


def check(document: Any, required: Table, optional: Table) -> None:
    """
    :param document: a file's content
    :param required: what it must hold
    :param optional: what it may hold; None counts as missing
    :raises ValueError: if it does not
    """
    if not isinstance(document, dict):
        raise ValueError(f"a dict was expected, got {type(document).__name__}")
    if missing := [key for key in required if key not in document]:
        raise ValueError(f"it has no {', '.join(missing)}")
    for key, (what, fits) in {**required, **optional}.items():
        value = document.get(key)
        if not fits(value) and not (key in optional and value is None):
            raise ValueError(f"{key} must be {what}, got {str(value)[:80]}")


# ---- files of a benchmark ---------------------------------------------------------------------------------------------

RESULT: Table = {
    "suite": ("a name", _is_text),
    "algorithm": ("a name", is_algorithm),
    "environment": ("a name", is_env),
    "seed": ("a count", _is_count),
    "steps": ("a count", _is_count),
    "scores": ("finite numbers", lambda value: _are(_is_number, value, least=1)),
    "evaluation": ("settings", lambda value: _has(value, epsilon=_is_number, **{"random actions from": _is_text})),
    "hyperparameters": ("a dict", lambda value: _is_dict(value, _is_anything)),
    "curve": ("columns of equal length", lambda value: _are_columns(value, "return", "episodes")),
    "versions": ("a dict of texts", lambda value: _is_dict(value, _is_text)),
    "machine": ("a dict with device", lambda value: _has(value, device=_is_text)),
    "time": ("a dict of seconds", lambda value: _has(value, training=_is_number, steps_per_second=_is_number)),
}
RESULT_OF_SOME: Table = {
    "hyperparameters_file": ("a name", _is_text),
    "prior": ("finite numbers", lambda value: _are(_is_number, value, least=1)),
    "history": ("columns of equal length", lambda value: _are_columns(value, "beta")),
    "action_names": ("names", lambda value: _are(_is_text, value)),
}
SUITE_FILE: Table = {
    "suite": ("a dict", lambda value: _is_dict(value, _is_anything)),
    "jobs": ("a list", lambda value: _are(_is_anything, value)),
}
SUITE: Table = {
    "name": ("a name", _is_text),
    "steps": (
        "numbers by environment",
        lambda value: _is_dict(value, lambda steps: _is_count(steps, least=1), is_env),
    ),
    "epsilon": ("a number between 0 and 1", lambda value: _is_number(value) and 0 <= value <= 1),
}
SUITE_DEFAULTS: Table = {
    "episodes": ("a count", lambda value: _is_count(value, least=1)),
    "algorithms": ("names", lambda value: _are(is_algorithm, value)),
    "seeds": ("a count", _is_count),
    "packages": ("names", lambda value: _are(_is_text, value)),
    "hyperparams": ("a dict", lambda value: _is_dict(value, _is_anything)),
    "own_hyperparams": ("dicts by algorithm", lambda value: _is_dict(value, lambda own: isinstance(own, dict), is_algorithm)),
    "extra": ("a name", _is_text),
    "tuning": ("texts by algorithm", lambda value: _is_dict(value, _is_text)),
}


def check_result(document: Any) -> None:
    """
    :param document: a result as its file holds it
    :raises ValueError: if it is not what a job writes, or has changed since
    """
    _check_format(document)
    check(document, RESULT, RESULT_OF_SOME)
    prior, names = document.get("prior"), document.get("action_names")
    if prior and names and len(prior) != len(names):
        raise ValueError(f"prior has {len(prior)} actions, action_names has {len(names)}")


def check_suite_file(document: Any) -> None:
    """
    :param document: ``suite.json`` as it is
    :raises ValueError: if it is not what :func:`sb3_mirl.bench.jobs.open_folder` writes, or has changed since
    """
    _check_format(document)
    check(document, SUITE_FILE, {})
    suite = document["suite"]
    if unknown := suite.keys() - SUITE.keys() - SUITE_DEFAULTS.keys():
        raise ValueError(f"the suite has unknown {', '.join(sorted(unknown))[:80]}")
    check(suite, SUITE, SUITE_DEFAULTS)
    for job in document["jobs"]:
        if not _is_job(job) or job[1] not in suite["steps"]:
            raise ValueError(f"jobs must be [algorithm, environment, seed], got {str(job)[:80]}")


def _check_format(document: Any) -> None:
    if isinstance(document, dict) and document.get("format") != FORMAT:
        raise ValueError(f"format {str(document.get('format'))[:80]} instead of {FORMAT}")
