"""Finds, for each captured environment, the environment into which it is restored."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from sb3_mirl.common.resume.classes import ENVIRONMENTS, IMMUTABLE, attributes, is_instance, is_python_object, qualified_name


def pair_environments(tree: Any, root: Any, node_of: Callable[[int], dict[str, Any]]) -> dict[int, Any]:
    """
    Pair environments that may be in several places, for example in a list and as the active one of that list. The object to be
    restored may have another active one, so that a place alone does not say which environment is meant.

    :param tree: of the captured object
    :param root: the object to be restored
    :param node_of: the node with a number
    :return: the environment of ``root`` for each captured one, by the number of its node
    """
    candidates: dict[int, list[Any]] = {}
    items: dict[int, list[Any]] = {}
    pending, done = [(tree, root, False)], set()
    while pending:
        node, value, is_item = pending.pop()
        node = node_of(node["id"]) if node["is"] == "same" else node
        if is_instance(value, ENVIRONMENTS) and node.get("class") == qualified_name(type(value)):
            (items if is_item else candidates).setdefault(node["id"], []).append(value)
        if (node.get("id"), id(value)) in done:
            continue
        done.add((node.get("id"), id(value)))
        in_container = type(value) in (list, tuple, dict)
        pending += [(child, part, in_container) for child, part in _parts(node, value) if isinstance(child, dict)]
    # Items of containers come first, because an attribute may refer to any of several environments. Captured environments
    # with fewer candidates come before those with more
    pairs: dict[int, Any] = {}
    taken: set[int] = set()
    found = [(number, values) for group in (items, candidates) for number, values in sorted(group.items(), key=_n_values)]
    for number, values in found:
        free = [value for value in values if number not in pairs and id(value) not in taken]
        if free:
            pairs[number] = free[0]
            taken.add(id(free[0]))
    return pairs


def _n_values(item: tuple[int, list[Any]]) -> int:
    return len({id(value) for value in item[1]})


def _parts(node: dict[str, Any], value: Any) -> Iterator[tuple[Any, Any]]:
    """The nodes in a node, and the objects in their places."""
    if type(value) in (list, tuple) and isinstance(node.get("items"), (list, tuple)):
        yield from zip(node["items"], value, strict=False)
    elif type(value) is dict and "pairs" in node:
        yield from ((item, value.get(key)) for key, item in node["pairs"] if type(key) in IMMUTABLE)
    elif type(value) is dict and "entries" in node:
        yield from ((item, value.get(name)) for name, item in node["entries"].items())
    elif "attributes" in node and is_python_object(value):
        with contextlib.suppress(Exception):  # raised by code of the object
            before = dict(attributes(value))
            yield from ((item, before.get(name)) for name, item in node["attributes"].items())
