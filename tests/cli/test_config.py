"""`daramjwee config show | check | recommend`, as a person runs them."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from daramjwee.buffers.insight.advice import RULES
from daramjwee.cli.config import check_config, show_config
from daramjwee.cli.config_machine import look
from daramjwee.cli.config_view import duration_text, size_text, text_of
from daramjwee.config import CacheConfig
from daramjwee.config.load import examine
from daramjwee.config.settings import SETTINGS
from daramjwee.units import parse_duration, parse_size

SECONDS = 50
GOOD = """
memory_limit = "64MiB"

[[tiers]]
type = "memory"
capacity = "16MiB"

[[tiers]]
type = "file"
folder = "tier"
capacity = 1500000000

[origin]
type = "http"
base = "https://example.org/objects/"
headers = { authorization = { env = "OBJECTS_TOKEN" } }

[freshness]
fresh = "90s"

[buffers]
max_concurrent_large_ops = 4
"""
BAD = """
workers = 0
colour = "red"

[[tiers]]
type = "file"
folder = "tier"
capacity = "1 parsec"
verfy = "first"

[[tiers]]
type = "tape"

[origin]
type = "http"
base = "https://joe:hunter2@example.org/"
headers = { authorization = "Bearer hunter2" }

[buffers]
min_buffer_size = "2MiB"
"""
# Field, what its problem says of what to do.
BAD_FIELDS = {
    "workers": "from 1 to 1024",
    "colour": "is no field",
    "tiers[0].capacity": '"20GiB"',
    "tiers[0].verfy": "did you mean verify?",
    "tiers[1].type": "give memory or file",
    "origin.base": "send it as a header",
    "origin.headers.authorization": '{ env = "NAME" }',
    "buffers.min_buffer_size": "lower it or raise the other",
}


@pytest.fixture
def good(tmp_path):
    """A configuration without a fault, in a folder of its own."""
    path = tmp_path / "good" / "cache.toml"
    path.parent.mkdir()
    path.write_text(GOOD)
    return path


@pytest.fixture
def bad(tmp_path):
    """One with a fault of every kind."""
    path = tmp_path / "bad.toml"
    path.write_text(BAD)
    return path


@pytest.fixture(autouse=True)
def nothing_inherited(monkeypatch):
    """No setting of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("DARAMJWEE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OBJECTS_TOKEN", "hunter2")


def rows(done):
    """The table of a `config show`: field, and the other columns."""
    lines = done.stdout.decode().splitlines()
    assert lines[0].split() == ["setting", "value", "source"]
    cut = [lines[0].index(word) for word in ("value", "source")]
    return {line[: cut[0]].strip(): (line[cut[0] : cut[1]].strip(), line[cut[1] :].strip()) for line in lines[1:]}


def tree(folder):
    """Everything below a folder, with what would show a change."""
    return {path: (path.lstat().st_mtime_ns, path.lstat().st_mode) for path in [folder, *folder.rglob("*")]}


# -- show ----------------------------------------------------------------------------------------------------------


def test_without_anything_every_setting_has_its_default(daramjwee):
    """As docs/settings.md has them."""
    done = daramjwee("config", "show")
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    shown = rows(done)
    defaults = {
        setting.path: setting.default
        for setting in SETTINGS
        if setting.path.partition(".")[0] in ("memory_limit", "workers", "freshness", "buffers")
    }
    words = {None: "none", True: "true", False: "false"}
    for path, default in defaults.items():
        text, source = shown[path]
        assert source == "default"
        assert text == words.get(default, str(default)) or (text, default) == ("1m", "60s"), path
    assert shown["tiers[0].type"] == ("memory", "default") and shown["tiers[0].capacity"] == ("256MiB", "default")


def test_each_value_is_shown_with_where_it_came_from(daramjwee, good, monkeypatch):
    """An argument before the environment, that before the file, that before the default; secrets as references."""
    monkeypatch.setenv("DARAMJWEE_MEMORY_LIMIT", "128MiB")
    monkeypatch.setenv("DARAMJWEE_BUFFERS_ACQUIRE_TIMEOUT", "5s")
    monkeypatch.setenv("DARAMJWEE_BUFFERS_MAX_IDLE_AGE", "5s")
    done = daramjwee("config", "show", good, "--set", "buffers.max_idle_age=2m", "--set", "workers=7")
    assert done.returncode == 0, done.stderr
    shown = rows(done)
    assert shown["memory_limit"] == ("128MiB", "environment DARAMJWEE_MEMORY_LIMIT")
    assert shown["buffers.acquire_timeout"] == ("5s", "environment DARAMJWEE_BUFFERS_ACQUIRE_TIMEOUT")
    assert shown["buffers.max_idle_age"] == ("2m", "argument")
    assert shown["workers"] == ("7", "argument")
    assert shown["buffers.chunk_size"] == ("none", "default")
    for field, text in {
        "tiers[0].capacity": "16MiB", "tiers[1].capacity": "1500000000", "freshness.fresh": "90s",
        "buffers.max_concurrent_large_ops": "4", "origin.headers.authorization": "env OBJECTS_TOKEN",
        "tiers[1].folder": str(good.parent / "tier"),
    }.items():  # fmt: skip
        value, source = shown[field]
        assert value == text and source.startswith("file ") and source.endswith("cache.toml"), field
    assert b"hunter2" not in done.stdout
    changed = rows(daramjwee("config", "show", good, "--changed"))
    assert "buffers.chunk_size" not in changed and "freshness.fresh" in changed


def test_json_is_a_configuration_again(daramjwee, good, tmp_path):
    """What is printed makes an equal one, and names each field with its source."""
    done = daramjwee("config", "show", good, "--json")
    told = json.loads(done.stdout)
    assert told["schema"] == 3
    mapping = {name: value for name, value in told["config"].items() if name != "schema"}
    assert CacheConfig(**mapping) == examine(good, environ={}).config
    fields = {row["field"]: row for row in told["fields"]}
    assert fields["tiers[1].capacity"]["value"] == 1_500_000_000
    assert fields["freshness.fresh"] | {"source": ""} == {
        "field": "freshness.fresh", "value": 90.0, "text": "90s", "source": "",
    }  # fmt: skip


def test_tiers_as_text_the_file_of_the_environment_and_a_secret_by_option(daramjwee, good, monkeypatch):
    """Everything that may stand for a source, and every kind of value for --set."""
    shown = rows(daramjwee("config", "show", "memory:8MiB;file:/srv/x?capacity=1GiB&verify=always", "--changed"))
    assert (shown["tiers[0].capacity"][0], shown["tiers[1].verify"][0]) == ("8MiB", "always")
    assert all(source != "default" for _, source in shown.values())
    monkeypatch.setenv("DARAMJWEE_CONFIG", str(good))
    shown = rows(
        daramjwee(
            "config", "show", "--set", 'origin.headers.cookie={ file = "/run/secrets/c" }', "--set",
            "freshness.fresh=none", "--set", "buffers.enabled=false",
        )
    )  # fmt: skip
    assert shown["origin.headers.cookie"] == ("file /run/secrets/c", "argument")
    assert (shown["freshness.fresh"][0], shown["buffers.enabled"][0]) == ("none", "false")
    assert shown["memory_limit"][0] == "64MiB"


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (0, '{"BufferPool": {"Enabled": true, "DefaultBufferSize": 65536}}'),
        (1, '{"default_buffer_size": "64KiB"}'),
        (2, '{"default_buffer_size": "64KiB", "chunk_size": null}'),
    ],
)
def test_files_of_earlier_schemas_are_read_as_they_are(capsys, tmp_path, schema, text):
    """With their schema told, and how to bring them up to date."""
    path = tmp_path / "old.json"
    path.write_text(text)
    assert show_config(str(path), json=True) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == schema
    assert told["config"]["buffers"]["default_buffer_size"] == 64 * 1024
    warned = examine(path, environ={}).warnings
    assert any(it.field == "schema" and "daramjwee config migrate" in it.mend for it in warned)


def test_a_terminal_gets_a_table(daramjwee, good):
    """With what is no default standing out."""
    outside, inside = pty.openpty()
    process = subprocess.Popen(
        daramjwee.line("config", "show", good), env=daramjwee.environment() | {"TERM": "xterm-256color"},
        stdin=inside, stdout=inside, stderr=inside,
    )  # fmt: skip
    os.close(inside)
    seen = b""
    try:
        while piece := os.read(outside, 65536):
            seen += piece
    except OSError:
        pass  # how a terminal says that nobody is there any more
    os.close(outside)
    assert process.wait(SECONDS) == 0
    assert b"\x1b[1m" in seen and b"16MiB" in seen


def test_a_bad_configuration_is_one_error_with_all_its_problems(daramjwee, bad):
    """Status 2, nothing on standard output, no secret anywhere."""
    done = daramjwee("config", "show", bad)
    assert (done.returncode, done.stdout) == (2, b"")
    told = done.stderr.decode()
    assert re.match(rf"daramjwee: .*bad\.toml has {len(BAD_FIELDS)} problems:", told), told
    assert all(f"\n  {field} = " in told for field in BAD_FIELDS)
    assert "hunter2" not in told


def test_a_password_typed_as_a_source_is_not_repeated(daramjwee):
    """Somebody took the origin for the tiers."""
    done = daramjwee("config", "show", "https://joe:hunter2@example.org/")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"configuration has 1 problem" in done.stderr and b"hunter2" not in done.stderr


@pytest.mark.parametrize("arguments", [("", "--set", "workers", "--set", "=3"), ("nowhere.toml",)])
def test_arguments_that_cannot_be_are_usage_errors(daramjwee, arguments):
    """Each names what to give instead."""
    done = daramjwee("config", "show", *arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"problem" in done.stderr


@pytest.mark.parametrize("count", [0, 1, 1000, 1024, 1536, 5 << 20, 3 << 30, 1 << 40, 1_500_000_000])
def test_a_size_that_is_shown_may_be_typed_in_again(count):
    """It is the same, to the byte."""
    assert parse_size(size_text(count)) == count


@pytest.mark.parametrize(
    "seconds", [0, 0.25, 1.5, 1.0, 30.0, 60, 90.0, 3600, 86400.0, 7 * 86400, 1 / 3, 1e-10, 1e22, 1e300]
)
def test_a_duration_that_is_shown_may_be_typed_in_again(seconds):
    """It is the same, to the last digit, and never written with an exponent."""
    assert parse_duration(duration_text(seconds)) == seconds


def test_a_count_is_no_size():
    """Whatever it ends with."""
    assert text_of("origin.pool_size", 1024) == "1024" and text_of("buffers.chunk_size", 1024) == "1KiB"


# -- check ---------------------------------------------------------------------------------------------------------


def test_a_sound_configuration_passes_and_nothing_is_made(daramjwee, good):
    """Not even the folder that the cache would make."""
    before = tree(good.parent)
    done = daramjwee("config", "check", good)
    assert done.returncode == 0, done.stdout
    assert done.stdout.decode().splitlines()[-1].startswith("no problem, ")
    assert tree(good.parent) == before


def test_nothing_at_all_falls_back_to_the_defaults(daramjwee, tmp_path):
    """No file, and an empty one: a cache in memory, of which nothing is unwise."""
    (tmp_path / "empty.toml").write_text("")
    done = daramjwee("config", "check", tmp_path / "empty.toml", "--strict")
    assert done.returncode == 0, done.stdout
    assert examine(tmp_path / "empty.toml", environ={}).config == CacheConfig() == examine(environ={}).config
    assert daramjwee("config", "show", "--changed").stdout == b"every setting has its default\n"


def test_every_problem_is_told_with_its_value_its_mend_and_its_source(daramjwee, bad, monkeypatch):
    """For people and for programs; those of the environment, too."""
    monkeypatch.setenv("DARAMJWEE_FRESHNESS_FRESH", "soon")
    monkeypatch.setenv("DARAMJWEE_MEMORY_LIMT", "1GiB")
    done = daramjwee("config", "check", bad, "--set", "freshness.negative=-1", "--json")
    assert done.returncode == 2
    problems = {row["field"]: row for row in json.loads(done.stdout)["problems"]}
    for field, mend in BAD_FIELDS.items():
        assert mend in problems[field]["mend"], field
        assert problems[field]["source"].endswith("bad.toml"), field
    assert problems.pop("freshness.fresh") == {
        "field": "freshness.fresh", "value": "soon", "source": "environment DARAMJWEE_FRESHNESS_FRESH",
        "mend": 'give seconds, a timedelta, or text such as "30s", "5m", "1h", "7d", or None',
    }  # fmt: skip
    assert problems.pop("freshness.negative")["source"] == "argument"
    assert "DARAMJWEE_MEMORY_LIMIT" in problems.pop("DARAMJWEE_MEMORY_LIMT")["mend"]
    assert problems.keys() == BAD_FIELDS.keys()
    assert b"hunter2" not in done.stdout
    text = daramjwee("config", "check", bad).stdout.decode()
    assert re.search(
        r"^problem  workers = 0 \(file .*bad\.toml\)\n +-> must be an int from 1 to 1024$", text, re.MULTILINE
    )
    assert text.splitlines()[-1].startswith("10 problems: no cache can be made of it")
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("name", "text"),
    [("x.toml", "a b c"), ("x.json", "{"), ("x.toml", "schema = 99"), ("x.yaml", "a: 1")],
)
def test_a_file_that_cannot_be_read_as_one_is_a_problem(capsys, tmp_path, name, text):
    """What is wrong with it, and no other."""
    (tmp_path / name).write_text(text)
    assert check_config(str(tmp_path / name), json=True) == 2
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert problem["mend"] and problem["source"] == f"file {tmp_path / name}"


def test_what_is_unwise_passes_unless_it_is_to_be_strict(daramjwee, capsys):
    """Legal, and hardly meant: told with its reason and what to do."""
    given = "buffers.max_pool_bytes=4GiB"
    done = daramjwee("config", "check", "--set", given)
    assert done.returncode == 0
    assert re.search(
        r"^unwise   buffers\.max_pool_bytes = 4GiB: .+ \(argument\)\n +-> ", done.stdout.decode(), re.MULTILINE
    )
    assert check_config(changes=[given], strict=True, json=True) == 10
    assert "buffers.max_pool_bytes" in {row["field"] for row in json.loads(capsys.readouterr().out)["unwise"]}


def test_what_only_the_machine_can_tell_is_told(daramjwee, tmp_path, monkeypatch):
    """Folders, secrets, certificates, memory: each by the field it is about, with status 10."""
    monkeypatch.delenv("OBJECTS_TOKEN")
    (tmp_path / "file").write_text("")
    (tmp_path / "diary").mkdir()
    (tmp_path / "diary" / "today.txt").write_text("")
    config = {
        "memory_limit": "1024TiB",
        "tiers": [
            {"type": "file", "folder": str(tmp_path / "file" / "tier"), "capacity": "1GiB"},
            {"type": "file", "folder": str(tmp_path / "diary"), "capacity": "1GiB", "free_space_floor": "1024TiB"},
        ],
        "origin": {
            "type": "http", "base": "https://example.org/", "verify": str(tmp_path / "nowhere.pem"), "retries": 100,
            "headers": {"authorization": {"env": "OBJECTS_TOKEN"}, "cookie": {"file": str(tmp_path / "no")}},
        },
    }  # fmt: skip
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    before = tree(tmp_path)
    done = daramjwee("config", "check", path, "--json")
    assert done.returncode == 10, done.stderr
    told = json.loads(done.stdout)
    assert told["problems"] == []
    # What is unwise is told all the same, but not twice.
    unwise = {row["field"] for row in told["unwise"]}
    # Temporary files may be in memory here, which is told of their folders.
    assert unwise - {"tiers[0].folder", "tiers[1].folder"} == {"freshness.fresh", "origin.retries"}
    found = {row["field"] for row in told["machine"] if row["state"] == "problem"}
    assert found >= {
        "memory_limit", "tiers[0].folder", "tiers[1].folder", "tiers[1].free_space_floor", "origin.verify",
        "origin.headers.authorization", "origin.headers.cookie",
    }  # fmt: skip
    assert all(row["remedy"] for row in told["machine"])
    assert {path: was for path, was in tree(tmp_path).items() if "home" not in path.parts} == {
        path: was for path, was in before.items() if "home" not in path.parts
    }


def test_folders_of_others_and_parts_that_a_program_made_are_told(tmp_path, monkeypatch):
    """Here as any user is told who is not root; what is given by a program is worth a note."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    folder = str(tmp_path)
    files = CacheConfig(
        tiers=[{"type": "file", "folder": folder, "capacity": 1}], origin={"type": "file", "folder": folder}
    )
    told = {(answer.field, answer.check.name): answer.check for answer in look(files)}
    assert told["tiers[0].folder", "folder_writable"].state == "problem"
    assert told["origin.folder", "origin_folder"].remedy.startswith("let the user who runs the cache read it")
    given = CacheConfig(tiers=[{"type": "given", "name": "mine"}], origin={"type": "given", "name": "fetch"})
    told = {answer.field: answer.check for answer in look(given)}
    assert told["tiers[0]"].state == "note" and "the store mine" in told["tiers[0]"].seen
    assert told["origin"].state == "note" and "the origin fetch" in told["origin"].seen


def test_what_the_doctor_would_try_is_left_to_the_doctor(tmp_path):
    """A folder that is not there yet is as good as one that is; nothing points to a check that was not made."""
    tier = {"type": "file", "folder": str(tmp_path / "new"), "capacity": "1GiB"}
    told = look(CacheConfig(tiers=[tier]))
    assert [answer.check.state for answer in told if answer.check.name == "folder"] == ["ok"]
    assert not any("folder_operations" in answer.check.remedy for answer in told)
    assert list(tmp_path.iterdir()) == []


def test_an_extra_that_is_missing_is_named(daramjwee, good):
    """With what to install."""
    code = (
        "import sys, importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'urllib3' else real(name, *a)\n"
        "from daramjwee.cli.main import run\n"
        f"sys.argv = ['daramjwee', 'config', 'check', {str(good)!r}]; run()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=daramjwee.environment(), capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 10, done.stderr
    assert 'pip install "daramjwee[http]"' in done.stdout


def test_an_origin_whose_folder_is_not_there_is_told(capsys, tmp_path):
    """And one that is there is not."""
    for folder, status in ((tmp_path, 0), (tmp_path / "nowhere", 10)):
        assert check_config(changes=[f'origin={{ type = "file", folder = "{folder}" }}']) == status
        assert ("origin.folder: " in capsys.readouterr().out) == (status == 10)


# -- recommend -----------------------------------------------------------------------------------------------------

# Copies 64 large objects by chunks that are far too small, offers its dashboard, and waits until it is told to end.
PROGRAM = """
import io, sys
from daramjwee import Cache
from daramjwee.buffers.pressure import MemoryPressure
MemoryPressure.__init__.__kwdefaults__["root"] = sys.argv[2]
class Source:
    def __init__(self):
        self.left = 1 << 20
    def read(self, size):
        taken = min(size, self.left)
        self.left -= taken
        return bytes(taken)
class Sink:
    def write(self, data):
        return len(data)
with Cache.from_config(sys.argv[1]) as cache:
    for _ in range(64):
        cache.buffers.copy(Source(), Sink(), 1 << 20)
    print(cache.offer_dashboard().path, flush=True)
    sys.stdin.readline()
"""
SLOW = """
tiers = "file:tier?capacity=64MiB"

[buffers]
default_buffer_size = "8KiB"
max_buffer_size = "32KiB"
"""


@pytest.fixture
def slow(daramjwee, tmp_path):
    """A configuration with chunks that are too small, and a process that runs with it."""
    path = tmp_path / "slow.toml"
    path.write_text(SLOW)
    calm = tmp_path / "calm"
    (calm / "proc").mkdir(parents=True)
    (calm / "proc" / "meminfo").write_text("MemTotal:       16777216 kB\nMemAvailable:   12582912 kB\n")
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM, path, calm], env=daramjwee.environment(), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    socket = Path(process.stdout.readline().strip())
    yield path, socket
    process.communicate("\n", timeout=SECONDS)
    assert process.returncode == 0


def test_a_running_process_is_judged_and_the_output_is_a_configuration(daramjwee, slow, tmp_path):
    """By its folder, its socket, or its configuration; what is printed passes the check, and has the reasons."""
    path, socket = slow
    fragment = tmp_path / "fragment.toml"
    for place in ([socket.parent, path], [path]):
        done = daramjwee("config", "recommend", *place)
        assert done.returncode == 0, done.stderr
        fragment.write_bytes(done.stdout)
        config = examine(fragment, environ={}).config
        assert config.buffers.default_buffer_size == 256 * 1024 == config.buffers.max_buffer_size
    assert re.search(
        r"^# warning: 64 copies were moved in .+: fewer calls for each byte", done.stdout.decode(), re.MULTILINE
    )
    assert b'default_buffer_size = "256KiB"  # now 8KiB' in done.stdout
    checked = daramjwee("config", "check", fragment)
    assert checked.returncode == 0, checked.stdout
    told = json.loads(daramjwee("config", "recommend", socket, "--json").stdout)
    assert told["changes"] == {"default_buffer_size": 256 * 1024, "max_buffer_size": 256 * 1024}
    assert told["operations"] >= 64 and told["problems"] == []
    assert all(row["proposed"] == 256 * 1024 and row["current"] < row["proposed"] for row in told["findings"])
    assert {row["code"] for row in told["findings"]} == {"chunk_small"} <= {rule.code for rule in RULES}


def test_changes_that_do_not_fit_the_configuration_are_told(daramjwee, slow, tmp_path, monkeypatch):
    """Contradictions, and what the environment overrides."""
    _, socket = slow
    other = tmp_path / "other.toml"
    other.write_text('[buffers]\nmin_buffer_size = "512KiB"\ndefault_buffer_size = "512KiB"\n')
    done = daramjwee("config", "recommend", socket, other)
    assert done.returncode == 2, done.stdout
    assert b"# not with the configuration that was named: buffers.min_buffer_size" in done.stdout
    differs = b"# It runs with other settings than the configuration that was named: "
    assert differs + b"default_buffer_size, min_buffer_size, max_buffer_size.\n" in done.stdout
    monkeypatch.setenv("DARAMJWEE_BUFFERS_DEFAULT_BUFFER_SIZE", "16KiB")
    done = daramjwee("config", "recommend", socket)
    assert done.returncode == 0
    assert b"# environment DARAMJWEE_BUFFERS_DEFAULT_BUFFER_SIZE counts before the file" in done.stdout


def test_without_a_process_it_points_to_the_calibration(daramjwee, tmp_path):
    """Status 4 where none is; status 2 where nobody said where to look."""
    done = daramjwee("config", "recommend", tmp_path)
    assert (done.returncode, done.stdout) == (4, b"")
    assert b"daramjwee bench --calibrate" in done.stderr
    done = daramjwee("config", "recommend")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"daramjwee bench --calibrate" in done.stderr
    done = daramjwee("config", "recommend", tmp_path / "gone.toml")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"gone.toml = 'No such file or directory': cannot be read" in done.stderr


@pytest.mark.parametrize("command", ["show", "check", "recommend", "migrate"])
def test_no_command_shows_a_secret_that_stands_where_none_belongs(daramjwee, tmp_path, command):
    """In a file, in place of one, in a --set; in text, in JSON, and with the places that --debug shows."""
    marker = "Hunter2Zq"
    url = f"https://u:{marker}@example.org"
    path = tmp_path / "cache.json"
    path.write_text(
        json.dumps(
            {
                "memory_limit": url,
                "workers": {"token": marker},
                "buffers": {"chunk_size": f"Bearer {marker}", url: 1},
                "origin": {"type": "http", "base": url, "headers": {f"authorization: {marker}": "", "x": [marker]}},
                "tiers": [{"type": "file", "folder": url, "capacity": url}],
                f"password={marker}": marker,
            }
        )
    )
    changes = ["--set", f"workers={url}", "--set", f"x={{token='{marker}'}}"]
    for arguments in {
        "show": [[path], [f"{url}/a.toml"]],
        "check": [[path], ["--json", path], changes, ["--set", f"token {marker}"]],
        "recommend": [[path], [f"Bearer {marker}"]],
        "migrate": [[path], [f"Bearer {marker}"]],
    }[command]:
        ran = daramjwee("--debug", "config", command, *arguments)
        assert ran.returncode in (2, 4)
        assert marker.encode() not in ran.stdout + ran.stderr
        assert b"unexpected" not in ran.stderr
