"""Commands whose output may go into a pipe that nobody reads any more."""

import functools
import io
import os
import select
import sys
from collections.abc import Callable
from typing import ParamSpec, TextIO

Arguments = ParamSpec("Arguments")

#: What a shell reports of a program that this signal ended
ENDED_BY_SIGPIPE = 128 + 13


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
            if not any([_has_no_reader(stream) for stream in (sys.stdout, sys.stderr)]):
                raise
            return ENDED_BY_SIGPIPE

    return wrapped


def _has_no_reader(stream: TextIO) -> bool:
    """Whether a stream is a pipe that nobody reads. If so, what is still to be written to it is thrown away."""
    if not hasattr(select, "poll"):  # Windows, where a broken pipe is another error
        return False
    poll = select.poll()
    try:
        poll.register(stream.fileno(), 0)
    except io.UnsupportedOperation:  # no file
        return False
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return True
