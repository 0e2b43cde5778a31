"""Figures of ``sb3-mirl gridworld``."""

from sb3_mirl.bench.gridworld_figures import COLORS
from sb3_mirl.bench.suites import label
from sb3_mirl.tabular.learners import TABULAR_ALGORITHMS


def test_every_tabular_algorithm_has_a_label_and_a_colour():
    assert list(TABULAR_ALGORITHMS) == list(COLORS)
    assert [label(name) for name in TABULAR_ALGORITHMS] == ["QL", "SQL", "SQL_m", "MIRL"]
