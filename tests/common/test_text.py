"""Text that comes from outside can neither control the terminal nor stop a figure."""

import numpy as np
import pytest

from sb3_mirl.common.text import did_you_mean, plain_label, printable, printable_lines, shortened


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


def _drawn(text, **kwargs):
    pytest.importorskip("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3, 1))
    figure.text(0.1, 0.4, text, **kwargs)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


@pytest.mark.parametrize("text", ["up", "$x$", "$\\frac{$", "a\\$b", "\\$\\$$", "5$", "$$$$"])
def test_a_plain_label_is_drawn_character_by_character(text):
    assert np.array_equal(_drawn(plain_label(text)), _drawn(text, parse_math=False))


def test_a_plain_label_is_printable():
    assert plain_label("a\n\x1b$") == "a\\n\\x1b\\$"


def test_long_values_are_shortened():
    assert shortened([1, "a"]) == "[1, 'a']"
    assert shortened("x" * 300, length=5) == "'xxxx..."


@pytest.mark.parametrize(
    "given, known, hint",
    [
        ("clasic", ["classic", "minatar"], ", did you mean 'classic'?"),
        ("MIRL", ["mirl", "sql"], ", did you mean 'mirl'?"),
        ("cartpole-v1", ["CartPole-v0", "CartPole-v1"], ", did you mean 'CartPole-v1'?"),
        ("lr", ["learning_rate", "beta_lr"], ", did you mean 'learning_rate'?"),
        ("beta", ["beta_init", "beta_lr", "tau"], ", did you mean 'beta_init' or 'beta_lr'?"),
        ("zzz", ["mirl", "sql"], ""),
        ("", ["mirl", "sql"], ""),
        ("m", ["mirl", "sql"], ""),
        (3, ["mirl"], ""),
    ],
)
def test_the_nearest_name_is_suggested_whatever_its_case(given, known, hint):
    assert did_you_mean(given, known) == hint
