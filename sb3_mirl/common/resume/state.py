"""
Captures the state of environments and callbacks as plain data, and restores it into objects that were created alike.

:func:`capture` walks over an object's attributes and copies numbers, texts, arrays, random generators, containers, networks,
objects of Python classes, and the state of Atari's emulator by value. :func:`restore` puts these values into another object of
the same classes, in place. Nothing is pickled, and the file cannot choose code to run. Pickles of environments would be
unsafe, and also wrong, because Gymnasium's ``EzPickle`` creates a new environment.

What cannot be read (the memory of a C library, a running generator) is left out and reported by name, when the state is
captured and when it is restored. Neither raises an error because of it.
"""

from collections.abc import Mapping
from typing import Any

from sb3_mirl.common.resume import kinds_environments, kinds_objects, kinds_values
from sb3_mirl.common.resume.classes import qualified_name
from sb3_mirl.common.resume.walk import Capture, Restore, State

__all__ = ["State", "capture", "restore"]


def capture(root: Any, own: Mapping[str, Any] | None = None) -> State:
    """
    The state of an object and of all that it refers to.

    :param root: an environment, or a dict of values by name; each value is captured completely or left out
    :param own: objects of the program by name, such as the model of the run: only their names are written
    """
    walk = Capture(_KINDS, own or {})
    try:
        if type(root) is dict:
            tree = {"is": "entries", "entries": walk.complete_values(root.items(), "")}
        else:
            tree = walk.value(root, "")
    except RecursionError:
        return State({"is": "missing"}, [], [f"it ({qualified_name(type(root))}, nested too deeply)"])
    return State(tree, walk.arrays, walk.missing)


def restore(root: Any, state: State, own: Mapping[str, Any] | None = None) -> Any:
    """
    Put a state into an object that was made like the captured one.

    :param root: is changed in place
    :param state: from :func:`capture`. What cannot be restored is added to its ``missing``, and stays unchanged in ``root``
    :param own: the objects of the program that take the place of the captured ones, by name
    :return: ``root``, or what takes its place if it cannot be changed
    :raises StateMismatch: if the object has other environments than the captured one
    :raises UnknownClass: if ``root``, which is neither a dict nor an environment, cannot be restored
    """
    walk = Restore(_KINDS, state, root, own or {})
    if type(root) is dict and state.tree["is"] == "entries":
        for name, value in walk.complete_values(state.tree["entries"], dict(root), ""):
            root[name] = value
    else:
        root = walk.value(state.tree, root, "")
    walk.check_references()
    return root


#: The first kind that accepts an object captures it: the general ones come last
_KINDS = (
    *kinds_values.KINDS,
    *kinds_environments.KINDS,
    kinds_environments.workers(capture, restore),
    *kinds_objects.KINDS,
)
