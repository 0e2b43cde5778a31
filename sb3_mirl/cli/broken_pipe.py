"""Commands whose output goes into a pipe that the reader has closed."""

import functools
import io
import os
import select
import sys
from collections.abc import Callable
from typing import ParamSpec, TextIO

Arguments = ParamSpec("Arguments")

#: Exit status that a shell reports for a program ended by SIGPIPE
ENDED_BY_SIGPIPE = 128 + 13


def exit_quietly_on_broken_pipe(command: Callable[Arguments, int]) -> Callable[Arguments, int]:
    """
    A command that ends without a traceback when the reader of its output has closed the pipe, as ``| head`` does.

    :param command: returns an exit status
    :return: the same command, whose exit status is then :data:`ENDED_BY_SIGPIPE`
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
                if sys.stdout is not None:  # closed by `>&-`
                    sys.stdout.flush()  # else Python flushes at its end, too late to catch an error
        except BrokenPipeError:
            # Another pipe may have broken, such as that of a worker process
            without_reader = [_has_no_reader(stream) for stream in (sys.stdout, sys.stderr) if stream is not None]
            if not any(without_reader):
                raise
            return ENDED_BY_SIGPIPE

    return wrapped


def _has_no_reader(stream: TextIO) -> bool:
    """Whether a stream is a pipe without a reader. If so, its remaining output is discarded."""
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
