"""The arguments of constructors that pass ``*args`` and ``**kwargs`` on to parent classes."""

import inspect
from collections.abc import Iterable, Iterator

from sb3_mirl.common.text import did_you_mean


def constructor_signature(cls: type) -> inspect.Signature:
    """The arguments of a class, with those that its ``*args`` and ``**kwargs`` pass to parent classes."""
    parameters: dict[str, inspect.Parameter] = {}
    for base in reversed(cls.__mro__):
        if "__init__" not in vars(base):
            continue
        _, *own = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
        kinds = {parameter.kind for parameter in own}
        named = {p.name: p for p in own if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
        inherited = {name: p for name, p in parameters.items() if name not in named}
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            inherited = {}
        elif inspect.Parameter.VAR_POSITIONAL not in kinds:
            inherited = {name: p.replace(kind=p.KEYWORD_ONLY) for name, p in inherited.items()}
        parameters = {**named, **inherited}
    return inspect.Signature(sorted(_in_valid_order(parameters.values()), key=lambda parameter: parameter.kind))


def _in_valid_order(parameters: Iterable[inspect.Parameter]) -> Iterator[inspect.Parameter]:
    """
    Python refuses positional arguments without a default after one with a default: those are shown as keyword-only, with all
    that follow.
    """
    optional = keyword_only = False
    for parameter in parameters:
        if parameter.kind is not parameter.KEYWORD_ONLY:
            required = parameter.default is parameter.empty
            keyword_only = keyword_only or (optional and required)
            optional = optional or not required
        yield parameter.replace(kind=parameter.KEYWORD_ONLY) if keyword_only else parameter


def refuse_unknown_arguments(cls: type, unknown: Iterable[str]) -> None:
    """
    :param cls: with a constructor
    :param unknown: names of arguments that it was given and does not have
    :raises TypeError: if there are any
    """
    for name in unknown:
        known = [known for known in constructor_signature(cls).parameters if not known.startswith("_")]
        remedy = did_you_mean(name, known) or f": help({cls.__name__}) shows those that it has"
        raise TypeError(f"{cls.__name__}() got an unexpected keyword argument {name!r}{remedy}")
