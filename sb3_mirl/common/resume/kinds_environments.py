"""What environments consist of besides Python objects: spaces, monitor files, Atari emulators, worker processes."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from stable_baselines3.common.monitor import ResultsWriter
from stable_baselines3.common.vec_env import SubprocVecEnv

from sb3_mirl.common.resume.classes import attributes, is_in_modules, is_instance, qualified_name
from sb3_mirl.common.resume.logs import replace_content
from sb3_mirl.common.resume.run_state import cpu_random_states, set_random_states
from sb3_mirl.common.resume.walk import Capture, Kind, Restore, State, StateMismatch, instances


def _describe(space: spaces.Space) -> str:
    return qualified_name(type(space)) if type(space).__repr__ is object.__repr__ else repr(space)


def _capture_space(walk: Capture, value: spaces.Space, path: str) -> dict[str, Any]:
    # Everything else of a space seldom changes, and is large for images
    names = [name for name in ("_np_random", "spaces") if name in vars(value)]
    return {"space": _describe(value), "attributes": walk.all_values([(name, vars(value)[name]) for name in names], path)}


def _restore_space(walk: Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    if not is_instance(old, spaces.Space) or _describe(old) != node["space"]:
        raise walk.unknown(path, f"the space {node['space']}, which is another one here")
    walk.register(node, old)
    vars(old).update(walk.all_values(node["attributes"], vars(old), path))
    return old


def _capture_file(walk: Capture, value: ResultsWriter, path: str) -> dict[str, Any]:
    value.file_handler.flush()
    with open(value.file_handler.name, "rb") as file:
        return {"content": walk.store(file.read())}


def _restore_file(walk: Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    if is_instance(old, ResultsWriter):  # it has opened the file anew
        replace_content(old.file_handler, walk.arrays[node["content"]].tobytes())
    return walk.register(node, old)


def _is_emulator(value: Any) -> bool:
    return is_in_modules(type(value), ("ale_py",)) and hasattr(value, "cloneSystemState")


def _capture_emulator(walk: Capture, value: Any, path: str) -> dict[str, Any]:
    return {"content": walk.store(value.cloneSystemState().__getstate__())}


def _restore_emulator(walk: Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    import ale_py

    if not _is_emulator(old):
        raise walk.mismatch(path, "an Atari emulator", f"a {qualified_name(type(old))}")
    state = ale_py.ALEState.__new__(ale_py.ALEState)
    state.__setstate__(walk.arrays[node["content"]].tobytes())
    old.restoreSystemState(state)
    return walk.register(node, old)


class _StateMethods:
    """
    ``SubprocVecEnv`` can only call methods of its environments. Unpickling this object in a worker process adds
    ``capture_state`` and ``restore_state_`` to ``gymnasium.Env`` there; the main process is not changed. (SB3 2.9.2)
    """

    def __init__(self, capture: Callable[..., State], restore: Callable[..., Any]) -> None:
        self.functions = capture, restore

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Any, ...]]:
        return _add_state_methods, self.functions


def _add_state_methods(capture: Callable[..., State], restore: Callable[..., Any]) -> None:
    def capture_all(env: gym.Env) -> tuple[State, State]:
        return capture(env), capture(cpu_random_states())

    def restore_and_report(env: gym.Env, state: State, random: State) -> tuple[StateMismatch | None, list[str]]:
        # An exception would end the worker process without a message in the main process
        try:
            restore(env, state)
        except StateMismatch as error:
            return error, []
        set_random_states(restore(cpu_random_states(), random))
        return None, state.missing

    gym.Env.capture_state = capture_all  # type: ignore[attr-defined]
    gym.Env.restore_state_ = restore_and_report  # type: ignore[attr-defined]


def workers(capture: Callable[..., State], restore: Callable[..., Any]) -> Kind:
    """Make the kind for ``SubprocVecEnv``: its worker processes capture and restore environments and global generators."""

    def capture_workers(walk: Capture, value: SubprocVecEnv, path: str) -> dict[str, Any]:
        value.set_attr("_sb3_mirl", _StateMethods(capture, restore))
        children: list[list[dict[str, Any]]] = []
        for index, states in enumerate(value.env_method("capture_state")):
            walk.missing += [f"{path}.envs[{index}].{name}".lstrip(".") for name in states[0].missing]
            children.append([])  # states of the environment and of the generators
            for state in states:
                children[-1].append({"tree": state.tree, "first": len(walk.arrays), "count": len(state.arrays)})
                walk.arrays += state.arrays
        walk.reported = len(walk.missing)
        # Among them seeds and options, which SB3 passes to the next reset, and the generator of the action space
        return {"children": children, "attributes": walk.complete_values(attributes(value), path)}

    def restore_workers(walk: Restore, node: dict[str, Any], old: Any, path: str) -> Any:
        if not is_instance(old, SubprocVecEnv) or old.num_envs != len(node["children"]):
            raise walk.mismatch(path, f"a SubprocVecEnv of {len(node['children'])}", f"a {old}")
        old.set_attr("_sb3_mirl", _StateMethods(capture, restore))
        for index, children in enumerate(node["children"]):
            place_of_env = f"{path}.envs[{index}]".lstrip(".")
            ranges = [slice(child["first"], child["first"] + child["count"]) for child in children]
            states = [State(child["tree"], walk.arrays[part], []) for child, part in zip(children, ranges, strict=True)]
            error, missing = old.env_method("restore_state_", *states, indices=[index])[0]
            if error is not None:
                raise walk.mismatch(f"{path}.envs[{index}]", "an environment", f"another one: {error}")
            walk.missing += [f"{place_of_env}: {name}" for name in missing]
        walk.register(node, old)
        vars(old).update(walk.complete_values(node["attributes"], vars(old), path))
        return old

    return Kind("workers", instances(SubprocVecEnv), capture_workers, restore_workers)


KINDS = (
    Kind("file", instances(ResultsWriter), _capture_file, _restore_file),
    Kind("emulator", _is_emulator, _capture_emulator, _restore_emulator),
    Kind("space", instances(spaces.Space), _capture_space, _restore_space),
)
