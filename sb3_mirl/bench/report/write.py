"""
Writing the report of a benchmark: tables (CSV), figures (PNG) and ``report.html``, a page that contains its images.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from sb3_mirl.bench.jobs import FolderError
from sb3_mirl.bench.report import figures
from sb3_mirl.bench.report.content import Row, read
from sb3_mirl.bench.report.page import page
from sb3_mirl.bench.report.tables import TABLES
from sb3_mirl.common.files import write_whole
from sb3_mirl.common.text import printable


def write_csv(rows: Sequence[Row], file: Path) -> None:
    """
    :param rows: of a table. The file has the columns of all rows; missing values and NaN are empty
    :param file: to be written, or removed if there are no rows
    """
    if not rows:
        file.unlink(missing_ok=True)
        return
    safe = [{key: printable(value) if isinstance(value, str) else value for key, value in row.items()} for row in rows]
    # dtype=object keeps integers in columns with missing values
    write_whole(file, pd.DataFrame(safe, dtype=object).to_csv(index=False).encode())


def write_report(folder: Path, out: Path) -> list[Path]:
    """
    Write tables, figures and the page of a benchmark.

    :param folder: of the benchmark
    :param out: folder of the report, created if necessary
    :return: the files
    :raises FolderError: if the folder is not that of a benchmark, or ``out`` cannot be written
    """
    bench = read(folder)
    tables = {name: rows(bench) for name, rows in TABLES.items()}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, rows in tables.items():
            write_csv(rows, out / f"{name}.csv")
        images = figures.draw(bench, tables)
        for name in figures.names(bench):
            # Remove figures of an earlier report
            (out / f"{name}.png").unlink(missing_ok=True)
        for name, image in images.items():
            write_whole(out / f"{name}.png", image)
        write_whole(out / "report.html", page(bench, tables, images).encode())
    except OSError as error:
        raise FolderError(f"{str(out)!r} cannot be written ({error.strerror or error})") from error
    return [
        out / "report.html",
        *(out / f"{name}.csv" for name, rows in tables.items() if rows),
        *(out / f"{name}.png" for name in images),
    ]
