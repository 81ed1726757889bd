"""What the bytes of a file can have wrong with it, whatever they are."""

from __future__ import annotations

import json
import os
import socket
import sys

import pytest

from daramjwee import ConfigError
from daramjwee.config import CacheConfig, examine, load
from daramjwee.config.draft import MOST_UNCOVERED
from daramjwee.config.migrate import migrate
from daramjwee.config.parse import MOST_PARTS, Unread, parsed
from daramjwee.config.tables import MOST_TIERS

DEEP: object = 1
for _ in range(600):
    DEEP = [DEEP]
HUGE = 10**6000
LOADING = sys.modules["daramjwee.config.load"]  # its name is that of the function, too
MANY = 200_000


def refusal(data, kind="toml"):
    with pytest.raises(Unread) as caught:
        parsed(data if isinstance(data, bytes) else data.encode(), kind)
    return f"{caught.value.seen}: {caught.value}"


@pytest.mark.parametrize(
    ("kind", "data", "said"),
    [
        ("toml", ".".join("a" * MANY) + " = 1", "line 1: has a name of more than 50 parts"),
        ("toml", "a = 1\n[" + " . ".join("a" * MANY) + "]", "line 2: has a name of more than 50 parts"),
        ("toml", ".".join(['"\\""'] * MANY) + " = 1", "line 1: has a name of more than 50 parts"),
        ("toml", ".".join(["'a b'"] * MANY) + " = 1", "line 1: has a name of more than 50 parts"),
        ("toml", "a = {" + ".".join("a" * MANY) + " = 1}", "line 1: has a name of more than 50 parts"),
        ("toml", "a = " + "[" * MANY, "nesting: is deeper than that of any setting"),
        ("toml", "a = " + "{a = " * MANY, "nesting: is deeper than that of any setting"),
        ("json", "[" * MANY, "nesting: is deeper than that of any setting"),
        ("json", '{"a":' * MANY, "nesting: is deeper than that of any setting"),
        ("json", '{"a": ' + "9" * MANY + "}", "line 1: is no JSON: Integer value out of range"),
        ("json", '{"a":\nNaN}', "line 2: is no JSON: invalid character"),
        ("json", '{"a": Infinity}', "line 1: is no JSON: invalid character"),
        ("json", '{"a": 1e999}', "line 1: is no JSON: Number out of range"),
        ("json", '{"a": 1,}', "line 1: is no JSON: trailing comma in object"),
        ("json", '{"workers": 1, "workers": 2}', "workers: stands twice in one table; leave one of them out"),
        ("json", '{"tiers": [{"type": "memory", "ty\\u0070e": "file"}]}', "type: stands twice in one table"),
        ("toml", "a = 1\na = 2", "line 2: is no TOML: Cannot overwrite a value"),
        ("toml", "a = 1\n".encode("utf-16"), "line 1: has a NUL in it and so is no text in UTF-8 (UTF-16 has them)"),
        ("json", '{"a": 1}'.encode("utf-16-le"), "line 1: has a NUL in it"),
        ("toml", b"a = 1\nb = \0", "line 2: has a NUL in it"),
        ("toml", b"a = '\xe9'", "line 1: is no text in UTF-8"),
    ],
    ids=lambda value: repr(value)[:40],
)  # fmt: skip
def test_a_file_that_says_nothing_is_told_by_its_place(kind, data, said):
    """At once, however many there are of what is wrong; and no value is shown."""
    assert refusal(data, kind).startswith(said)


def test_what_editors_add_is_no_fault():
    """A mark of byte order, line ends of Windows, and as many dots as there may be."""
    assert parsed(b"\xef\xbb\xbfworkers = 2\r\n[buffers]\r\nenabled = true\r\n", "toml")["buffers"] == {"enabled": True}
    assert parsed(b'\xef\xbb\xbf{"workers": 2}\r\n', "json") == {"workers": 2}
    key = ".".join(["a"] * MOST_PARTS)
    assert parsed(f"{key} = 1".encode(), "toml")
    # Dots in text, in numbers and in comments are none of a name.
    assert parsed(b"# " + b"." * MANY + b"\na = [" + b"1.5, " * 1000 + b"]\nb = '" + b"../" * 1000 + b"'", "toml")


@pytest.mark.parametrize(
    "name", ["", "buffers.", "freshness.", "origin.", "origin.headers.", "tiers.", "tiers[0].", "tiers.memory."]
)
def test_a_name_of_very_many_parts_is_refused_as_any_other(name):
    """Its dots are not gone through one by one; of the name only the ends are shown."""
    long = name + ".".join("a" * MANY)
    for found in (
        examine({long: 1, "origin": "https://x/"}, environ={}),
        examine({"origin": "https://x/"}, environ={}, changes={long: 1}),
    ):
        (problem,) = found.problems
        assert "is longer than the name of any setting" in problem.mend or "is no field" in problem.mend
        assert len(str(problem)) < 500


@pytest.mark.parametrize(
    "odd",
    [DEEP, HUGE, {1: HUGE}, {HUGE: 1}, {(1, HUGE): 1}],
    ids=["deep", "huge", "huge-inside", "huge-name", "huge-in-name"],
)
@pytest.mark.parametrize(
    "name", ["schema", "enabled", "Enabled", "BufferPool", "HotStore", "WorkerPoolSize", "PositiveFreshFor", "x", "tiers"]
)  # fmt: skip
def test_a_value_that_cannot_be_shown_is_a_problem_in_every_schema(name, odd):
    """Beside names of any schema, too."""
    for others in ({}, {"workers": 1}, {"Enabled": True}, {"enabled": True}):
        problems = examine({**others, name: odd}, environ={}).problems
        assert any(problem.field == name and "any setting" in problem.mend for problem in problems)
        assert all(len(str(problem)) < 1000 for problem in problems)


@pytest.mark.parametrize(
    "name",
    [1, None, b"x", (1, 2), 1.5, HUGE, (HUGE,)],
    ids=["int", "None", "bytes", "tuple", "float", "huge", "huge-inside"],
)
def test_a_name_that_is_no_text_is_a_problem(name):
    """Its value is not shown: there is no name that says whether it is a secret."""
    (problem,) = examine({name: "hunter2"}, environ={}).problems
    assert "names are text" in problem.mend and "hunter2" not in str(problem)


def test_durations_of_the_go_library_are_what_go_can_say():
    """Neither a number of any length nor a text of any length takes time or overflows."""
    for value in (1 << 63, 10**400, "9" * 400 + "h", "1" * MANY, "1h" * MANY, "1" * 90 + "x", "292y"):
        (problem,) = examine({"PositiveFreshFor": value}, environ={}).problems
        assert problem.field == "PositiveFreshFor" and "nanoseconds" in problem.mend
    assert load({"PositiveFreshFor": "1h30m"}, environ={}).config.freshness.fresh == 5400
    assert load({"PositiveFreshFor": (1 << 63) - 1}, environ={}).config.freshness.fresh > 9e9


def test_more_tiers_than_anybody_wants_are_one_problem():
    """Those that are too many are not compared with each other; what is wrong with the others is told."""
    tiers = [{"type": "file", "folder": f"f{index}", "capacity": "1MiB"} for index in range(MANY // 10)]
    (problem,) = examine({"tiers": tiers}, environ={}).problems
    assert str(problem).startswith(f"tiers = '20,000 tiers': are more than {MOST_TIERS}")
    assert examine({"tiers": tiers[:MOST_TIERS]}, environ={}).config is not None
    tiers[1] = {"type": "memory", "capacity": "x"}
    changes = {f"tiers[{index}].capacity": "y" for index in range(MOST_TIERS)}
    fields = [problem.field for problem in examine({"tiers": tiers}, environ={}, changes=changes).problems]
    assert {"tiers", *changes} == set(fields)
    assert len(fields) <= 1 + len(changes) + MOST_UNCOVERED


# -- files that are none ---------------------------------------------------------------------------------------


@pytest.fixture
def special(tmp_path):
    """What is no regular file, by name."""
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "zero.toml").symlink_to("/dev/zero")
    (tmp_path / "null.json").symlink_to("/dev/null")
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "loop.toml").symlink_to("loop.toml")
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.getcwd()
        os.chdir(tmp_path)  # the path of a socket must be short
        try:
            listening.bind("socket.toml")
        finally:
            os.chdir(here)
        yield tmp_path


@pytest.mark.parametrize(
    "name", ["pipe.toml", "zero.toml", "null.json", "folder.toml", "loop.toml", "socket.toml", "folder.toml/a.toml"]
)
def test_what_is_no_regular_file_is_refused_at_once(special, name):
    """Nothing is waited for; to migrate it is refused, too."""
    path = str(special / name)
    (problem,) = examine(path, environ={}).problems
    assert problem.field == path
    with pytest.raises((ConfigError, OSError)):
        migrate(path)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    """Half of the old one and half of the new one may say what nobody meant; one that is replaced is read whole."""
    path = tmp_path / "a.toml"
    path.write_text("workers = 2\n")
    replaced = tmp_path / "b.toml"

    def regular_and(then):
        def is_regular(file):
            then()
            return True

        return is_regular

    def append():
        with path.open("a") as file:
            file.write("memory_limit = '64MiB'\n")

    def replace():
        replaced.write_text("workers = 3\n")
        os.replace(replaced, path)

    monkeypatch.setattr(LOADING, "is_regular", regular_and(append))
    (problem,) = examine(path, environ={}).problems
    assert problem.mend == "was changed while it was read; try again"
    path.write_text("workers = 2\n")
    monkeypatch.setattr(LOADING, "is_regular", regular_and(replace))
    assert load(path, environ={}).config == CacheConfig(workers=2)


def test_a_problem_shows_nothing_of_the_file(tmp_path):
    """It may be a file of secrets, named by mistake."""
    secret = "hunter2-4711"
    for name, text in (
        ("a.toml", f"password = {secret}"),
        ("a.toml", f'password = "{secret}'),
        ("a.toml", f'password = "{secret}"\npassword = "{secret}"'),
        ("a.toml", secret),
        ("a.json", f'{{"password": {secret}}}'),
        ("a.json", f'{{"password": "{secret}'),
        ("a.json", json.dumps([secret])),
        ("a.json", f'"{secret}"'),
        ("a.json", f'{{"password": "{secret}", "password": "{secret}"}}'),
        ("a.toml", f"password = '{secret}'"),
        ("a.json", json.dumps({"password": [secret], "Enabled": True, "workers": 1})),
    ):
        path = tmp_path / name
        path.write_text(text)
        found = examine(path, environ={})
        assert found.problems and secret not in repr(found)
        with pytest.raises(ConfigError) as caught:
            migrate(str(path))
        chain = [caught.value, caught.value.__cause__, caught.value.__context__]
        assert secret not in "".join(f"{error!r} {error}" for error in chain)
