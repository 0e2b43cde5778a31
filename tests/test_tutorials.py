"""The tutorials, ``docs/tutorials``: their code uses public names, checks what its text claims, and runs."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from sb3_mirl import __all__ as PUBLIC

FOLDER = Path(__file__).parents[1] / "docs" / "tutorials"
NAMES = ["exact_answers", "first_agent", "what_not_to_do"]
#: A cell may begin with its metadata, as YAML
CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(?:---\n.*?\n---\n)?(.*?)^```$", re.DOTALL | re.MULTILINE)
#: Figures are not shown, and not kept
PREAMBLE = """
from matplotlib import pyplot
pyplot.show = lambda: pyplot.close("all")
"""


def text(name):
    return (FOLDER / f"{name}.md").read_text("utf-8")


def code(name):
    return "\n".join(CELL.findall(text(name)))


def test_every_notebook_is_tested():
    notebooks = [file for file in FOLDER.iterdir() if "{code-cell}" in file.read_text("utf-8") or file.suffix == ".ipynb"]
    assert sorted(file.name for file in notebooks) == [f"{name}.md" for name in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_is_found_and_compiles(name):
    cells = CELL.findall(text(name))
    assert len(cells) == text(name).count("```{code-cell}") > 5
    for cell in cells:
        assert ast.parse(cell).body, cell


@pytest.mark.parametrize("name", NAMES)
def test_no_cell_shows_the_value_of_its_last_line(name):
    for cell in CELL.findall(text(name)):
        last = ast.parse(cell).body[-1]
        if isinstance(last, ast.Expr):
            assert re.match(r"(print|plt\.show)\(", ast.unparse(last)) or "rcParams" in ast.unparse(last), ast.unparse(last)


@pytest.mark.parametrize("name", NAMES)
def test_metadata_name_a_kernel(name):
    # Without them myst-nb shows the code and does not run it
    front_matter = text(name).split("---\n")[1]
    assert "format_name: myst" in front_matter and "\nkernelspec:\n" in front_matter and "name: python3" in front_matter


@pytest.mark.parametrize("name", NAMES)
def test_a_return_is_asserted(name):
    asserted = [node.test for node in ast.walk(ast.parse(code(name))) if isinstance(node, ast.Assert)]
    names = [{inner.id for inner in ast.walk(test) if isinstance(inner, ast.Name)} for test in asserted]
    assert any("return" in used for of_one in names for used in of_one), names


@pytest.mark.parametrize("name", NAMES)
def test_names_of_the_package_are_public(name):
    found = 0
    for node in ast.walk(ast.parse(code(name))):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "sb3_mirl":
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert not alias.name.startswith("_") and hasattr(module, alias.name), alias.name
                assert node.module != "sb3_mirl" or alias.name in PUBLIC, alias.name
                # What has a short name is imported by it
                assert node.module == "sb3_mirl" or alias.name not in PUBLIC, alias.name
                found += 1
    assert found > 0


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name):
    for target in re.findall(r"\]\(([^)\s]+)\)", text(name)):
        if target.startswith("#"):
            # An object of the API reference
            module, _, attribute = target.removeprefix("#").rpartition(".")
            assert hasattr(importlib.import_module(module), attribute), target
        elif not target.startswith("https://"):
            assert (FOLDER / target.partition("#")[0]).is_file(), target


@pytest.mark.parametrize("name", NAMES)
def test_figures_have_a_title_and_a_description(name):
    for block in re.findall(r"^```\{code-cell\}.*?^```$", text(name), re.DOTALL | re.MULTILINE):
        if "plt.show()" in block:
            assert re.search(r"^    alt: \S", block, re.MULTILINE) and re.search(r"title\(|title=", block), block


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_runs(name, run_script, tmp_path):
    script = tmp_path / f"{name}.py"
    script.write_text(PREAMBLE + code(name), "utf-8")
    finished = run_script(script, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert finished.stderr == ""
    assert finished.stdout
