"""How Sphinx builds the site: `make docs`.

The pages are plain Markdown that a code host shows as well, so nothing of Sphinx is written in them. The navigation is what
docs/README.md lists, section by section. docs/reference/ names the public names; their text is that of the docstrings.
Warnings are errors: a link, an anchor or a reference that leads nowhere, a page that docs/README.md does not list.
"""

from __future__ import annotations

import enum
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING

import daramjwee
from daramjwee import CacheStream, CacheWriter, FileStore, MemoryStore, Store
from daramjwee.buffers import Monitor
from daramjwee.testing import StoreSuite

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "daramjwee"
release = daramjwee.__version__
html_title = f"daramjwee {release}"

# The root of the repository is the source, so that links between README.md, CHANGELOG.md and docs/ hold in both places.
root_doc = "docs/README"
include_patterns = ["*.md", "docs/**"]
exclude_patterns = ["build", ".venv"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = False
html_show_copyright = False
smartquotes = False

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 4
# Docstrings are prose, in which `this` is a word of the code.
default_role = "code"
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_type_aliases = {name: name for name in ("Body", "Duration", "Fetcher", "Size")}
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100
# Nothing is fetched while the site is built: names of other libraries are shown and not linked, and so are those of ours
# that are not public.
nitpick_ignore_regex = [("py:.*", r"(?!daramjwee\.[A-Z]).*")]

# The library makes them, or nobody does.
_NOT_MADE_BY_PROGRAMS = (CacheStream, CacheWriter, Monitor, StoreSuite, enum.Enum)
# What our tiers offer beyond `Store`.
_OF_TIERS = ("reconfigure",)
_ALIAS = re.compile(r"TypeAliasForwardRef\('(\w+)'\)")
_SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
_ENTRY = re.compile(r"^- \[([^]]+)\]\(([^)#:]+)\.(?:md|rst)\)", re.MULTILINE)
_FRONT = """<!doctype html><html lang="en"><meta charset="utf-8"><title>daramjwee</title>
<meta http-equiv="refresh" content="0; url={home}"><a href="{home}">daramjwee</a></html>
"""


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _add_navigation)
    app.connect("autodoc-process-signature", _shorten_signature)
    app.connect("autodoc-skip-member", _skip_what_is_not_promised)
    app.connect("autodoc-process-docstring", _drop_words_of_python)
    app.connect("build-finished", _add_front)


def _add_navigation(app: Sphinx, docname: str, content: list[str]) -> None:
    """The lists of the first page, as the trees of pages that Sphinx knows."""
    if docname != root_doc:
        return
    _, *sections = _SECTION.split(content[0])
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        entries = [f"{name} <{page}>" for name, page in _ENTRY.findall(body)]
        if entries:
            content[0] += "\n".join(["", "```{toctree}", ":hidden:", f":caption: {title}", "", *entries, "```", ""])


def _shorten_signature(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Aliases by their names; no parameters for classes that a program does not make."""
    if inspect.isclass(obj) and (getattr(obj, "_is_protocol", False) or issubclass(obj, _NOT_MADE_BY_PROGRAMS)):
        return "", None
    return (_ALIAS.sub(r"\1", signature).replace("<factory>", "...") if signature else signature), returns


def _skip_what_is_not_promised(
    app: Sphinx, what: str, name: str, obj: object, skip: bool, options: object
) -> bool | None:
    """Fields of tuples (their class explains them), tests of the suite, what our own rooms say to each other."""
    owner = getattr(obj, "__qualname__", "").partition(".")[0]
    tier = owner in {FileStore.__name__, MemoryStore.__name__} and not hasattr(Store, name) and name not in _OF_TIERS
    text = inspect.getdoc(obj) or ""
    return tier or text.startswith(("Alias for field number", "Internal,")) or name.startswith("test_") or None


def _drop_words_of_python(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """A value has the docstring of its type, which says nothing of it; the page does."""
    if what == "data":
        lines.clear()


def _add_front(app: Sphinx, error: Exception | None) -> None:
    """index.html, which a web server shows first."""
    if error is None and app.builder.format == "html":
        Path(app.outdir, "index.html").write_text(_FRONT.format(home=f"{root_doc}.html"), encoding="utf-8")
