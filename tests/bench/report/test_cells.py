"""Texts of numbers on the page."""

import pytest

from sb3_mirl.bench.report.cells import duration, estimate, number


@pytest.mark.parametrize(
    "value, text",
    [
        (26102.4, "26,102"),
        (-137.25, "−137.2"),
        (40.23, "40.23"),
        (0.0, "0.00"),
        (-0.0123, "−0.012"),
        (0.00049, "0.00049"),
        (-0.0002, "−0.00020"),
    ],
)
def test_number_has_significant_digits_and_a_minus_sign(value, text):
    assert number(value) == text


def test_estimate_without_interval_has_no_note():
    row = {"value": 0.5, "low": 0.25, "high": 0.75}
    assert [note.text for note in estimate(row, 100.0).notes] == ["[25.00, 75.00]"]
    assert estimate(row | {"low": float("nan")}).notes == ()


@pytest.mark.parametrize("seconds, text", [(90.0, "90.0 s"), (150.0, "2.5 min"), (9000.0, "2.5 h")])
def test_duration_has_a_readable_unit(seconds, text):
    assert duration(seconds) == text
