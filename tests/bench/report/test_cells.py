"""Texts of numbers on the page."""

import pytest

from sb3_mirl.bench.report.cells import number


@pytest.mark.parametrize(
    "value, text", [(26102.4, "26,102"), (-137.25, "−137.2"), (40.23, "40.23"), (0.0, "0.00"), (-0.0123, "−0.012")]
)
def test_number_has_significant_digits_and_a_minus_sign(value, text):
    assert number(value) == text
