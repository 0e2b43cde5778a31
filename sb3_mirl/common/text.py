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
    :return: ``", did you mean 'x'?"`` with the names whose first word or initials are ``given``, otherwise with the most
        similar name; case does not matter. Empty if no name is similar
    """
    by_lower_case, text = {name.lower(): name for name in known}, str(given).lower()
    close = [name for name in by_lower_case if name.startswith(f"{text}_")]
    if not close and len(text) > 1:
        close = [name for name in by_lower_case if text == "".join(word[:1] for word in name.split("_"))]
    close = close or difflib.get_close_matches(text, by_lower_case, n=1)
    return f", did you mean {' or '.join(repr(by_lower_case[name]) for name in close)}?" if close else ""
