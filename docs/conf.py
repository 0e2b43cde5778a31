"""
The site: ``make docs`` builds it into ``docs/_build/html``, with warnings as errors.

Settings from outside: ``DOCS_EXECUTE=off`` leaves the tutorials without outputs; otherwise each is run once, and again when it
changes. ``DOCS_INTERSPHINX=1`` links to the documentation of other packages, which needs the network. ``DOCS_REPOSITORY`` is
the address of the repository, for links to files that are not pages.
"""

import os
import re
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

from sb3_mirl import __version__

DOCS = Path(__file__).parent
ROOT = DOCS.parent
#: Pages that show a file of the repository's root
PAGES_OF_FILES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
REPOSITORY = os.environ.get("DOCS_REPOSITORY", "").rstrip("/")

project = "sb3_mirl"
author = "The sb3_mirl developers"
copyright = "the sb3_mirl developers, MIT licence"
version = release = __version__
language = "en"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_copybutton"]
exclude_patterns = ["_build", "**/.ipynb_checkpoints"]

html_theme = "furo"
html_title = "sb3_mirl"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
if REPOSITORY:
    html_theme_options |= {"source_repository": REPOSITORY, "source_branch": "main", "source_directory": "docs/"}
html_math_renderer = "mathml"

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4

nb_execution_mode = os.environ.get("DOCS_EXECUTE", "cache")
nb_execution_cache_path = str(DOCS / "_build" / "notebooks")
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_timeout = 600
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
add_module_names = False
python_maximum_signature_line_length = 88

# Without it references to other packages are plain text. They stand in docstrings only, where Sphinx does not warn of them
if os.environ.get("DOCS_INTERSPHINX"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
        "gymnasium": ("https://gymnasium.farama.org", None),
        "stable_baselines3": ("https://stable-baselines3.readthedocs.io/en/master", None),
        "sb3_contrib": ("https://sb3-contrib.readthedocs.io/en/master", None),
    }

copybutton_exclude = ".linenos, .gp, .go"
copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True


def resolve_links(text: str, folder: Path, seen_from: Path) -> str:
    """
    Links of a Markdown text for the site. Those to pages and images become relative to ``seen_from``; those to other files
    lead into the repository, or are plain text if its address is unknown.

    :param text: Markdown
    :param folder: of the file that holds it
    :param seen_from: the folder of the page that shows it
    """

    def resolved(match: re.Match) -> str:
        target, _, anchor = match["target"].partition("#")
        file = Path(os.path.normpath(folder / target))
        if file.is_relative_to(DOCS):
            return f"{match['label']}({os.path.relpath(file, seen_from)}{'#' * bool(anchor)}{anchor})"
        if file.name in PAGES_OF_FILES:
            return f"{match['label']}({os.path.relpath(DOCS / PAGES_OF_FILES[file.name], seen_from)})"
        if not REPOSITORY:
            return match["label"][1:-1]
        return f"{match['label']}({REPOSITORY}/blob/main/{file.relative_to(ROOT).as_posix()})"

    return re.sub(r"(?P<label>\[[^\[\]]*\])\((?P<target>(?![a-z]+:|#)[^()\s]+)\)", resolved, text)


def read_page(app, name, source):
    """For Sphinx's event source-read."""
    folder = (DOCS / name).parent
    if Path(app.env.doc2path(name)).suffix == ".md":
        source[0] = resolve_links(source[0], folder, folder)


def read_included(app, path, parent, source):
    """For Sphinx's event include-read: CONTRIBUTING.md and CHANGELOG.md lie above the pages that show them."""
    source[0] = resolve_links(source[0], (DOCS / path).resolve().parent, (DOCS / parent).parent)


def escape_bars(app, what, name, thing, options, lines):
    """``|A|`` in docstrings is a size, not reStructuredText's substitution."""
    for i, line in enumerate(lines):
        parts = line.split("``")
        lines[i] = "``".join(part if odd % 2 else part.replace("|", r"\|") for odd, part in enumerate(parts))


def find_by_name(app, env, node, contnode):
    """For Sphinx's event missing-reference: public names are described where users import them, not where they are."""
    name = node.get("reftarget", "").rpartition(".")[2]
    domain = env.domains["py"]
    found = [full for full in domain.objects if full == name or full.endswith(f".{name}")]
    if node.get("refdomain") != "py" or not node.get("reftarget", "").startswith(("sb3_mirl", name)) or len(found) != 1:
        return None
    return domain.resolve_xref(env, node["refdoc"], app.builder, node["reftype"], found[0], node, contnode)


def mathml(as_block):
    """Formulas as MathML, which browsers draw without scripts or the network."""

    def visit(translator, node):
        formula = tex2mathml(node.astext(), as_block=as_block)
        translator.body.append(f'<div class="math">{formula}</div>' if as_block else formula)
        raise nodes.SkipNode

    return visit, None


def setup(app):
    app.connect("source-read", read_page)
    app.connect("include-read", read_included)
    app.connect("missing-reference", find_by_name)
    app.connect("autodoc-process-docstring", escape_bars)
    app.add_html_math_renderer("mathml", mathml(False), mathml(True))
