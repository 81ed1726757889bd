"""Build the documentation: check every link, render the pages, write the reference from the docstrings.

Usage: python tools/build_docs.py FOLDER. The folder is made anew. Exits with 1 and a list when a link leads nowhere.
"""

from __future__ import annotations

import html
import importlib
import importlib.util
import inspect
import os
import re
import shutil
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]
MODULES = ("daramjwee", "daramjwee.buffers", "daramjwee.stores", "daramjwee.policies", "daramjwee.testing")

STYLE = """
:root{color-scheme:light dark} body{font:16px/1.55 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}
img{max-width:100%} pre{overflow:auto;padding:.8rem;background:#8881;border-radius:6px} code{font:.9em ui-monospace,monospace}
table{border-collapse:collapse;display:block;overflow:auto} td,th{border:1px solid #8886;padding:.25rem .6rem}
nav{margin-bottom:1.5rem} nav a{margin-right:.8rem} dt{margin-top:1.2rem} dd{margin-left:1.5rem;white-space:pre-wrap}
"""
_LINK = re.compile(r'(?:href|src)="([^"]+)"')
_HEADING = re.compile(r"<h([1-6])>(.*?)</h\1>", re.DOTALL)


def main() -> int:
    """0 when every page was built and every link leads somewhere."""
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "build/docs").resolve()
    if target.exists() and (target.name != "docs" or not target.is_dir()):
        sys.exit(f"{target} exists and is not a folder named docs: name one that may be replaced")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)

    pages = {page: render(page.read_text(encoding="utf-8")) for page in sources()}
    faults = [fault for page, body in pages.items() for fault in broken_links(page, body, pages)]
    reference = {module: reference_of(module) for module in MODULES if has(module)}
    write(target, pages, reference)
    for fault in faults:
        print(fault, file=sys.stderr)
    names = sum(body.count("<dt id=") for body in reference.values())
    print(f"{len(pages)} pages, {names} public names in {len(reference)} modules -> {shown(target / 'index.html')}")
    return int(bool(faults))


def sources() -> list[Path]:
    """The pages for people: those at the root of the repository, and everything under docs/."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def render(text: str) -> str:
    """Markdown as HTML, each heading with the anchor that code hosts give it."""
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    taken: set[str] = set()

    def anchored(match: re.Match[str]) -> str:
        words = html.unescape(re.sub(r"<[^>]+>", "", match[2])).strip().lower()
        anchor = base = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        number = 0
        while anchor in taken:
            number += 1
            anchor = f"{base}-{number}"
        taken.add(anchor)
        return f'<h{match[1]} id="{anchor}">{match[2]}</h{match[1]}>'

    return _HEADING.sub(anchored, body)


def broken_links(page: Path, body: str, pages: dict[Path, str]) -> list[str]:
    """Links of one page to files or headings that are not there. Links to other hosts are not followed."""
    faults = []
    for link in _LINK.findall(body):
        parts = urlsplit(html.unescape(link))
        if parts.scheme or parts.netloc:
            continue
        goal = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        if not goal.exists():
            faults.append(f"{shown(page)}: {link} leads nowhere")
        elif parts.fragment and f'id="{parts.fragment}"' not in pages.get(goal, f'id="{parts.fragment}"'):
            faults.append(f"{shown(page)}: {link}: that page has no such heading")
    return faults


def has(module: str) -> bool:
    """Whether the module is part of this tree."""
    return importlib.util.find_spec(module) is not None


def reference_of(module: str) -> str:
    """One module's public names with their signatures and docstrings, as HTML."""
    loaded = importlib.import_module(module)
    parts = [f"<h1>{module}</h1>", f"<p>{escape(inspect.getdoc(loaded) or '')}</p>", "<dl>"]
    for name in sorted(loaded.__all__):
        value = getattr(loaded, name)
        parts.append(f'<dt id="{name}"><code>{escape(name + signature(value))}</code></dt>')
        doc = inspect.getdoc(value) if inspect.isclass(value) or inspect.isroutine(value) else repr(value)
        parts.append(f"<dd>{escape(doc or '')}")
        parts += members(value) if inspect.isclass(value) else []
        parts.append("</dd>")
    return "\n".join([*parts, "</dl>"])


def members(cls: type) -> list[str]:
    """The public methods and properties that a class of ours defines and documents itself."""
    rows = []
    for name, member in vars(cls).items():
        target = member.__func__ if isinstance(member, staticmethod | classmethod) else member
        if name.startswith("_") or not (inspect.isfunction(target) or isinstance(target, property)):
            continue
        doc = inspect.getdoc(target)
        shape = "" if isinstance(target, property) else signature(target)
        rows.append(f"<dt><code>{escape(name + shape)}</code></dt><dd>{escape(doc or '')}</dd>")
    return ["<dl>", *rows, "</dl>"] if rows else []


def signature(value: object) -> str:
    """The parameters of a callable; nothing for what has none to show."""
    if not callable(value):
        return ""
    try:
        return str(inspect.signature(value))
    except (TypeError, ValueError):
        return ""


def write(target: Path, pages: dict[Path, str], reference: dict[str, str]) -> None:
    """All files of the site; links between pages lead to the rendered page."""
    where = {page: target / page.relative_to(ROOT).with_suffix(".html") for page in pages}
    if ROOT / "README.md" in where:
        where[ROOT / "README.md"] = target / "index.html"
    for page, body in pages.items():
        goal = where[page]
        goal.parent.mkdir(parents=True, exist_ok=True)
        goal.write_text(
            frame(page.stem, relink(page, body, where), navigation(goal, where, reference, target)), "utf-8"
        )
    for picture in sorted((ROOT / "docs").rglob("*.svg")):
        goal = target / picture.relative_to(ROOT)
        goal.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, goal)
    for module, body in reference.items():
        goal = target / f"reference-{module}.html"
        goal.write_text(frame(module, body, navigation(goal, where, reference, target)), "utf-8")


def relink(page: Path, body: str, where: dict[Path, Path]) -> str:
    """The page with its links to other pages pointing at their rendered form."""

    def moved(match: re.Match[str]) -> str:
        parts = urlsplit(html.unescape(match[1]))
        goal = where.get((page.parent / unquote(parts.path)).resolve()) if parts.path and not parts.scheme else None
        if goal is None:
            return match[0]
        fragment = f"#{parts.fragment}" if parts.fragment else ""
        return f'href="{html.escape(relative(where[page], goal) + fragment)}"'

    return _LINK.sub(moved, body)


def navigation(page: Path, where: dict[Path, Path], reference: dict[str, str], target: Path) -> str:
    """Links to every page and every module, as seen from `page`."""
    names = [(source.stem, goal) for source, goal in where.items()]
    names += [(module, target / f"reference-{module}.html") for module in reference]
    links = (f'<a href="{html.escape(relative(page, goal))}">{escape(name)}</a>' for name, goal in names)
    return f"<nav>{''.join(links)}</nav>"


def frame(title: str, body: str, nav: str) -> str:
    """A whole HTML page."""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}: daramjwee</title><style>{STYLE}</style>{nav}<main>{body}</main></html>\n"
    )


def relative(page: Path, goal: Path) -> str:
    """The way from one rendered page to another."""
    return Path(os.path.relpath(goal, page.parent)).as_posix()


def escape(text: str) -> str:
    """Text as HTML."""
    return html.escape(text, quote=False)


def shown(path: Path) -> str:
    """A path as messages name it: from the root of the repository where it lies below."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


if __name__ == "__main__":
    sys.exit(main())
