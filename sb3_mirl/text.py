"""Text from files, environments and exceptions, made safe to print and to draw; and commands whose reader may leave."""

import functools
import io
import os
import select
import signal
import sys
from collections.abc import Callable
from typing import ParamSpec, TextIO

Arguments = ParamSpec("Arguments")


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


def quiet_without_reader(command: Callable[Arguments, int]) -> Callable[Arguments, int]:
    """
    A command that ends without a traceback when nobody reads its output any more, as behind ``| head``.

    :param command: returns an exit status
    :return: the same; its status is then that of a program which SIGPIPE ended
    """

    @functools.wraps(command)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> int:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # where a terminal's encoding lacks a character
        try:
            try:
                return command(*args, **kwargs)
            finally:
                sys.stdout.flush()  # or Python would at its end, too late to catch an error
        except BrokenPipeError:
            # Another pipe may have broken, such as that of a worker process
            if not any([*map(_has_no_reader, (sys.stdout, sys.stderr))]):
                raise
            return 128 + signal.SIGPIPE

    return wrapped


def _has_no_reader(stream: TextIO) -> bool:
    """Whether a stream is a pipe that nobody reads. What is still to be written is then thrown away: Python would try again."""
    poll = select.poll()
    try:
        poll.register(stream.fileno(), 0)
    except io.UnsupportedOperation:  # no file
        return False
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return True
