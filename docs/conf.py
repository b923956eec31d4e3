"""How Sphinx builds the site. `make docs` does it; what the pages hold that code knows is written by `from_code`."""

import os
import sys
import warnings
from pathlib import Path

import numpydoc.numpydoc
from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS), str(DOCS.parent / "src")]
# Commands and notebooks that the build starts shall find the same source.
os.environ["PYTHONPATH"] = os.pathsep.join([str(DOCS.parent / "src"), os.environ.get("PYTHONPATH", "")]).rstrip(":")
os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")

from from_code import references, write_pages  # noqa: E402 - the path is set above
from from_code.source import VERSION, fingerprint  # noqa: E402

# It takes the first words of `dict` for the signature of a type alias of ours, and then the build stumbles. None of our
# docstrings begins with a signature.
numpydoc.numpydoc.mangle_signature = lambda *_: None
# It reads docstrings of other packages as well, and those are not ours to mend.
warnings.filterwarnings("ignore", r"(?s)potentially wrong underline length.*site-packages", UserWarning)

project = "citygrain"
author = "The citygrain developers"
copyright = "The citygrain developers. Map data © OpenStreetMap contributors, ODbL 1.0"  # noqa: A001 - Sphinx's name
version = release = VERSION

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
    "sphinx_design",
]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "made/*.md"]

myst_enable_extensions = ["attrs_inline", "colon_fence"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # pieces that pages include begin below the first level

# They are executed again when they or the code have changed; `make docs NOTEBOOKS=off` shows them without output.
nb_execution_mode = os.environ.get("NOTEBOOKS", "cache")
nb_execution_timeout = 300
nb_execution_cache_path = str(DOCS / "_build" / "notebooks" / fingerprint())
nb_execution_show_tb = True
nb_merge_streams = True

autosummary_generate = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
default_role = "py:obj"

# Of what is referred to, citygrain's own things must be there; those of other packages are on sites of their own.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!citygrain\.).*")]

html_theme = "pydata_sphinx_theme"
html_title = "citygrain"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_sidebars = {page: [] for page in ("gallery", "search", "genindex")}
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "github_url": "https://github.com/citygrain/citygrain",
    "header_links_before_dropdown": 7,
    "navbar_align": "left",
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": [],
}


def write(app: Sphinx) -> None:
    """Write the pages that are made from the code, before Sphinx looks for pages."""
    gallery = os.environ.get("GALLERY", "on") != "off"
    write_pages(DOCS, DOCS / "_build" / "gallery" if gallery else None)


def setup(app: Sphinx) -> None:
    """Tell Sphinx."""
    app.connect("config-inited", lambda app, config: write(app))
    app.connect("autodoc-process-docstring", references.quiet_headings, priority=900)
    app.connect("autodoc-skip-member", references.leave_out)
    app.connect("missing-reference", references.resolve)
