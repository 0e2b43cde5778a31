"""Text from files, environments and exceptions, made safe to print and to draw."""


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
