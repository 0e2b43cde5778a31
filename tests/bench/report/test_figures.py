"""Figures of a report."""

import pytest
from bench_reports import table
from bench_results import CLASSIC, write_result
from matplotlib import image, pyplot

from sb3_mirl.bench.jobs import Job, open_folder
from sb3_mirl.bench.report.aggregates import useless_action_rows
from sb3_mirl.bench.report.claims import claim_rows
from sb3_mirl.bench.report.content import read
from sb3_mirl.bench.report.figures import draw
from sb3_mirl.bench.report.tables import TABLES
from sb3_mirl.bench.report.write import write_report


def test_figures_are_also_png_files(classic):
    names = {file.stem for file in (classic / "report").glob("*.png")}
    assert names == {"aggregates", "profiles", "efficiency", "improvement"} | {
        f"{kind}_{env}" for kind in ("curve", "prior", "beta") for env in CLASSIC.steps
    }
    assert (classic / "report" / "aggregates.png").read_bytes().startswith(b"\x89PNG")


def test_figure_by_number_of_useless_actions(useless, monkeypatch):
    bench, drawn = read(useless), []
    tables = {name: [] for name in TABLES} | {"useless_actions": useless_action_rows(bench), "claims": claim_rows(bench)}
    close = pyplot.close
    monkeypatch.setattr(pyplot, "close", lambda figure: (drawn.append(figure), close(figure)))
    assert set(draw(bench, tables)) == {"useless_actions", "advantage"}
    (axis,), (advantage,) = (figure.axes for figure in drawn)
    lines = {line.get_label(): line.get_ydata() for line in axis.lines}
    assert list(lines) == ["DQN", "SQL", "MIRL"] and lines["MIRL"] == pytest.approx([11.5 / 43, 41.5 / 43])
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["0", "15"]
    over = {line.get_label(): line.get_ydata() for line in advantage.lines[1:]}
    # Equal scores count as one half
    assert {name: list(values) for name, values in over.items()} == {"SQL": [0.5, 1.0], "DQN": [1.0, 1.0]}
    assert [tick.get_text() for tick in advantage.get_xticklabels()] == ["0", "15"]


def test_action_names_are_not_formulas(tmp_path):
    job = Job("mirl", "CartPole-v1", 0)
    open_folder(tmp_path, CLASSIC, [job])
    names = ["$\\frac{$", "$x_1$ and \\$", "\x1b[31mred" + "d" * 10_000]
    write_result(tmp_path, CLASSIC, job, action_names=names)
    write_report(tmp_path, tmp_path / "out")
    assert (tmp_path / "out" / "prior_CartPole-v1.png").exists()
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "$\\frac{$ 0.500" in page and "\\x1b[31mred" in page and "\x1b" not in page


def test_prior_figure_shows_the_most_likely_actions(tmp_path):
    job = Job("mirl", "CartPole-v1", 0)
    open_folder(tmp_path, CLASSIC, [job])
    write_result(tmp_path, CLASSIC, job, prior=[1 / 1000] * 1000, action_names=None)
    write_report(tmp_path, tmp_path / "out")
    assert len(table(tmp_path / "out", "prior")) == 1000
    assert image.imread(tmp_path / "out" / "prior_CartPole-v1.png").shape[0] < 3000
