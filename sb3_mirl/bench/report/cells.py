"""The contents of tables and figures on the page: numbers as text, cells, tables, images."""

import base64
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from sb3_mirl.bench.report.content import Row


@dataclass(frozen=True)
class Note:
    """A small text below the text of a cell."""

    text: str
    marked: bool = False


@dataclass(frozen=True)
class Cell:
    """A text with notes below it."""

    text: str = ""
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class Table:
    """
    :param caption: of the table
    :param header: one text for each column
    :param rows: of texts and :class:`Cell`; the first in each is its header
    :param groups: headings over several columns: text and number of columns
    :param foot: rows at the end, such as means
    :param words: columns that hold sentences, which are broken into lines and aligned left
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    groups: Sequence[tuple[str, int]] = ()
    foot: Sequence[Sequence[Any]] = ()
    words: Sequence[int] = ()


@dataclass(frozen=True)
class Figure:
    """
    :param image: as PNG
    :param alt: describes the image to readers who do not see it
    :param caption: below the image
    """

    image: bytes
    alt: str
    caption: str

    @property
    def base64(self) -> Markup:
        """The image in base64."""
        # Markup, because base64 needs no escaping
        return Markup(base64.b64encode(self.image).decode("ascii"))


def number(value: float) -> str:
    """Three or four significant digits, fewer below 0.1, with a minus sign."""
    size = abs(value)
    digits = 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 0.1 or size == 0 else 3
    if 0 < size < 0.001:
        digits = 1 - math.floor(math.log10(size))
    return f"{value:,.{digits}f}".replace("-", "−")


def value_and_interval(row: Row, factor: float = 1.0, prefix: str = "") -> tuple[str, str]:
    """
    :param row: with ``value``, ``low`` and ``high``
    :param factor: by which they are multiplied
    :param prefix: of their names
    :return: texts of the value and its interval; the latter is empty if there is none
    """
    value, low, high = (factor * row[prefix + key] for key in ("value", "low", "high"))
    return number(value), "" if np.isnan(low) else f"[{number(low)}, {number(high)}]"


def estimate(row: Row, factor: float = 1.0, prefix: str = "", notes: Iterable[Note] = ()) -> Cell:
    """As :func:`value_and_interval`; the interval and ``notes`` are below the value."""
    value, interval = value_and_interval(row, factor, prefix)
    return Cell(value, (*([Note(interval)] if interval else []), *notes))


def at_least(value: float) -> str:
    """``≥ 0.69``, or ``none`` for NaN."""
    return "none" if np.isnan(value) else f"≥ {number(value)}"


def missing(text: str) -> Cell:
    """A marked cell that says what is missing."""
    return Cell(notes=(Note(text, marked=True),))


def plural(count: int, noun: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """In seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
