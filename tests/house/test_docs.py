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

import pytest

ROOT = Path(__file__).parents[2]
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


@pytest.mark.parametrize("page", [p for p in PAGES if program(p).strip()], ids=lambda p: str(p.relative_to(ROOT)))
def test_every_example_of_a_page_runs(page, origin, tmp_path):
    """The python examples of a page run from top to bottom, as one program, with warnings as errors."""
    script = tmp_path / "example.py"
    script.write_text(EXAMPLE_HOST.sub(origin, program(page)), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=50, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, f"{page.relative_to(ROOT)} (same line numbers):\n{done.stderr}"


def test_documentation_builds_and_every_link_leads_somewhere(tmp_path):
    """`make docs` renders each page and the reference of public names; a dead link fails it."""
    target = tmp_path / "docs"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "build_docs.py"), str(target)],
        env=environment, capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    index = (target / "index.html").read_text(encoding="utf-8")
    for link in re.findall(r'<a href="([^"#:]+)"', index):
        assert (target / link).exists(), link
    assert 'id="Cache"' in (target / "reference-daramjwee.html").read_text(encoding="utf-8")


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


def test_every_command_answers_help_with_status_zero():
    """`--help` works for each command, in a fresh process without a terminal."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    for name in commands():
        code = f"from daramjwee.cli.main import run; import sys; sys.argv = ['daramjwee', {name!r}, '--help']; run()"
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=50)
        assert done.returncode == 0, done.stderr
        assert name in done.stdout
