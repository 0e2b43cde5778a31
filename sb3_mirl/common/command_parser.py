"""Command lines in the manner of git, pip and uv: a short usage, defaults and examples in the help, errors in one line."""

import argparse
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from sb3_mirl.common.text import did_you_mean, printable

#: More options than this are not listed in the usage line
MAX_OPTIONS_IN_USAGE = 6
#: Largest number of characters of choices that are shown beside an option's name; longer lists are in its help
MAX_CHOICES_LENGTH = 30


class HelpFormatter(argparse.HelpFormatter):
    """
    Adds the default to the help of an option, if there is one and the help does not say it. A long list of choices is
    written once, in the help, and not in every place where the option is named.
    """

    def __init__(self, prog: str, **kwargs: Any) -> None:
        super().__init__(prog, **{"max_help_position": 30, **kwargs})

    def add_usage(
        self,
        usage: str | None,
        actions: Iterable[argparse.Action],
        groups: Iterable[Any],
        prefix: str | None = None,
    ) -> None:
        """As argparse; many options become ``[OPTION ...]``."""
        actions = list(actions)
        optional = [action for action in actions if action.option_strings and not action.required]
        if usage is None and len(optional) > MAX_OPTIONS_IN_USAGE:
            options = argparse.Action([], "options", nargs="*", metavar="OPTION")
            actions = [options, *(action for action in actions if action not in optional)]
        super().add_usage(usage, actions, groups, prefix)

    # argparse's own formatters override these

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if len(action.option_strings) < 2 or action.nargs == 0:
            return super()._format_action_invocation(action)
        return f"{', '.join(action.option_strings)} {self._format_args(action, action.dest.upper())}"

    def _metavar_formatter(self, action: argparse.Action, default_metavar: str) -> Any:
        if action.help and _has_long_choices(action) and action.metavar is None:
            return lambda size: (action.dest.upper(),) * size
        return super()._metavar_formatter(action, default_metavar)

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if _has_long_choices(action) and action.metavar is None:
            assert action.choices is not None
            text += f": {', '.join(map(str, action.choices)).replace('%', '%%')}"
        default = action.default
        said = not action.option_strings or action.nargs == 0 or "default" in text.lower()
        if said or default is None or default is argparse.SUPPRESS or default in ("", []):
            return text
        value = " ".join(map(str, default)) if isinstance(default, (list, tuple)) else str(default)
        return f"{text} (default: {value.replace('%', '%%')})".lstrip()


def _has_long_choices(action: argparse.Action) -> bool:
    choices = action.choices
    # A dict holds parsers of sub-commands
    return choices is not None and not isinstance(choices, dict) and len(",".join(map(str, choices))) > MAX_CHOICES_LENGTH


class CommandParser(argparse.ArgumentParser):
    """
    An ``ArgumentParser`` whose help ends with examples, and whose errors are one line that names the nearest valid name.

    :param arguments: of ``ArgumentParser``
    :param examples: what each example does, and its command line
    :param kwargs: of ``ArgumentParser``
    """

    def __init__(self, *arguments: Any, examples: Sequence[tuple[str, str]] = (), **kwargs: Any) -> None:
        super().__init__(*arguments, **{"formatter_class": HelpFormatter, **kwargs})
        self.examples = examples

    def format_help(self) -> str:
        """The help, with the examples."""
        lines = [f"  # {what}\n  {command}\n" for what, command in self.examples]
        return super().format_help() + "".join(["\nexamples:\n", *lines] if lines else [])

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As in argparse, but unknown arguments are errors here, so that the message names the sub-command's options."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            options = [argument for argument in unknown if argument.startswith("-")] or unknown
            known = self._option_string_actions if options[0].startswith("-") else ()
            kind = "option" if options[0].startswith("-") else "argument"
            name = options[0].partition("=")[0] if known else options[0]
            hint = did_you_mean(name, known) or f": {self.prog} --help lists all"
            self.error(f"unknown {kind} {name}{hint}")
        return parsed, unknown

    def error(self, message: str) -> NoReturn:
        """Print one line, without the usage, and exit with status 2."""
        self.exit(2, f"{self.prog}: error: {printable(message)}\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            names = [str(choice) for choice in action.choices]
            hint = did_you_mean(value, names)
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}{hint} (choose from {', '.join(names)})")
