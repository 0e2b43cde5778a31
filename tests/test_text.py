"""Text that comes from outside cannot control the terminal."""

import pytest

from sb3_mirl.text import printable, printable_lines


@pytest.mark.parametrize(
    "text, expected",
    [
        ("β = 1", "β = 1"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("a\r\nb", "a\\r\\nb"),
        ("right\u202eleft", "right\\u202eleft"),
        ("\udc80", "\\udc80"),
        (ValueError("\x9b2J"), "\\x9b2J"),
    ],
)
def test_printable_shows_what_would_control_a_terminal(text, expected):
    assert printable(text) == expected


def test_printable_lines_keeps_line_breaks_only():
    assert printable_lines("a\n\x1b]0;b\t\nc") == "a\n\\x1b]0;b\\t\nc"
