"""The README and the pages of the site: their blocks, and the commands in them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
#: Every page that has no code cells, relative to the repository. Notebooks run when the site is built
PAGES = ["README.md", "CONTRIBUTING.md"]
#: Cards of trained agents train them in earnest: tests/test_agents.py
PAGES += sorted(
    str(file.relative_to(ROOT)) for file in DOCS.rglob("*.md") if not {"_build", "agents"} & {*file.relative_to(DOCS).parts}
)
PAGES = [page for page in PAGES if "```{code-cell}" not in (ROOT / page).read_text("utf-8")]


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the text of a block of plain text right behind it, or None."""

    page: str
    number: int
    language: str
    text: str
    shown: str | None = None

    def __str__(self) -> str:
        return f"{self.page}-{self.number}"


def blocks(page: str) -> list[Block]:
    """The blocks of a page in Python and Bash, in their order."""
    text = (ROOT / page).read_text("utf-8")
    found = re.findall(r"^```(python|bash)\n(.*?)^```$(?:\n\n^```text\n(.*?)^```$)?", text, re.DOTALL | re.MULTILINE)
    return [Block(page, number, language, body, shown or None) for number, (language, body, shown) in enumerate(found)]


def commands(block: Block) -> list[str]:
    """The commands of a block of Bash, without remarks. A script for SLURM is no list of commands."""
    if block.text.startswith("#!"):
        return []
    lines = block.text.replace("\\\n", " ").splitlines()
    return [" ".join(shlex.quote(word) for word in words) for line in lines if (words := shlex.split(line, comments=True))]
