"""
Validation of the files in a benchmark's folder. A folder may come from anywhere, so each file is read by :func:`read` and
validated by :func:`check_result` or :func:`check_suite_file` before it is used.

A :data:`Table` has, by key, a description of the accepted values and a predicate.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sb3_mirl.common.files import open_regular

FORMAT = 1
#: Largest accepted result file; results take up to 100 kB
MAX_BYTES = 4 * 2**20
#: Largest accepted ``suite.json``, which takes 60 bytes for each job
MAX_SUITE_BYTES = 16 * 2**20
#: Deepest accepted nesting of lists and dicts
MAX_DEPTH = 50
#: Rows of a learning curve or of the history of β
MAX_ROWS = 1000
MAX_COUNT = 10**12
#: Sums and squares of such numbers are finite
MAX_NUMBER = 1e100
#: Digits of an integer that fits into NumPy's int64
MAX_DIGITS = 18

Predicate = Callable[[Any], bool]
Table = dict[str, tuple[str, Predicate]]


# ---- files ------------------------------------------------------------------------------------------------------------


def read_bytes(file: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """
    :param file: to be read
    :param max_bytes: largest accepted size
    :raises OSError: if the file cannot be read, or is not a regular file
    :raises ValueError: if it is larger
    """
    with open(file, "rb", opener=open_regular) as handle:
        content = handle.read(max_bytes + 1)
    _check_size(content, max_bytes)
    return content


def read(file: Path, max_bytes: int = MAX_BYTES) -> Any:
    """
    Read a JSON file without huge integers or deep nesting.

    :param file: to be read
    :param max_bytes: largest accepted size
    :raises OSError: if the file cannot be read, or is not a regular file
    :raises ValueError: if it is not JSON, too large, or nested too deeply
    """
    return parse(read_bytes(file, max_bytes), max_bytes)


def parse(content: bytes, max_bytes: int = MAX_BYTES) -> Any:
    """The JSON document in ``content``, with the limits and errors of :func:`read`."""
    _check_size(content, max_bytes)
    try:
        document = json.loads(content.decode("utf-8"), parse_int=_parse_int)
    except RecursionError:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep") from None
    if _depth(document) > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    return document


def _check_size(content: bytes, max_bytes: int) -> None:
    if len(content) > max_bytes:
        raise ValueError(f"it has more than {max_bytes:,} bytes")


def _parse_int(text: str) -> int | float:
    return int(text) if len(text) <= MAX_DIGITS else float(text)


def _depth(document: Any) -> int:
    """Without recursion; stops beyond :data:`MAX_DEPTH`."""
    level, depth = [document], 0
    while level and depth <= MAX_DEPTH:
        depth += 1
        containers = [item for item in level if isinstance(item, (dict, list))]
        level = [inner for item in containers for inner in (item.values() if isinstance(item, dict) else item)]
    return depth


# ---- values -----------------------------------------------------------------------------------------------------------


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_algorithm(value: Any) -> bool:
    """Whether it may be a name of rl-zoo3's; names of algorithms are parts of file names."""
    return isinstance(value, str) and len(value) <= 100 and re.fullmatch(r"[\w.-]+", value) is not None


def is_env(value: Any) -> bool:
    """Whether it may be an id of Gymnasium's."""
    return isinstance(value, str) and len(value) <= 100 and re.fullmatch(r"([\w:-]+/)?[\w:.-]+", value) is not None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT


def _is_positive(value: Any) -> bool:
    return _is_count(value) and value > 0


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value))


def _list_of(fits: Predicate, min_length: int = 0) -> Predicate:
    return lambda value: isinstance(value, list) and len(value) >= min_length and all(map(fits, value))


def _dict_of(fits: Predicate, keys: Predicate = _is_text) -> Predicate:
    return lambda value: isinstance(value, dict) and all(map(keys, value)) and all(map(fits, value.values()))


def _dict_with(kinds: dict[str, Predicate]) -> Predicate:
    return lambda value: isinstance(value, dict) and all(fits(value.get(key)) for key, fits in kinds.items())


def _columns(kinds: dict[str, Predicate]) -> Predicate:
    """Steps in ascending order, and columns of the same length."""
    are_lists = _dict_with({"step": _list_of(_is_count), **{key: _list_of(fits) for key, fits in kinds.items()}})
    return lambda value: (
        are_lists(value)
        and len({len(value[key]) for key in ("step", *kinds)}) == 1
        and len(value["step"]) <= MAX_ROWS
        and value["step"] == sorted(value["step"])
    )


def _is_job(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and is_algorithm(value[0]) and is_env(value[1]) and _is_count(value[2])


def check(document: Any, required: Table, optional: Table) -> None:
    """
    :param document: content of a file
    :param required: keys that it must have
    :param optional: keys that it may have; None counts as missing
    :raises ValueError: if the document is not valid
    """
    if not isinstance(document, dict):
        raise ValueError(f"a dict was expected, got {type(document).__name__}")
    if missing := [key for key in required if key not in document]:
        raise ValueError(f"it has no {', '.join(missing)}")
    for key, (description, fits) in {**required, **optional}.items():
        value = document.get(key)
        if not fits(value) and not (key in optional and value is None):
            raise ValueError(f"{key} must be {description}, got {str(value)[:80]}")


# ---- the files of a benchmark -----------------------------------------------------------------------------------------

RESULT: Table = {
    "suite": ("a name", _is_text),
    "algorithm": ("a name", is_algorithm),
    "environment": ("a name", is_env),
    "seed": ("a count", _is_count),
    "steps": ("a count", _is_count),
    "scores": ("finite numbers", _list_of(_is_number, min_length=1)),
    "evaluation": ("settings", _dict_with({"epsilon": _is_number, "random actions from": _is_text})),
    "hyperparameters": ("a dict", _is_dict),
    "curve": ("columns of equal length", _columns({"return": _is_number, "episodes": _is_count})),
    "versions": ("a dict of texts", _dict_of(_is_text)),
    "machine": ("a dict with device", _dict_with({"device": _is_text})),
    "time": ("a dict of seconds", _dict_with({"training": _is_number, "steps_per_second": _is_number})),
}
#: Depends on the algorithm and the environment
RESULT_OPTIONAL: Table = {
    "hyperparameters_file": ("a name", _is_text),
    "prior": ("finite numbers", _list_of(_is_number, min_length=1)),
    "history": ("columns of equal length", _columns({"beta": _is_number})),
    "action_names": ("names", _list_of(_is_text)),
    "trained_jointly": ("a number of runs", _is_positive),
}
SUITE_FILE: Table = {"suite": ("a dict", _is_dict), "jobs": ("a list", lambda value: isinstance(value, list))}
SUITE: Table = {
    "name": ("a name", _is_text),
    "steps": ("numbers by environment", _dict_of(_is_positive, is_env)),
    "epsilon": ("a number between 0 and 1", lambda value: _is_number(value) and 0 <= value <= 1),
}
SUITE_OPTIONAL: Table = {
    "episodes": ("a count", _is_positive),
    "algorithms": ("names", _list_of(is_algorithm)),
    "seeds": ("a count", _is_count),
    "packages": ("names", _list_of(_is_text)),
    "hyperparams": ("a dict", _is_dict),
    "env_kwargs": ("a dict", _is_dict),
    "own_hyperparams": ("dicts by algorithm", _dict_of(lambda value: isinstance(value, dict), is_algorithm)),
    "extra": ("a name", _is_text),
    "tuning": ("texts by algorithm", _dict_of(_is_text)),
}


def check_result(document: Any) -> None:
    """
    :param document: content of a result file
    :raises ValueError: if it is not what a job writes
    """
    _check_format(document)
    check(document, RESULT, RESULT_OPTIONAL)
    prior, names = document.get("prior"), document.get("action_names")
    if prior and names and len(prior) != len(names):
        raise ValueError(f"prior has {len(prior)} actions, action_names has {len(names)}")


def check_suite_file(document: Any) -> None:
    """
    :param document: content of ``suite.json``
    :raises ValueError: if it is not what :func:`sb3_mirl.bench.jobs.open_folder` writes
    """
    _check_format(document)
    check(document, SUITE_FILE, {})
    suite = document["suite"]
    if unknown := suite.keys() - SUITE.keys() - SUITE_OPTIONAL.keys():
        raise ValueError(f"the suite has unknown {', '.join(sorted(unknown))[:80]}")
    check(suite, SUITE, SUITE_OPTIONAL)
    for job in document["jobs"]:
        if not _is_job(job) or job[1] not in suite["steps"]:
            raise ValueError(f"jobs must be [algorithm, environment, seed], got {str(job)[:80]}")


def _check_format(document: Any) -> None:
    if isinstance(document, dict) and document.get("format") != FORMAT:
        raise ValueError(f"format {str(document.get('format'))[:80]} instead of {FORMAT}")
