"""Text from files, environments and exceptions, made safe to print and to draw; and names that were misspelt."""

import difflib
from collections.abc import Iterable


def printable(text: object) -> str:
    """
    One line that cannot control a terminal: escape sequences, line breaks and invisible characters are shown as ``\\x1b`` etc.

    :param text: from a file, an environment or an exception
    """
    return "".join(character if character.isprintable() else _escaped(character) for character in str(text))


def printable_lines(text: object) -> str:
    """
    :func:`printable` for each line, such as those of a traceback.

    :param text: from a file, an environment or an exception
    """
    return "\n".join(map(printable, str(text).split("\n")))


def plain_label(text: object) -> str:
    """
    :func:`printable` for a figure: matplotlib draws each ``$`` as it is, and not as the beginning of a formula.

    :param text: from a file, an environment or an exception
    """
    return printable(text).replace("$", r"\$")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def shortened(value: object, length: int = 200) -> str:
    """The ``repr`` of a value from a file, cut to ``length`` characters, for an error message."""
    text = repr(value)
    return text if len(text) <= length else text[:length] + "..."


def did_you_mean(given: object, known: Iterable[str]) -> str:
    """
    :param given: a name that is not one of ``known``
    :param known: the names that are accepted
    :return: ``", did you mean 'x'?"`` with the nearest of them, whatever its case; empty if none is near
    """
    by_lower_case = {name.lower(): name for name in known}
    close = difflib.get_close_matches(str(given).lower(), by_lower_case, n=1)
    return f", did you mean {by_lower_case[close[0]]!r}?" if close else ""
