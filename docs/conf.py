"""Configuration of the documentation; it is built, and can be read, without network access."""

import configparser
import os
import pathlib
import sys
from importlib.metadata import files

from docutils import nodes
from PIL import Image
from sphinx_gallery.directives import imgsgnode
from sphinx_gallery.sorting import ExplicitOrder

import skenigma
from skenigma.cli import help_texts

HERE = pathlib.Path(__file__).resolve().parent
sys.path += [str(HERE), str(HERE.parent)]

from inventories import ALIASES, write_inventories  # noqa: E402 - found beside this file

from benchmarks.data import data_folder  # noqa: E402 - of the checkout

# Pages on public cohorts read them from here where they are at hand, and use a stand-in where they are not.
os.environ.setdefault("SKENIGMA_DATA_HOME", str(data_folder() / "truth"))

project = "skenigma"
author = copyright = "the skenigma developers"
version = release = skenigma.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "auto_examples/*.ipynb", "auto_examples/*.py"]
templates_path = ["_templates"]
myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3

html_theme = "pydata_sphinx_theme"
html_title = f"skenigma {version}"
# One file of MathJax typesets all formulas without further files: no reader needs a network for them.
(mathjax,) = (file for file in files("sphinx-mathjax-offline") if file.name == "tex-svg.js")
html_static_path = ["_static", str(mathjax.locate())]
mathjax_path = mathjax.name
html_css_files = ["custom.css"]
html_show_sourcelink = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
# The address of the repository belongs in one place, the metadata of the package: `url = ...` there makes a link.
metadata = configparser.ConfigParser()
metadata.read(HERE.parent / "setup.cfg", encoding="utf-8")
repository = metadata["metadata"].get("url")
html_theme_options = {
    "logo": {"text": "skenigma"},
    "icon_links": [{"name": "Repository", "url": repository, "icon": "fa-solid fa-code"}]
    if repository
    else [],
    "show_prev_next": True,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 5,
}
html_sidebars = {
    page: [] for page in ("changelog", "citing", "command_line", "get_started", "auto_examples/*")
}
toc_object_entries_show_parents = "hide"

intersphinx_mapping = write_inventories(HERE / "_build" / "inventories")

autosummary_generate = True
# signatures show names and defaults; docstrings say what these may be
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_xref_param_type = True
numpydoc_xref_aliases = ALIASES
numpydoc_xref_ignore = "all"
# Checked where the docstrings are rendered: the public names and what they inherit from this package. Left
# out are sections that not every name needs (extended summary, See Also, Examples) and matters of taste (line
# breaks at the quotes, infinitive verbs, names of returned values).
numpydoc_validation_checks = {"all", "ES01", "SA01", "EX01", "GL01", "GL02", "RT02", "SS05"}

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "within_subsection_order": ExplicitOrder(
        [
            # real cohorts first, then questions
            "plot_whole_blood.py",
            "plot_lupus_pbmc.py",
            "plot_pbmc_pseudobulk.py",
            "plot_first_run.py",
            "plot_differential_expression.py",
            "plot_choose_parameters.py",
            "plot_l2max_or_trace_norm.py",
            "plot_gradient_norm.py",
            "plot_published_vignette.py",
            "plot_factor_model.py",
            "plot_grid_search_renorm_size.py",
        ]
    ),
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "write_computation_times": False,
    # frames and estimators, not what the last call of a plot returns
    "capture_repr": ("_repr_html_",),
    "abort_on_example_error": True,
}


def skip_foreign_members(app, what, name, obj, skip, options):
    """Leave out what classes inherit from scikit-learn: it is documented there."""
    module = getattr(obj, "__module__", None) or ""
    return True if module.startswith("sklearn.") else None


def write_help(app):
    """What ``--help`` prints, for the page on the command line."""
    folder = pathlib.Path(app.srcdir, "help")
    folder.mkdir(exist_ok=True)
    for command, text in help_texts().items():
        (folder / f"{command}.txt").write_text(text, encoding="utf-8")


def make_room(app, doctree):
    """Let figures of several panels scroll on narrow screens, where they would shrink beyond reading."""
    for picture in list(doctree.findall(imgsgnode)):
        with Image.open(pathlib.Path(app.srcdir, picture["uri"].lstrip("/"))) as pixels:
            is_wide = pixels.width > 1.8 * pixels.height
        if is_wide:
            room = nodes.container(classes=["wide-picture"])
            picture.replace_self(room)
            room += picture


def setup(app):
    app.connect("doctree-read", make_room)
    app.connect("builder-inited", write_help)
    app.connect("autodoc-skip-member", skip_foreign_members)
