"""``sb3-mirl bench report``: its files, and folders that it refuses."""

import subprocess
import sys

import pytest
from bench_reports import page_of
from bench_results import CLASSIC, fill, jobs_of, write_text

from sb3_mirl.bench.jobs import Job, open_folder
from sb3_mirl.bench.report.write import write_csv, write_report
from sb3_mirl.cli.main import main


def test_folder_without_results(tmp_path, capsys):
    open_folder(tmp_path, CLASSIC, jobs_of(("mirl",), ["CartPole-v1"], 2))
    assert main(["bench", "report", str(tmp_path)]) == 0
    page = page_of(tmp_path / "report")
    assert "Nothing has run to its end yet: of 2 jobs none has a result." in page.text
    assert page.row("CartPole-v1") == ["CartPole-v1", "no run"]
    assert "report.html" in capsys.readouterr().out


def test_folder_without_jobs(tmp_path):
    open_folder(tmp_path, CLASSIC, [])
    write_report(tmp_path, tmp_path / "report")
    assert "Nothing has run" in page_of(tmp_path / "report").text


def test_second_report_replaces_the_first(tmp_path):
    jobs = jobs_of(("sql", "mirl"), ["CartPole-v1"], 1)
    fill(tmp_path, CLASSIC, jobs)
    write_report(tmp_path, tmp_path / "report")
    jobs[0].result_file(tmp_path).unlink()
    write_report(tmp_path, tmp_path / "report")
    assert not (tmp_path / "report" / "ablation.csv").exists()
    assert not (tmp_path / "report" / "improvement.png").exists()


@pytest.mark.parametrize(
    "prepare, arguments, message",
    [
        (lambda folder: None, [], "is not the folder of a benchmark"),
        (lambda folder: write_text(folder / "suite.json", "{}"), [], "is not what `sb3-mirl bench run` writes"),
        (lambda folder: fill(folder, CLASSIC, []), ["--out", "{folder}/suite.json"], "cannot be written (File exists)"),
    ],
)
def test_folder_without_benchmark_is_refused_in_one_line(prepare, arguments, message, tmp_path, capsys):
    prepare(tmp_path)
    assert main(["bench", "report", str(tmp_path), *(one.format(folder=tmp_path) for one in arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("sb3-mirl bench report: error: ") and message in line


def test_report_needs_no_torch(tmp_path):
    fill(tmp_path, CLASSIC, [Job("mirl", "CartPole-v1", 0)])
    arguments = ["bench", "report", str(tmp_path)]
    code = f"import sys; from sb3_mirl.cli.main import main; assert main({arguments}) == 0; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_csv_keeps_integers_in_columns_with_missing_values(tmp_path):
    write_csv([{"a": 1}, {"a": 2, "b": 3, "c": float("nan")}], tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text().splitlines() == ["a,b,c", "1,,", "2,3,"]
