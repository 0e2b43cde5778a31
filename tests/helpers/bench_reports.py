"""Reading the files of a benchmark's report."""

import csv
from html.parser import HTMLParser

from sb3_mirl.bench.suites import SUITES

ATARI = SUITES["atari19-100k"]
ALIEN, BOXING, KRULL = (f"{game}NoFrameskip-v4" for game in ("Alien", "Boxing", "Krull"))
#: Elements of HTML that are never closed
VOID = {"meta", "img", "link", "br", "hr", "input"}


def table(report, name):
    with open(report / f"{name}.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def row_of(rows, **key):
    (row,) = [row for row in rows if all(row[name] == value for name, value in key.items())]
    return row


def numbers(row, *keys):
    return [float(row[key]) for key in keys or ("value", "low", "high")]


class Page(HTMLParser):
    """Elements with their attributes, text, and rows of cells of the tables by caption. Every element must be closed."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.tables, self.text = [], [], {}, ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if "caption" in self.open:
            self.rows = self.tables[data] = []
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] = f"{self.rows[-1][-1]} {data}".strip()

    def row(self, *beginning):
        """The first row of any table that begins with these cells."""
        rows = (row for table in self.tables.values() for row in table)
        return next(row for row in rows if row[: len(beginning)] == list(beginning))


def page_of(folder):
    return Page((folder / "report.html").read_text(encoding="utf-8"))
