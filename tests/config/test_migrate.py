"""Migrating a configuration file and rolling it back: the same settings, the same bytes, whole at every moment."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import stat
import tomllib
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from daramjwee import Cache, Freshness
from daramjwee.buffers.config import BufferPoolConfig
from daramjwee.config import plan as planning
from daramjwee.config.load import load
from daramjwee.config.migrate import NO_LINKS, System, migrate, rollback
from daramjwee.config.model import CacheConfig
from daramjwee.config.plan import COMMENTS, plan_migration
from daramjwee.config.schemas import upgraded
from daramjwee.errors import ConfigError

KIB, MIB = 1024, 1024 * 1024
FIXTURES = Path(__file__).parents[1] / "fixtures"
# 2001, to the nanosecond: nothing here is made then.
LONG_AGO = 1_000_000_000_123_456_789
MODE = 0o640

OLD = {
    "go": (0, {"Enabled": True, "DefaultBufferSize": 16384, "MaxBufferSize": 32768, "LoggingInterval": "5m0s"}),
    "whole go": (0, {"BufferPool": {"LargeObjectStrategy": 1}, "WorkerPoolSize": 2, "PositiveFreshFor": "1m0s"}),
    "plain": (1, {"enabled": True, "default_buffer_size": "64KiB", "max_buffer_size": "128KiB"}),
    "off": (1, {"enabled": False}),
    "flat": (2, {"chunk_size": "64KiB", "max_concurrent_large_ops": 4, "enable_detailed_metrics": True}),
    "table": (2, {"buffers": {"default_buffer_size": "512KiB", "large_object_strategy": "chunked"}}),
}


def written(mapping, kind):
    return tomli_w.dumps(mapping).encode() if kind == "toml" else json.dumps(mapping, indent=1).encode()


def read(path):
    data = path.read_bytes()
    return tomllib.loads(data.decode()) if path.suffix == ".toml" else json.loads(data)


def config_of(source):
    """What a mapping or a file of any age comes to."""
    return load(source, environ={}).config


def used_by_a_cache(source):
    """The settings of a cache that was made from it, and works."""
    with Cache.from_config(source, environ={}) as cache:
        cache.set("key", b"data")
        assert cache.get("key") == b"data"
        assert cache.buffers.config == cache.config.buffers
        return cache.config


def put(folder, kind="toml", case="go", name="cache"):
    """An old file with a mode and a time of its own; its path."""
    path = folder / f"{name}.{kind}"
    path.write_bytes(written(OLD[case][1], kind))
    path.chmod(MODE)
    os.utime(path, ns=(LONG_AGO, LONG_AGO))
    return path


def state_of(path):
    status = os.stat(path)
    return path.read_bytes(), stat.S_IMODE(status.st_mode), status.st_mtime_ns, status.st_uid, status.st_gid


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def refused(act, *args, **kwargs):
    with pytest.raises(ConfigError) as caught:
        act(*args, **kwargs)
    return "\n".join(map(str, caught.value.problems))


# -- there and back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["toml", "json"])
@pytest.mark.parametrize("case", OLD)
def test_an_old_file_migrates_means_the_same_and_goes_back_to_the_same_bytes(tmp_path, kind, case):
    """Settings before and after are equal; bytes, mode, owner and time of change come back, and nothing stays behind."""
    path = put(tmp_path, kind, case)
    before, settings = state_of(path), used_by_a_cache(path)
    assert settings == config_of(OLD[case][1])
    outcome = migrate(str(path))
    assert (outcome.action, outcome.before, outcome.after) == ("migrate", OLD[case][0], 3)
    assert read(path)["schema"] == 3
    assert used_by_a_cache(path) == settings
    assert path.read_text() == outcome.text
    assert stat.S_IMODE(path.stat().st_mode) == MODE
    assert path.stat().st_mtime_ns > LONG_AGO
    assert names_in(tmp_path) == [
        f"cache.{kind}",
        f"cache.{kind}.schema{outcome.before}.bak",
        f"cache.{kind}.schema{outcome.before}.sum",
    ]
    assert Path(outcome.backup).read_bytes() == before[0]
    assert rollback(str(path)).action == "roll back"
    assert state_of(path) == before
    assert names_in(tmp_path) == [path.name]
    assert used_by_a_cache(path) == settings


def test_what_release_0_1_0_wrote_migrates_and_goes_back(tmp_path):
    """The configuration that it left, copied with everything."""
    path = tmp_path / "buffers.json"
    shutil.copy2(FIXTURES / "0.1.0" / "buffers.json", path)
    before = state_of(path)
    migrate(str(path))
    new = read(path)
    assert BufferPoolConfig(**new["buffers"]) == msgspec.json.decode(before[0], type=BufferPoolConfig)
    rollback(str(path))
    assert state_of(path) == before


@pytest.mark.parametrize("kind", ["toml", "json"])
def test_a_dry_run_says_what_would_be_done_and_writes_nothing(tmp_path, kind):
    """The same outcome as in earnest; the folder is as it was."""
    path = put(tmp_path, kind)
    before, folder = state_of(path), os.stat(tmp_path).st_mtime_ns
    dry = migrate(str(path), dry_run=True)
    assert (state_of(path), os.stat(tmp_path).st_mtime_ns, names_in(tmp_path)) == (before, folder, [path.name])
    earnest = migrate(str(path))
    assert msgspec.structs.replace(dry, dry_run=False) == earnest
    migrated = names_in(tmp_path)
    assert rollback(str(path), dry_run=True).after == 0
    assert names_in(tmp_path) == migrated


@pytest.mark.parametrize("text", ["schema = 3\n", 'schema = 3 # mine\nmemory_limit = "1GiB"\n', "workers = 2\n", ""])
def test_a_file_of_today_is_left_alone(tmp_path, text):
    """Nothing to do; not even its time of change moves."""
    path = tmp_path / "cache.toml"
    path.write_text(text)
    os.utime(path, ns=(LONG_AGO, LONG_AGO))
    before = state_of(path)
    outcome = migrate(str(path))
    assert (outcome.action, outcome.before, outcome.text) == ("nothing", 3, None)
    assert (state_of(path), names_in(tmp_path)) == (before, [path.name])
    migrate(str(put(tmp_path)))
    assert migrate(str(path)).action == "nothing"


def test_what_it_says_has_a_line_for_each_field_and_for_lost_comments(tmp_path):
    """Of the new file, nothing is without a line; of the old one, neither."""
    path = tmp_path / "cache.toml"
    path.write_text('# why\nEnabled = true\nEnableLogging = false\nLargeObjectStrategy = "direct"\n')
    outcome = migrate(str(path), dry_run=True)
    told = {change.new for change in outcome.changes} - {None}
    assert told == {f"buffers.{name}" for name in tomllib.loads(outcome.text)["buffers"]}
    assert {"Enabled", "EnableLogging", "LargeObjectStrategy"} <= {change.old for change in outcome.changes}
    assert outcome.remarks == (COMMENTS,)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Enabled = true\n", False), ("Enabled = true # yes\n", True), ("# yes\nEnabled = true\n", True),
        ('LargeObjectStrategy = "direct"\n', False), ("LargeObjectStrategy = 'direct' # it's\n", True),
    ],
)  # fmt: skip
def test_comments_are_said_to_be_lost_only_where_there_are_some(text, said):
    assert bool(plan_migration("a.toml", text.encode()).remarks) is said


# -- what is refused, and leaves everything as it was ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("cache.yaml", b"Enabled: true", "must be a file called .toml or .json"),
        ("cache.toml", b"Enabled = ", "is no TOML"),
        ("cache.toml", b"\xff\xfe", "is no text in UTF-8"),
        ("cache.json", b"{", "is no JSON"),
        ("cache.json", b"[1]", "holds no table"),
        ("cache.json", b'{"Enabled": true, "chunk_size": 1}', "use the names of one schema"),
        ("cache.json", b'{"Enabled": 1, "MinBufferSize": 0}', "MinBufferSize = 0"),
        ("cache.json", b'{"schema": 9}', "upgrade daramjwee"),
        ("cache.json", b'{"Enable": true}', "Enable = True"),
        ("cache.json", b'{"buffers": {"chunk_sise": 1}}', "buffers.chunk_sise"),
        ("cache.json", b"[" * 100_000, "is deeper than that of any setting"),
    ],
)
def test_a_file_that_cannot_be_migrated_is_refused_and_stays(tmp_path, name, data, words):
    """With its problems; nothing is beside it."""
    path = tmp_path / name
    path.write_bytes(data)
    assert words in refused(migrate, str(path))
    assert (path.read_bytes(), names_in(tmp_path)) == (data, [name])


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
    """A folder, a pipe that nobody writes to, nothing."""
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "folder.toml").mkdir()
    assert "no regular file" in refused(migrate, str(tmp_path / "pipe.toml"))
    assert "no regular file" in refused(migrate, str(tmp_path / "folder.toml"))
    assert "cannot be read: No such file" in refused(migrate, str(tmp_path / "nothing.toml"))
    assert "cannot be read: No such file" in refused(rollback, str(tmp_path / "nothing.toml"))


def test_a_file_too_large_to_be_one_of_settings_is_not_read(tmp_path):
    """Named by mistake; a gibibyte of holes takes no time."""
    path = tmp_path / "cache.json"
    with open(path, "wb") as file:
        file.truncate(2**30)
    assert "larger than any file of settings" in refused(migrate, str(path))


def test_a_backup_that_is_there_is_never_overwritten(tmp_path):
    """Whatever it is: somebody may need it. The file stays as it was, in a dry run too."""
    path = put(tmp_path)
    before = state_of(path)
    backup = tmp_path / "cache.toml.schema0.bak"
    for make in (lambda: backup.write_bytes(before[0]), lambda: backup.symlink_to("nowhere"), backup.mkdir):
        make()
        kept = os.lstat(backup)
        for dry_run in (True, False):
            assert "is there already" in refused(migrate, str(path), dry_run=dry_run)
        assert os.path.samestat(os.lstat(backup), kept)
        assert (state_of(path), names_in(tmp_path)) == (before, [path.name, backup.name])
        shutil.rmtree(backup) if backup.is_dir() else backup.unlink()


def test_a_file_that_was_changed_since_is_not_rolled_back(tmp_path):
    """What was written into it would be lost; nor is one whose digest is gone."""
    path = put(tmp_path)
    migrate(str(path))
    new = path.read_bytes()
    path.write_bytes(new + b"workers = 3\n")
    there = names_in(tmp_path)
    assert "was changed since" in refused(rollback, str(path))
    assert (path.read_bytes(), names_in(tmp_path)) == (new + b"workers = 3\n", there)
    path.write_bytes(new)
    (tmp_path / "cache.toml.schema0.sum").rename(tmp_path / "elsewhere")
    assert "was changed since" in refused(rollback, str(path))
    (tmp_path / "elsewhere").rename(tmp_path / "cache.toml.schema0.sum")
    assert rollback(str(path)).after == 0


def test_a_file_without_a_backup_is_not_rolled_back(tmp_path):
    path = put(tmp_path)
    assert "nothing to roll back" in refused(rollback, str(path))
    assert names_in(tmp_path) == [path.name]


def test_a_migration_that_was_cut_short_is_cleared_away_by_a_rollback(tmp_path):
    """The file has its second name, and is the old one still."""
    path = put(tmp_path)
    before = state_of(path)
    os.link(path, f"{path}.schema0.bak")
    Path(f"{path}.schema0.sum").write_text("of another one\n")
    there = names_in(tmp_path)
    rollback(str(path), dry_run=True)
    assert names_in(tmp_path) == there
    rollback(str(path))
    assert (state_of(path), names_in(tmp_path)) == (before, [path.name])


def test_of_several_backups_the_one_of_this_file_comes_back(tmp_path):
    """A file that was migrated twice, from two schemas, goes back to the second."""
    path = put(tmp_path, case="go")
    migrate(str(path))
    path.write_bytes(written(OLD["plain"][1], "toml"))
    second = state_of(path)
    migrate(str(path))
    assert rollback(str(path)).after == 1
    assert state_of(path) == second


# -- what stays as it was --------------------------------------------------------------------------------------------


def test_a_link_stays_a_link_and_what_it_leads_to_is_migrated(tmp_path):
    """Also when the file was linked from another folder; backup and digest are beside the file itself."""
    (tmp_path / "real").mkdir()
    path = put(tmp_path / "real")
    before = state_of(path)
    link = tmp_path / "link.toml"
    link.symlink_to(path)
    migrate(str(link))
    assert link.is_symlink() and read(path)["schema"] == 3
    assert names_in(tmp_path) == ["link.toml", "real"]
    rollback(str(link))
    assert link.is_symlink() and state_of(path) == before


@pytest.mark.parametrize("mode", [0o600, 0o444, 0o664])
def test_the_mode_is_kept(tmp_path, mode):
    """Whatever the umask is: a private file stays private, also while it is written."""
    path = put(tmp_path)
    path.chmod(mode)
    seen = []

    class Watching(System):
        @staticmethod
        def replace(old, new):
            seen.append(stat.S_IMODE(os.stat(old).st_mode))
            os.replace(old, new)

    migrate(str(path), system=Watching)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert seen == [mode, mode]


def test_the_owner_is_kept_or_nothing_is_done(tmp_path):
    """Somebody else's file, migrated by root; or by one who may not give files away."""
    path = put(tmp_path)
    before = state_of(path)
    given_to = []

    class Elsewhere(System):
        """The file we read is another user's."""

        @staticmethod
        def fstat(fd):
            status = os.fstat(fd)
            other = status.st_uid + (status.st_mtime_ns == LONG_AGO)
            names = ("st_mode", "st_ino", "st_dev", "st_gid", "st_size", "st_mtime_ns")
            return type("Status", (), {name: getattr(status, name) for name in names} | {"st_uid": other})

        @staticmethod
        def fchown(_fd, uid, gid):
            given_to.append((uid, gid))

    class Forbidden(Elsewhere):
        @staticmethod
        def fchown(_fd, _uid, _gid):
            raise PermissionError(errno.EPERM, "Operation not permitted")

    with pytest.raises(PermissionError):
        migrate(str(path), system=Forbidden)
    assert (state_of(path), names_in(tmp_path)) == (before, [path.name])
    migrate(str(path), system=Elsewhere)
    assert given_to == [(before[3] + 1, before[4])] * 2


def test_a_file_that_changes_while_it_is_migrated_is_left_alone(tmp_path):
    """Written to or replaced between reading and linking: what would become the backup is not what was read."""
    path = put(tmp_path)

    class Late(System):
        @staticmethod
        def link(old, new):
            path.write_bytes(b"Enabled = false\n")
            os.link(old, new)

    assert "changed meanwhile" in refused(migrate, str(path), system=Late)
    assert (path.read_bytes(), names_in(tmp_path)) == (b"Enabled = false\n", [path.name])


def test_the_backup_is_of_the_bytes_that_were_read(tmp_path):
    """Another file stood there for a moment, just when the link was made."""
    path = put(tmp_path)
    before = state_of(path)

    class Swapped(System):
        @staticmethod
        def link(old, new):
            path.rename(tmp_path / "aside")
            path.write_bytes(b"Enabled = false\n")
            os.link(old, new)
            (tmp_path / "aside").rename(path)

    assert "changed meanwhile" in refused(migrate, str(path), system=Swapped)
    assert (state_of(path), names_in(tmp_path)) == (before, [path.name])


def test_a_file_that_is_replaced_while_it_is_migrated_is_left_alone(tmp_path):
    """An editor puts its own file there after the link was made: neither is it overwritten, nor stays a backup of what it
    replaced."""
    path = put(tmp_path)

    class Editor(System):
        @staticmethod
        def replace(old, new):
            (tmp_path / "edited").write_bytes(b"Enabled = false\n")
            os.replace(tmp_path / "edited", path)
            os.replace(old, new)

    assert "changed meanwhile" in refused(migrate, str(path), system=Editor)
    assert (path.read_bytes(), names_in(tmp_path)) == (b"Enabled = false\n", [path.name])


def test_a_file_that_changes_while_it_is_rolled_back_is_left_alone(tmp_path):
    """What was written into it after it was compared is not lost."""
    path = put(tmp_path)
    migrate(str(path))
    there = names_in(tmp_path)

    class Late(System):
        @staticmethod
        def read(fd, count):
            data = os.read(fd, count)
            if not data:  # the end of it was read
                with open(path, "ab") as file:
                    file.write(b"workers = 3\n")
            return data

    assert "changed meanwhile" in refused(rollback, str(path), system=Late)
    assert path.read_bytes().endswith(b"workers = 3\n") and names_in(tmp_path) == there


@pytest.mark.parametrize("act", [migrate, rollback])
def test_of_two_at_once_one_is_refused(tmp_path, act):
    """The other one's backup is not touched."""
    path = put(tmp_path)

    class Second(System):
        @staticmethod
        def link(old, new):
            os.link(old, new)
            assert "by another process" in refused(act, str(path))

    migrate(str(path), system=Second)
    assert read(path)["schema"] == 3
    rollback(str(path))
    assert state_of(path)[2] == LONG_AGO


@pytest.mark.parametrize("act", [migrate, rollback])
def test_a_file_that_was_replaced_before_it_was_locked_keeps_its_backup(tmp_path, act):
    """It is the only old one there is: what was opened is not what the name leads to any more."""
    path = put(tmp_path)
    before = state_of(path)

    class Slow(System):
        @staticmethod
        def open(name, flags, mode=0o600):
            fd = os.open(name, flags, mode)
            if name == str(path) and not names_in(tmp_path) > [path.name]:
                migrate(str(path))
            return fd

    assert "changed meanwhile" in refused(act, str(path), system=Slow)
    assert read(path)["schema"] == 3
    rollback(str(path))
    assert state_of(path) == before


def test_where_locks_lie_the_one_that_fails_leaves_the_others_backup(tmp_path, monkeypatch):
    """Both have read the old file; the first is through when the second goes on."""
    monkeypatch.setattr("daramjwee.config.migrate.try_lock", lambda _fd: True)
    path = put(tmp_path)
    before = state_of(path)

    class Late(System):
        @staticmethod
        def link(old, new):
            migrate(str(path))
            os.link(old, new)

    # The backup is of the very file that the second has read, but the file there is another by now.
    assert "changed meanwhile" in refused(migrate, str(path), system=Late)
    assert read(path)["schema"] == 3
    rollback(str(path))
    assert (state_of(path), names_in(tmp_path)) == (before, [path.name])


@pytest.mark.parametrize("mode", [0o600, 0o444, 0o664])
@pytest.mark.parametrize("code", sorted(NO_LINKS))
def test_where_no_second_name_can_be_made_the_backup_is_a_copy(tmp_path, code, mode):
    """A file system without hard links, or a file of somebody else: with bytes, mode, owner and times all the same."""
    path = put(tmp_path)
    path.chmod(mode)
    before = state_of(path)
    outcome = migrate(str(path), system=Without(code))
    assert "the backup is a copy" in outcome.remarks[-1]
    assert (read(path)["schema"], state_of(Path(outcome.backup))) == (3, before)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    rollback(str(path))
    assert (state_of(path), names_in(tmp_path)) == (before, [path.name])


def test_another_failure_of_a_link_is_no_reason_for_a_copy(tmp_path):
    """A full disk, or one that is read only."""
    path = put(tmp_path)
    before = state_of(path)
    for code in (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO):
        with pytest.raises(OSError, match=os.strerror(code)):
            migrate(str(path), system=Without(code))
        assert (state_of(path), names_in(tmp_path)) == (before, [path.name])


def test_without_links_a_backup_that_is_there_is_never_overwritten(tmp_path):
    """Unless it is what a migration of this very file has left: bytes, mode and times are the same."""
    path = put(tmp_path)
    before = state_of(path)
    backup = tmp_path / "cache.toml.schema0.bak"
    for make in (lambda: backup.write_bytes(before[0]), lambda: backup.symlink_to(path), backup.mkdir):
        make()
        assert "is there already" in refused(migrate, str(path), system=Without(errno.EPERM))
        assert (state_of(path), names_in(tmp_path)) == (before, [path.name, backup.name])
        shutil.rmtree(backup) if backup.is_dir() and not backup.is_symlink() else backup.unlink()
    shutil.copy2(path, backup)
    shutil.copy2(path, tmp_path / "other")
    os.utime(tmp_path / "other", ns=(0, 0))
    migrate(str(path), system=Without(errno.EPERM))
    assert state_of(backup) == before
    rollback(str(path))
    assert (state_of(path), names_in(tmp_path)) == (before, [path.name, "other"])


def test_without_links_the_copy_is_on_the_disk_before_the_file_is_replaced(tmp_path):
    """Its bytes and its name, after a power cut too."""
    path = put(tmp_path)
    log = []

    class Recording(Without):
        @staticmethod
        def fsync(fd):
            log.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
            os.fsync(fd)

        @staticmethod
        def replace(old, new):
            log.append(os.path.splitext(new)[1])
            os.replace(old, new)

    migrate(str(path), system=Recording(errno.EPERM))
    assert log == ["file", ".bak", "file", ".sum", "folder", "file", ".toml", "folder"]


def test_without_links_a_file_that_is_replaced_meanwhile_is_left_alone_and_so_is_its_copy(tmp_path):
    """The copy may be all there is of it."""
    path = put(tmp_path)
    before = state_of(path)

    class Editor(Without):
        @staticmethod
        def replace(old, new):
            if new.endswith(".sum"):
                (tmp_path / "edited").write_bytes(b"Enabled = false\n")
                os.replace(tmp_path / "edited", path)
            os.replace(old, new)

    assert "changed meanwhile" in refused(migrate, str(path), system=Editor(errno.EPERM))
    assert path.read_bytes() == b"Enabled = false\n"
    assert state_of(tmp_path / "cache.toml.schema0.bak") == before


def test_without_links_the_one_that_fails_leaves_the_others_backup(tmp_path, monkeypatch):
    """Where locks lie, too: both have read the old file, and the first is through when the second goes on."""
    monkeypatch.setattr("daramjwee.config.migrate.try_lock", lambda _fd: True)
    path = put(tmp_path)
    before = state_of(path)

    class Late(Without):
        def link(self, _old, _new):
            migrate(str(path), system=Without(errno.EPERM))
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    class Later(Without):
        """Past the look for a backup that is there."""

        @staticmethod
        def replace(old, new):
            if new.endswith(".bak"):
                migrate(str(path), system=Without(errno.EPERM))
            os.replace(old, new)

    for system in (Late(errno.EPERM), Later(errno.EPERM)):
        assert "changed meanwhile" in refused(migrate, str(path), system=system)
        assert read(path)["schema"] == 3
        rollback(str(path))
        assert (state_of(path), names_in(tmp_path)) == (before, [path.name])


def test_toml_without_its_writer_names_the_extra(monkeypatch, tmp_path):
    """JSON goes without."""
    monkeypatch.setitem(__import__("sys").modules, "tomli_w", None)
    assert 'pip install "daramjwee[cli]"' in refused(migrate, str(put(tmp_path)))
    assert migrate(str(put(tmp_path, "json"))).action == "migrate"


# -- whichever call fails, or is the last ----------------------------------------------------------------------------


class Without(System):
    """A file system where a file has one name."""

    def __init__(self, code):
        self.code = code

    def link(self, _old, _new):
        raise OSError(self.code, os.strerror(self.code))


class Crash(BaseException):
    """The process is gone: no call of it happens any more."""


class Faulty(System):
    """Lets the nth call fail, or with `crash` every one from the nth on; writes a few bytes at a time. `links`: whether a
    file can have a second name."""

    def __init__(self, nth=0, *, crash=False, links=True):
        self.nth, self.crash, self.calls, self.links = nth, crash, 0, links
        for name in vars(System):
            if not name.startswith("_"):
                setattr(self, name, self._counted(getattr(System, name)))

    def _counted(self, real):
        def call(*args, **kwargs):
            self.calls += 1
            dead = self.crash and 0 < self.nth <= self.calls
            if dead or self.calls == self.nth:
                if real is os.close:
                    real(*args)  # a close that fails has closed all the same, and so has the end of a process
                raise Crash if dead else OSError(errno.EIO, os.strerror(errno.EIO))
            if real is os.link and not self.links:
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            if real is os.write:
                args = (args[0], args[1][:100])
            return real(*args, **kwargs)

        return call


@pytest.mark.parametrize(("kind", "links"), [("toml", True), ("json", True), ("json", False)])
def test_whichever_call_fails_the_file_is_the_old_one_and_nothing_is_beside_it(tmp_path, kind, links):
    """The 1st, 2nd, ... nth call fails until none does. Only where the folder's `fsync` fails, at the very end, is the
    file the new one, with its backup."""
    for nth in itertools.count(1):
        folder = tmp_path / str(nth)
        folder.mkdir()
        path = put(folder, kind)
        before = state_of(path)
        system = Faulty(nth, links=links)
        failed = False
        try:
            migrate(str(path), system=system)
        except OSError:
            failed = True
        if state_of(path) == before:
            assert failed
            assert names_in(folder) == [path.name], nth
        else:
            assert read(path)["schema"] == 3
            rollback(str(path))
        assert (state_of(path), names_in(folder)) == (before, [path.name])
        if system.calls < nth:
            break
    assert nth > (20 if links else 30)


@pytest.mark.parametrize(("kind", "links"), [("toml", True), ("json", True), ("json", False)])
def test_wherever_the_process_dies_the_file_is_whole_and_the_way_back_is_open(tmp_path, kind, links):
    """It is the old file or the new one; migrating again finishes it, and rolling back gives the old bytes."""
    for nth in itertools.count(1):
        folder = tmp_path / str(nth)
        folder.mkdir()
        path = put(folder, kind)
        before = state_of(path)
        system = Faulty(nth, crash=True, links=links)
        with suppress(Crash):
            migrate(str(path), system=system)
        if state_of(path) == before:
            if nth % 2:
                with suppress(ConfigError):  # nothing was begun
                    rollback(str(path))  # what was begun is cleared away
                assert not (folder / f"{path.name}.schema0.bak").exists()
            assert state_of(path) == before
            migrate(str(path), system=Faulty(links=links))
        assert read(path)["schema"] == 3, nth
        rollback(str(path))
        assert state_of(path) == before
        if system.calls < nth:
            break
    assert nth > 15


@pytest.mark.parametrize("crash", [False, True])
def test_wherever_a_rollback_fails_or_dies_the_file_is_whole(tmp_path, crash):
    """The new file, to be rolled back again, or the old one."""
    for nth in itertools.count(1):
        folder = tmp_path / str(nth)
        folder.mkdir()
        path = put(folder)
        before = state_of(path)
        migrate(str(path))
        after = state_of(path)
        system = Faulty(nth, crash=crash)
        with suppress(Crash, OSError):
            rollback(str(path), system=system)
        assert state_of(path) in (before, after)
        if state_of(path) == after:
            rollback(str(path))
        assert state_of(path) == before
        migrate(str(path))  # a digest that was left is no hindrance
        if system.calls < nth:
            break
    assert nth > 8


def test_what_is_renamed_is_on_the_disk_before_and_its_name_after(tmp_path):
    """A power cut leaves the old file or the new one, not an empty one."""
    path = put(tmp_path)
    log = []

    class Recording(System):
        @staticmethod
        def fsync(fd):
            log.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
            os.fsync(fd)

        @staticmethod
        def replace(old, new):
            log.append(os.path.splitext(new)[1])
            os.replace(old, new)

    migrate(str(path), system=Recording)
    assert log == ["file", ".sum", "file", ".toml", "folder"]
    log.clear()
    rollback(str(path), system=Recording)
    assert log == [".toml", "folder"]


def test_an_interrupt_right_after_the_replacement_keeps_the_backup(tmp_path):
    """Ctrl-C between the rename and whatever comes next: the old file must not be cleaned away."""
    path = put(tmp_path)
    before = state_of(path)

    class Interrupted(System):
        @staticmethod
        def replace(old, new):
            os.replace(old, new)
            if new == str(path):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        migrate(str(path), system=Interrupted)
    assert read(path)["schema"] == 3
    rollback(str(path))
    assert (state_of(path), names_in(tmp_path)) == (before, [path.name])


# -- random old configurations ---------------------------------------------------------------------------------------

SIZES = st.sampled_from([512, KIB, 4 * KIB, 16 * KIB, 48 * KIB, 64 * KIB, 256 * KIB, MIB, 16 * MIB, 100 * MIB])
GO = st.fixed_dictionaries(
    {},
    optional={
        "Enabled": st.booleans(),
        "DefaultBufferSize": SIZES,
        "MinBufferSize": SIZES,
        "MaxBufferSize": SIZES,
        "LargeObjectThreshold": SIZES | st.just(0),
        "VeryLargeObjectThreshold": SIZES | st.just(-1),
        "LargeObjectStrategy": st.integers(0, 4) | st.sampled_from(["direct", "StrategyPooled"]),
        "ChunkSize": SIZES | st.just(0),
        "MaxConcurrentLargeOps": st.integers(0, 64),
        "EnableDetailedMetrics": st.booleans(),
        "EnableLogging": st.booleans(),
        "LoggingInterval": st.integers(0, 10**12) | st.sampled_from(["5m0s", "1.5s"]),
    },
)


def go_means(dump):
    """What the Go library makes of a file, as settings of today; None where it refuses it. Written from its rules."""
    low, default, high = (
        dump.get(n, d * KIB) for n, d in (("MinBufferSize", 4), ("DefaultBufferSize", 32), ("MaxBufferSize", 64))
    )
    large, very = dump.get("LargeObjectThreshold", 0), dump.get("VeryLargeObjectThreshold", 0)
    large, very = (large if large > 0 else 256 * KIB), (very if very > 0 else MIB)
    if not low <= default <= high or large >= very:
        return None
    chunk = dump.get("ChunkSize", 0)
    if chunk > 0:
        low, high = min(low, chunk), max(high, chunk)
    else:
        chunk = sorted((low, 64 * KIB, high))[1]
    strategy = dump.get("LargeObjectStrategy", 3)
    names = {0: "pooled", 1: "chunked", 2: "direct", "StrategyPooled": "pooled", "direct": "direct"}
    ops = dump.get("MaxConcurrentLargeOps", 0)
    interval = {"5m0s": 300.0, "1.5s": 1.5}.get(dump.get("LoggingInterval", 0), dump.get("LoggingInterval", 0))
    interval = interval if isinstance(interval, float) else interval / 1e9
    return BufferPoolConfig(
        enabled=dump.get("Enabled", True), min_buffer_size=low, default_buffer_size=default, max_buffer_size=high,
        large_object_threshold=large, very_large_object_threshold=very, chunk_size=chunk,
        large_object_strategy=names.get(strategy, "adaptive"), max_concurrent_large_ops=ops if ops > 0 else 4,
        enable_detailed_metrics=dump.get("EnableDetailedMetrics", False),
        metrics_interval=interval if dump.get("EnableLogging") and interval else 10.0,
        max_pool_bytes=max(high, 64 * MIB),
    )  # fmt: skip


def after_migration(mapping, kind):
    """The settings that a cache uses which is made from the migrated file."""
    name = f"cache.{kind}"
    text = plan_migration(name, written(mapping, kind)).text
    assert plan_migration(name, text.encode()).text is None
    new = tomllib.loads(text) if kind == "toml" else json.loads(text)
    assert used_by_a_cache(new) == config_of(new)
    return config_of(new)


@given(GO, st.sampled_from(["toml", "json"]), st.booleans())
def test_a_go_configuration_means_the_same_before_and_after_as_in_the_go_library(dump, kind, nested):
    """Against a model of the Go library's rules: what it accepts is accepted, with the same settings, in memory and as
    a file; what it refuses is refused, in its own names."""
    expected = go_means(dump)
    mapping = {"BufferPool": dump} if nested else dump
    if not mapping:
        return
    if expected is None:
        with pytest.raises(ConfigError) as caught:
            plan_migration(f"cache.{kind}", written(mapping, kind))
        assert all(problem.field.removeprefix("BufferPool.")[0].isupper() for problem in caught.value.problems)
        return
    assert config_of(mapping).buffers == expected
    assert after_migration(mapping, kind) == config_of(mapping)


SPANS = {"1m30s": 90.0, 0: 0.0, "0": 0.0, 300_000_000_000: 300.0, "2h": 7200.0, "1.5s": 1.5}
CONFIG = st.fixed_dictionaries(
    {},
    optional={
        "BufferPool": GO | st.none(),
        "WorkerPoolSize": st.integers(1, 64),
        "PositiveFreshFor": st.sampled_from(list(SPANS)),
        "NegativeFreshness": st.sampled_from(list(SPANS)),
        "WorkerStrategy": st.sampled_from(["pool", "all"]),
        "DefaultTimeout": st.sampled_from(list(SPANS)),
        "HotStore": st.none() | st.just({}),
    },
)


@given(CONFIG.filter(bool))
def test_a_whole_go_configuration_means_the_same_before_and_after(dump):
    """The settings around the pool, too; what stands for nothing of today is told, and changes nothing."""
    pool = go_means(dump.get("BufferPool") or {})
    if pool is None:
        with pytest.raises(ConfigError):
            upgraded(dump)
        return
    config = config_of(dump)
    assert (config.buffers, config.workers) == (pool, dump.get("WorkerPoolSize", 1))
    assert config.freshness == Freshness(
        fresh=SPANS[dump.get("PositiveFreshFor", 0)],
        negative=SPANS[dump.get("NegativeFreshness", 0)] or None,
        stale_while_revalidate="3650d",
        stale_if_error="3650d",
    )
    assert after_migration(dump, "json") == config
    assert dump.keys() - {"BufferPool"} <= {change.old for change in upgraded(dump).notes}


SIZE_TEXTS = st.sampled_from([4096, "4KiB", "64KiB", 262144, "512 KiB", "1MiB"])
POOL = st.fixed_dictionaries(
    {},
    optional={
        "enabled": st.booleans(),
        "default_buffer_size": SIZE_TEXTS,
        "min_buffer_size": SIZE_TEXTS,
        "max_buffer_size": SIZE_TEXTS,
        "chunk_size": SIZE_TEXTS,
        "large_object_threshold": SIZE_TEXTS,
        "large_object_strategy": st.sampled_from(["pooled", "Chunked", "direct", "adaptive"]),
        "max_concurrent_large_ops": st.integers(1, 64),
        "acquire_timeout": st.sampled_from(["5s", 2, 0.5, "1m"]),
        "leak_detection": st.sampled_from(["off", "full"]),
        "max_pool_bytes": st.sampled_from(["64MiB", 33554432]),
        "enable_detailed_metrics": st.booleans(),
    },
)


@given(POOL.filter(bool), st.sampled_from(["toml", "json"]), st.booleans())
def test_a_configuration_of_the_pool_means_the_same_before_and_after(fields, kind, nested):
    """Schemas 1 and 2, flat and as a table: the settings are those that `BufferPoolConfig` makes of the same fields."""
    mapping = {"buffers": fields} if nested else fields
    expected = faults = None
    try:
        expected = CacheConfig(buffers=BufferPoolConfig(**fields))
    except ConfigError as error:
        faults = [("buffers." if nested else "") + problem.field for problem in error.problems]
    if faults:
        with pytest.raises(ConfigError) as caught:
            plan_migration(f"cache.{kind}", written(mapping, kind))
        assert [problem.field for problem in caught.value.problems] == faults
        return
    assert config_of(mapping) == after_migration(mapping, kind) == expected


def test_planning_touches_no_disk(monkeypatch):
    """It is a function of a name and bytes."""
    monkeypatch.setattr("builtins.open", None)
    monkeypatch.setattr(os, "open", None)
    assert planning.plan_migration("/nowhere/cache.toml", b"Enabled = true\n").before == 0
