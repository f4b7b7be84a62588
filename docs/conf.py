"""Configuration of the documentation; it is built without network access."""

from pathlib import Path

from sphinx_gallery.sorting import ExplicitOrder

import skenigma
from skenigma.cli import help_texts

project = "skenigma"
author = copyright = "the skenigma developers"
version = release = skenigma.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "auto_examples/*.ipynb", "auto_examples/*.py"]
templates_path = ["_templates"]
myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3

html_theme = "pydata_sphinx_theme"
html_title = f"skenigma {version}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_show_sourcelink = False
html_theme_options = {"show_prev_next": False, "navigation_with_keys": False}
html_sidebars = {page: [] for page in ("changelog", "extending", "get_started", "method", "auto_examples/*")}
toc_object_entries_show_parents = "hide"

autosummary_generate = True
numpydoc_show_class_members = False
# Checked where the docstrings are rendered: the public names and what they inherit from this package. Left
# out are sections that not every name needs (extended summary, See Also, Examples) and matters of taste (line
# breaks at the quotes, infinitive verbs, names of returned values).
numpydoc_validation_checks = {"all", "ES01", "SA01", "EX01", "GL01", "GL02", "RT02", "SS05"}

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "within_subsection_order": ExplicitOrder(
        ["plot_gradient_norm.py", "plot_l2max_or_trace_norm.py", "plot_grid_search_renorm_size.py"]
    ),
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
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
    folder = Path(app.srcdir, "help")
    folder.mkdir(exist_ok=True)
    for command, text in help_texts().items():
        (folder / f"{command}.txt").write_text(text, encoding="utf-8")


def setup(app):
    app.connect("builder-inited", write_help)
    app.connect("autodoc-skip-member", skip_foreign_members)
