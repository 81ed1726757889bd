"""What the documentation shows is true: its examples run, its links lead somewhere, every command has its page."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import daramjwee
from daramjwee import buffers, config, policies, stores, testing

ROOT = Path(__file__).parents[2]
PUBLIC = (daramjwee, buffers, config, policies, stores, testing)
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# Hosts in examples are the reserved ones, which lead nowhere; while testing they lead to an origin on loopback.
EXAMPLE_HOST = re.compile(r"https?://(?:[a-z0-9-]+\.)*example(?:\.(?:com|org|net))?(?=[/\"'\s]|$)")


def program(page: Path) -> str:
    """The python fences of a page, each on the lines it has there, so that a traceback points into the page."""
    text = page.read_text(encoding="utf-8")
    lines = [""] * (text.count("\n") + 1)
    for match in FENCE.finditer(text):
        first = text.count("\n", 0, match.start(1))
        code = match[1].splitlines()
        lines[first : first + len(code)] = code
    return "\n".join(lines).rstrip() + "\n"


class AnyPath(BaseHTTPRequestHandler):
    """Answers every path with 300,000 bytes that depend on it."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = hashlib.sha256(self.path.encode()).digest() * 9375
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        """Stay quiet: pytest's output is for pytest."""


@pytest.fixture(scope="module")
def origin():
    """The URL of an origin on loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), AnyPath)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="origin of examples", daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


# The tutorial is several programs: test_tutorial.py.
PROGRAMS = [page for page in PAGES if program(page).strip() and page.name != "tutorial.md"]


@pytest.mark.parametrize("page", PROGRAMS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_example_of_a_page_runs(page, origin, tmp_path):
    """The python examples of a page run from top to bottom, as one program, with warnings as errors."""
    script = tmp_path / "example.py"
    script.write_text(EXAMPLE_HOST.sub(origin, program(page)), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=150, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, f"{page.relative_to(ROOT)} (same line numbers):\n{done.stderr}"


def build(source: Path, target: Path, builder: str = "html") -> subprocess.CompletedProcess[str]:
    """What `make docs` runs; the builder "dummy" checks and writes nothing."""
    return subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-n", "-W", "-E", "-b", builder, "-c", str(ROOT / "docs"), str(source), str(target)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, timeout=150,
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The whole site, built once."""
    target = tmp_path_factory.mktemp("site")
    done = build(ROOT, target)
    assert done.returncode == 0, done.stderr
    return target


def test_site_builds_without_a_warning_and_fetches_nothing(site):
    """Every link and anchor leads somewhere; a page looks the same without a network."""
    home = site / "docs" / "README.html"
    assert "docs/README.html" in (site / "index.html").read_text(encoding="utf-8")
    pages = [site / page.relative_to(ROOT).with_suffix(".html") for page in PAGES]
    assert [page for page in [home, *pages] if not page.is_file()] == []
    loaded = re.findall(r'<(?:script|img|link)\b[^>]*(?:src|href)="(https?:[^"]*)"', home.read_text(encoding="utf-8"))
    assert loaded == []


def test_site_tells_of_every_public_name_once(site):
    """docs/reference/ has all names of the public modules; a new one needs a line there."""
    lines = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.rst"))
    named = re.findall(r"^\.\. auto(?:class|function|data):: daramjwee\.(?:\w+\.)?(\w+)$", lines, re.MULTILINE)
    assert sorted(named) == sorted(set(named))
    wanted = {name for module in PUBLIC for name in module.__all__} - {"__version__"}
    assert set(named) == wanted, "a new name needs a line in a page of docs/reference/, one that is gone has one"
    shown = "\n".join(page.read_text(encoding="utf-8") for page in (site / "docs" / "reference").glob("*.html"))
    anchors = {name.rpartition(".")[2] for name in re.findall(r'<dt [^>]*id="(daramjwee\.[\w.]+)"', shown)}
    assert sorted(wanted - anchors) == []


def test_a_link_that_leads_nowhere_and_a_page_that_nobody_lists_fail_the_site(tmp_path):
    """The check is made by the build itself, so the build has to fail."""
    docs = tmp_path / "docs"
    docs.mkdir()
    first = "# One\n\n[gone](gone.md) [here](#nowhere) [there](other.md#nowhere)\n\n## Pages\n\n- [Other](other.md)\n"
    (docs / "README.md").write_text(first, encoding="utf-8")
    (docs / "other.md").write_text("# Other\n\nNothing.\n", encoding="utf-8")
    (docs / "lost.md").write_text("# Lost\n\nNothing.\n", encoding="utf-8")
    done = build(tmp_path, tmp_path / "out", "dummy")
    assert done.returncode == 1
    complaints = [line.partition(" WARNING: ")[2] for line in done.stderr.splitlines() if " WARNING: " in line]
    assert len(complaints) == 4, done.stderr
    for part in (
        "target not found: 'gone.md'",
        "target not found: 'nowhere'",
        "'docs/other': 'nowhere'",
        "any toctree",
    ):
        assert any(part in complaint for complaint in complaints), done.stderr


def commands() -> dict[str, str]:
    """Name and help of every command that `daramjwee` has."""
    from typer.main import get_command

    from daramjwee.cli.main import app

    return {name: command.help or "" for name, command in get_command(app).commands.items()}


def test_every_command_has_help_and_a_place_in_the_docs():
    """STYLE 14: the help text is the reference; docs/cli.md has a heading for each command."""
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    headings = {line.strip("# `") for line in page.splitlines() if line.startswith("#")}
    found = commands()
    assert found
    for name, text in found.items():
        assert len(text) > 20, f"daramjwee {name} --help says too little"
        assert any(heading.startswith(f"daramjwee {name}") for heading in headings), f"docs/cli.md lacks {name}"


# A command as pages show one: in code, or on a line of its own, after variables that it is given.
SHOWN = re.compile(r"(?:`|^(?:    |\$ )?)(?:[A-Z_]+=\S+ )*daramjwee((?: --debug)?(?: [a-z]+)+)([^`\n#]*)", re.MULTILINE)


def options_of(command: Any, name: str = "") -> dict[str, set[str]]:
    """The options of each command, those of groups for their commands, too."""
    own = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    below = [options_of(inner, f"{name} {word}") for word, inner in getattr(command, "commands", {}).items()]
    return {name: own} | {words: own | options for inner in below for words, options in inner.items()}


def test_every_command_and_option_that_a_page_shows_is_one():
    """What a reader types from a page is understood. (The format of files is no command line.)"""
    from typer.main import get_command

    from daramjwee.cli.main import app

    known = options_of(get_command(app))
    seen = 0
    for page in PAGES:
        for words, rest in SHOWN.findall(page.read_text(encoding="utf-8")) if page.parent.name != "design" else ():
            name = words.removeprefix(" --debug")
            while name and name not in known:
                name = name.rpartition(" ")[0]
            assert name, f"{page.name}: there is no command daramjwee{words}"
            given = set(re.findall(r"(?<= )--[a-z][a-z-]*", rest))
            assert given <= known[name], f"{page.name}: daramjwee{name} has no {sorted(given - known[name])}"
            seen += 1
    assert seen > 50


HELP = """
import sys
from daramjwee.cli.main import run
for name in sys.argv[1:]:
    sys.argv = ["daramjwee", name, "--help"]
    try:
        run()
    except SystemExit as end:
        print(f"{name}: status {end.code}")
"""


def test_every_command_answers_help_with_status_zero():
    """`--help` works for each command, in a fresh process without a terminal."""
    names = list(commands())
    done = subprocess.run(
        [sys.executable, "-c", HELP, *names],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, timeout=150,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^(.+): status 0$", done.stdout, re.MULTILINE) == names
    assert all(f"daramjwee {name}" in done.stdout for name in names)
