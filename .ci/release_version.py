"""
Compares the version of a wheel with the tag, ``CITATION.cff`` and ``CHANGELOG.md``.

``python .ci/release_version.py WHEEL [TAG]``. Without a tag the wheel has a development version, and only the citation and the
changelog are compared. Ends with status 1 and a line for each difference.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def differences(wheel: str, tag: str, root: Path = ROOT) -> list[str]:
    """
    :param wheel: the file's name
    :param tag: of the commit, such as v0.1.0; empty: none
    :param root: the folder of the two files
    :return: what does not agree
    """
    built = Path(wheel).name.split("-")[1]
    citation = dict(
        re.findall(r"^(version|date-released): *[\"']?([^\"'\s]+)", (root / "CITATION.cff").read_text(), re.MULTILINE)
    )
    newest, state = re.findall(r"^## (\S+) \((.+)\)$", (root / "CHANGELOG.md").read_text(), re.MULTILINE)[0]
    found = []
    if citation.get("version") != newest:
        found.append(f"CITATION.cff has version {citation.get('version')}, CHANGELOG.md {newest}")
    if not tag:
        return found
    if tag != f"v{built}":
        found.append(f"the tag is {tag}, the wheel has version {built}")
    if tag != f"v{newest}":
        found.append(f"the tag is {tag}, the newest version in CHANGELOG.md {newest}")
    if citation.get("date-released") is None or citation["date-released"] != state:
        found.append(
            f"CITATION.cff has date-released {citation.get('date-released')}, CHANGELOG.md {state}: both need the day"
        )
    return found


if __name__ == "__main__":
    sys.exit("\n".join(differences(sys.argv[1], "".join(sys.argv[2:]))) or 0)
