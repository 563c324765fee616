"""The site: `make docs` builds it from docs/ and the executed notebooks, without a network, into docs/_build/.

Sphinx with MyST, not Jupyter Book 2, for two reasons: the reference comes from docstrings, and everything that the
build needs is a Python package (Jupyter Book 2 fetches its theme when it builds).
"""

import os
import re
import subprocess
from pathlib import Path

import sglib

ROOT = Path(__file__).parents[1]

project = "Step-level internal rewards for language agents"
author, copyright = "the sglib authors", "the sglib authors, MIT license"
version = release = sglib.__version__

# the source is the repository itself, so that pages link to notebooks and figures as they do on a code host
root_doc = "docs/index"
pages = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/README.md"]
include_patterns = ["docs/**.md", "notebooks/*.ipynb", *pages]
exclude_patterns = ["docs/_build/**", "docs/_site/**"]
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
html_theme = "sphinx_book_theme"
html_title = project
html_extra_path = ["_site"]  # the front page of the built folder, which leads to docs/index.html
html_show_sourcelink = False
html_sidebars = {"**": ["navbar-logo.html", "icon-links.html", "sbt-sidebar-nav.html"]}  # the search is above
napoleon_numpy_docstring, napoleon_use_ivar = False, True
default_role = "code"

nb_execution_mode = "off"  # the notebooks are committed with their outputs
nb_merge_streams = True
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_fence_as_directive = []
suppress_warnings = ["mystnb.unknown_mime_type"]  # widgets: their HTML fallback is shown
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
linkcheck_ignore = [r"http://localhost.*"]


def repository() -> str | None:
    """The public address that launch buttons lead to: SGLIB_REPOSITORY, or this clone's origin if it is on GitHub."""
    ask = ["git", "-C", str(ROOT), "remote", "get-url", "origin"]
    found = os.environ.get("SGLIB_REPOSITORY") or subprocess.run(ask, capture_output=True, text=True).stdout.strip()
    match = re.fullmatch(r"(?:https://|git@)github\.com[/:]([\w.-]+/[\w.-]+?)(?:\.git)?/?", found)
    return f"https://github.com/{match[1]}" if match else None


html_theme_options = {"show_toc_level": 2, "use_download_button": True}
if repository():
    html_theme_options |= {
        "repository_url": repository(), "repository_branch": "main", "use_repository_button": True,
        "launch_buttons": {"binderhub_url": "https://mybinder.org", "colab_url": "https://colab.research.google.com"},
    }  # fmt: skip


def plain(app, what, name, obj, options, lines):
    """Docstrings are plain text with `code`: escape what means something to reStructuredText, and show an indented
    block (a formula, a table) as it stands, unless it lists arguments, which napoleon sets."""
    shown, listing, literal = [], False, False
    for line in lines:
        if line and not line.startswith(" "):
            literal = False
            listing = line in ("Args:", "Attributes:", "Raises:", "Returns:")
        block = bool(line) and not listing and line.startswith(("    ", "|"))
        if block and not literal:
            shown += ["", ".. code-block:: text", ""]
        literal = literal or block
        if literal:
            shown.append(f"    {line}")
        else:
            parts = re.split(r"(`[^`]*`)", line)
            shown.append("".join(x if x.startswith("`") else re.sub(r"([*_|\\<>])", r"\\\1", x) for x in parts))
    lines[:] = shown


def setup(app):
    app.connect("autodoc-process-docstring", plain, priority=100)  # before napoleon
