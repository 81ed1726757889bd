"""The entry point: versions, missing extras, errors nobody expected."""

from __future__ import annotations

import subprocess
import sys

import daramjwee as package


def python(daramjwee, code):
    """A fresh interpreter with our source on its path."""
    return subprocess.run(
        [sys.executable, "-c", code], env=daramjwee.environment(), capture_output=True, text=True, timeout=50
    )


def test_version_is_the_packages(daramjwee):
    """`--version` and `__version__` cannot differ."""
    done = daramjwee("--version")
    assert (done.returncode, done.stdout.decode()) == (0, f"daramjwee {package.__version__}\n")


def test_without_the_extra_one_line_says_what_to_install(daramjwee):
    """Neither typer nor rich: status 2 and the command that mends it, no traceback."""
    code = (
        "import sys, importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name in ('typer', 'rich') else real(name, *a)\n"
        "sys.modules['typer'] = sys.modules['rich'] = None\n"
        "from daramjwee.cli.main import run; run()"
    )
    done = python(daramjwee, code)
    assert done.returncode == 2
    assert done.stderr == 'daramjwee: the command line needs typer and rich: pip install "daramjwee[cli]"\n'


def test_importing_the_package_never_imports_the_command_line(daramjwee):
    """A program that caches has no use for it."""
    done = python(daramjwee, "import sys, daramjwee; print([m for m in sys.modules if 'daramjwee.cli' in m])")
    assert done.stdout == "[]\n", done.stderr


def test_an_error_nobody_expected_is_one_line_and_with_debug_a_traceback(daramjwee):
    """Status 1; what it was; how to see where it is from."""
    code = (
        "import sys, daramjwee.cli.get as g\n"
        "def fetch(*a, **k): raise RuntimeError('surprise')\n"
        "g.fetch = fetch\n"
        "from daramjwee.cli.main import run\n"
        "sys.argv = ['daramjwee', *{arguments}, 'get', 'http://example.org/']; run()"
    )
    done = python(daramjwee, code.format(arguments=[]))
    assert done.returncode == 1
    assert done.stderr.startswith("daramjwee: unexpected RuntimeError: surprise")
    assert len(done.stderr.splitlines()) == 1
    done = python(daramjwee, code.format(arguments=["--debug"]))
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_a_signal_that_comes_when_all_is_done_does_not_change_the_status(daramjwee):
    """The interpreter has given signals back to the system by then."""
    code = (
        "import os, signal, sys\n"
        "class Last:\n"
        "    def __del__(self, kill=os.kill, me=os.getpid(), numbers=(signal.SIGTERM, signal.SIGINT, signal.SIGHUP)):\n"
        "        for number in numbers: kill(me, number)\n"
        "last = Last()\n"
        "from daramjwee.cli.main import run\n"
        "sys.argv = ['daramjwee', '--version']; run()"
    )
    done = python(daramjwee, code)
    assert (done.returncode, done.stderr) == (0, "")
    assert package.__version__ in done.stdout


def test_no_command_and_an_unknown_command_are_usage_errors(daramjwee):
    """Status 2 for both; without a command the help is shown."""
    nothing = daramjwee()
    assert nothing.returncode == 2
    assert b"get" in nothing.stdout + nothing.stderr
    unknown = daramjwee("frobnicate")
    assert unknown.returncode == 2
    assert b"frobnicate" in unknown.stderr


def test_control_characters_of_a_url_do_not_reach_the_terminal(daramjwee, tmp_path):
    """A name from elsewhere cannot colour the screen or move the cursor."""
    done = daramjwee("get", "file:///tmp/no\x1b[31mred", "--cache", tmp_path / "cache")
    assert done.returncode == 4
    assert b"\x1b" not in done.stderr
