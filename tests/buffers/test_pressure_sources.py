"""Where memory pressure is read from: control groups of both versions, stalls, free memory; whatever is missing or garbled."""

from __future__ import annotations

import errno
import os
import sys
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daramjwee.buffers import MemoryLedger, PressureLevel
from daramjwee.buffers import pressure_sources as sources_module
from daramjwee.buffers.pressure import Measure, MemoryPressure, Source
from daramjwee.buffers.pressure_files import Garbled, parse_number, read_text
from daramjwee.testing.clock import ManualClock
from daramjwee.units import GIB, MIB

NORMAL, ELEVATED, HIGH, CRITICAL = PressureLevel


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def poll(clock):
    """One look at a root, a second after the one before."""

    def look(made: MemoryPressure) -> PressureLevel:
        clock.advance(1)
        return made.poll()

    return look


def named(made: MemoryPressure) -> dict[str, Source]:
    return {source.name: source for source in made.sources}


def settle(made: MemoryPressure, poll) -> list[PressureLevel]:
    """The levels until it is NORMAL again, each once."""
    levels = [made.level]
    for _ in range(60):
        if poll(made) is not levels[-1]:
            levels.append(made.level)
    return levels


# -- stepping a root through the levels ----------------------------------------------------------------------

WAYS = {
    "v2": (lambda root, share: root.v2(current=int(GIB * share), max=GIB), (0.5, 0.82, 0.92, 0.97)),
    "v1": (lambda root, share: root.v1(usage=int(GIB * share), limit=GIB), (0.5, 0.82, 0.92, 0.97)),
    "psi some": (lambda root, share: root.psi(some=share), (1, 15, 40, 70)),
    "psi full": (lambda root, share: root.psi(full=share), (1, 7, 20, 40)),
    "meminfo": (lambda root, share: root.meminfo(total=GIB, available=int(GIB * share)), (0.5, 0.12, 0.07, 0.02)),
    "group's psi": (lambda root, share: root.v2(psi=(share, 0)), (1, 15, 40, 70)),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_source_alone_steps_through_the_levels_and_back(fake_root, clock, poll, way):
    """Up at once, whichever level it is; down one by one when it has passed, without a step between."""
    write, steps = WAYS[way]
    root = fake_root()
    made = MemoryPressure(root=root.path, clock=clock)
    for level, share in zip(PressureLevel, steps, strict=True):
        write(root, share)
        made._sources._looked_at = None  # the file may be new: do not wait for the next look around
        assert poll(made) is level
        assert (level is NORMAL) == (made.reason == "")
    write(root, steps[0])
    assert settle(made, poll) == [CRITICAL, HIGH, ELEVATED, NORMAL]


@pytest.mark.parametrize("way", WAYS)
def test_noise_around_a_threshold_does_not_flap(fake_root, clock, poll, way):
    """Two hundred looks on either side of the threshold of HIGH: one rise, no fall."""
    write, (_, _, high, _) = WAYS[way]
    edges = {"v2": 0.9, "v1": 0.9, "psi some": 30, "psi full": 10, "meminfo": 0.1, "group's psi": 30}
    edge = edges[way]
    root = fake_root()
    write(root, high)
    made = MemoryPressure(root=root.path, clock=clock)
    levels = []
    for turn in range(200):
        write(root, edge * (1.02 if turn % 3 else 0.98))
        levels.append(poll(made))
    changes = sum(a is not b for a, b in pairwise(levels))
    assert changes <= 1 and levels[-1] is HIGH


def test_nothing_at_all_is_normal_and_every_source_says_why(fake_root, clock, poll):
    """No exception, and the doctor can tell what was looked for."""
    made = MemoryPressure(root=fake_root().path, clock=clock)
    assert poll(made) is NORMAL and made.readings == ()
    assert [source.name for source in made.sources] == ["cgroup", "psi", "meminfo", "ledger"]
    assert not any(source.found for source in made.sources)
    assert all(source.detail for source in made.sources)
    assert "/proc/pressure/memory: No such file" in named(made)["psi"].detail
    assert named(made)["ledger"].detail == "none was given"


def test_the_real_machine_is_read_without_an_error(clock, poll):
    """Whatever is there. On Linux at least /proc/meminfo is."""
    made = MemoryPressure(ledger=MemoryLedger(MIB), clock=clock)
    assert poll(made) in PressureLevel
    assert "ledger" in {reading.source for reading in made.readings}
    if sys.platform == "linux":
        assert "meminfo" in {reading.source for reading in made.readings}
    for reading in made.readings:
        assert 0 <= reading.share < 10 and str(reading).startswith(reading.source)


# -- control groups ----------------------------------------------------------------------------------------------


def test_page_cache_that_can_be_taken_back_is_no_pressure(fake_root, clock, poll):
    """A container that streams files is always at its limit; dirty pages are not to be had at once."""
    root = fake_root()
    cache = {"inactive_file": "500MiB", "active_file": "400MiB", "slab": "50MiB"}
    root.v2(current="1000MiB", max="1000MiB", **cache)
    made = MemoryPressure(root=root.path, clock=clock)
    assert poll(made) is NORMAL
    assert made.readings[0].share == 0.05 and made.readings[0].detail == (
        "working set 50MiB, 5% of the limit 1000MiB of /app"
    )
    root.v2(current="1000MiB", max="1000MiB", dirty="800MiB", **cache)
    assert poll(made) is ELEVATED and made.readings[0].share == 0.85


def test_page_cache_is_no_pressure_in_version_1_either(fake_root, clock, poll):
    """`total_` counts the groups below, too, as the usage does."""
    root = fake_root()
    root.v1(usage="1000MiB", limit="1000MiB", inactive_file="500MiB", active_file="450MiB")
    made = MemoryPressure(root=root.path, clock=clock)
    assert poll(made) is NORMAL and made.readings[0].share == 0.05
    root.v1(usage="1000MiB", limit="1000MiB", inactive_file="500MiB", active_file="450MiB", dirty="900MiB")
    assert poll(made) is CRITICAL


def test_meeting_the_limit_with_page_cache_alone_is_no_pressure(fake_root, clock, poll):
    """`max` rises with every page that is taken back; with a large working set it counts, and a kill counts always."""
    root = fake_root()
    made = MemoryPressure(root=root.path, clock=clock)
    for count in range(5):
        root.v2(current=GIB, max=GIB, inactive_file="900MiB", events={"max": count * 100})
        assert poll(made) is NORMAL
    root.v2(current=GIB, max=GIB, inactive_file="150MiB", events={"max": 500})
    assert poll(made) is HIGH and made.reason.endswith("max +100")
    root.v2(current=MIB, max=GIB, events={"max": 500, "oom_kill": 1})
    assert poll(made) is CRITICAL and made.reason.endswith("oom_kill +1")
    assert settle(made, poll) == [CRITICAL, HIGH, ELEVATED, NORMAL]


def test_version_1_counts_failures_and_kills(fake_root, clock, poll):
    """`memory.failcnt` is its `max`, and `memory.oom_control` has the kills."""
    root = fake_root()
    root.v1(usage="850MiB", limit="1000MiB", failcnt=3)
    made = MemoryPressure(root=root.path, clock=clock)
    assert poll(made) is ELEVATED
    root.v1(usage="850MiB", limit="1000MiB", failcnt=4)
    assert poll(made) is HIGH
    root.v1(usage="1MiB", limit="1000MiB", failcnt=4, oom_kill=1)
    assert poll(made) is CRITICAL


def test_a_limit_of_a_group_above_counts(fake_root, clock, poll):
    """What all in it use, of the tightest limit on the way up; its kills are a neighbour's, its own counts are local."""
    root = fake_root(group="/pod/app")
    root.v2(current="10MiB")
    root.v2(current="970MiB", max="1GiB", group="/pod")
    made = MemoryPressure(root=root.path, clock=clock)
    assert poll(made) is HIGH
    assert made.reason == "cgroup: working set 970MiB, 95% of the limit 1GiB of /pod"
    assert "memory.max 1GiB of /pod" in named(made)["cgroup"].detail
    root.v2(current="10MiB", group="/pod", max="1GiB")
    assert settle(made, poll) == [HIGH, ELEVATED, NORMAL]
    root.write("sys/fs/cgroup/pod/memory.events", "max 0\noom_kill 7\n")
    assert poll(made) is NORMAL
    root.write("sys/fs/cgroup/pod/memory.events.local", "max 0\noom 1\n")
    assert poll(made) is CRITICAL


def test_the_nearest_to_its_limit_decides_among_nested_groups(fake_root, clock, poll):
    """Each group on the way up with a limit is one reading."""
    root = fake_root(group="/a/b/c")
    root.v2(current="50MiB", max="100MiB")
    root.v2(current="300MiB", max="1GiB", group="/a/b")
    root.v2(current="1.9GiB", max="2GiB", group="/a")
    made = MemoryPressure(root=root.path, clock=clock)
    assert poll(made) is HIGH
    assert [(reading.group, reading.level) for reading in made.readings] == [
        ("/a/b/c", NORMAL),
        ("/a/b", NORMAL),
        ("/a", HIGH),
    ]


def test_memory_high_counts_up_to_high(fake_root, clock, poll):
    """Beyond it the kernel slows who allocates, and kills nobody."""
    root = fake_root()
    root.v2(current="2GiB", high="1GiB")
    made = MemoryPressure(root=root.path, clock=clock)
    assert poll(made) is HIGH
    assert [reading.measure for reading in made.readings] == [Measure.LIMIT, Measure.THROTTLE]
    root.v2(current="1MiB", high=0)
    assert poll(made) is HIGH, "nothing fits into a limit of 0"


def test_an_invisible_limit_of_version_1_counts_for_what_is_seen(fake_root, clock, poll):
    """From inside a container only `hierarchical_memory_limit` tells of the groups above."""
    root = fake_root(group="/docker/abc", mounted="/docker/abc")
    root.v1(usage="960MiB", hierarchical="1000MiB")
    made = MemoryPressure(root=root.path, clock=clock)
    assert poll(made) is CRITICAL
    assert made.readings[0].group == "/"


def test_a_group_without_a_limit_is_read_for_its_kills_only(fake_root, clock, poll):
    """It is nowhere near anything."""
    root = fake_root()
    root.v2(current="100GiB", events={"oom_kill": 1})
    made = MemoryPressure(root=root.path, clock=clock)
    assert poll(made) is NORMAL
    assert str(made.readings[0]) == "cgroup: no limit of /app"
    assert named(made)["cgroup"].detail.endswith("/sys/fs/cgroup/app: no limit")
    root.v2(current="100GiB", events={"oom_kill": 2})
    assert poll(made) is CRITICAL


def test_a_limit_that_is_set_or_changed_later_counts(fake_root, clock, poll):
    """Of the own group at the next look, of a group above within a minute."""
    root = fake_root(group="/pod/app")
    root.v2(current="960MiB")
    root.v2(current="960MiB", group="/pod")
    made = MemoryPressure(root=root.path, clock=clock)
    assert poll(made) is NORMAL
    root.v2(current="960MiB", max="1000MiB")
    assert poll(made) is CRITICAL
    root.v2(current="960MiB")
    assert settle(made, poll)[-1] is NORMAL
    root.v2(current="960MiB", max="1000MiB", group="/pod")
    clock.advance(sources_module.LOOK_AGAIN_SECONDS)
    assert poll(made) is CRITICAL


@pytest.mark.parametrize(
    ("group", "mounted", "written", "name"),
    [
        ("/", "/", "/", "/"),  # in a container with a namespace of its own
        ("/docker/abc", "/docker/abc", "/docker/abc", "/"),  # its part of the hierarchy is mounted
        ("/docker/abc/inner", "/docker/abc", "/docker/abc/inner", "/inner"),
        ("/docker/abcdef", "/docker/abc", "/docker/abc", "/"),  # a prefix of the name is none of the path
        ("/seen/from/outside", "/", "/", "/"),  # no such folder in here
        ("/../../other", "/", "/", "/"),  # above the root of the namespace
    ],
)
def test_the_own_group_is_found_from_inside_containers(fake_root, clock, poll, group, mounted, written, name):
    """By the name of the group, what the mount shows, and what is there; else the topmost group that can be seen."""
    root = fake_root(group=group, mounted=mounted)
    root.v2(current="960MiB", max="1000MiB", group=written)
    made = MemoryPressure(root=root.path, clock=clock)
    assert poll(made) is CRITICAL
    assert made.readings[0].group == name


def test_a_mount_point_with_a_space_and_no_mountinfo_at_all(fake_root, clock, poll):
    """Escaped in mountinfo; without one, where it always is."""
    root = fake_root()
    root.v2(current="960MiB", max="1000MiB")
    (root.path / "sys/fs/cgroup").rename(root.path / "sys/fs/c group")
    mounts = root.path / "proc/self/mountinfo"
    mounts.write_text(mounts.read_text().replace("/sys/fs/cgroup", "/sys/fs/c\\040group"))
    assert poll(MemoryPressure(root=root.path, clock=clock)) is CRITICAL
    (root.path / "sys/fs/c group").rename(root.path / "sys/fs/cgroup")
    mounts.unlink()
    assert poll(MemoryPressure(root=root.path, clock=clock)) is CRITICAL


def test_a_hybrid_system_is_read_by_version_1(fake_root, clock, poll):
    """Version 2 is mounted there too, without memory."""
    root = fake_root()
    root.v1(usage="960MiB", limit="1000MiB")
    mounts = root.path / "proc/self/mountinfo"
    unified = "41 31 0:38 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n"
    mounts.write_text(mounts.read_text() + unified)
    (root.path / "sys/fs/cgroup/unified").mkdir()
    made = MemoryPressure(root=root.path, clock=clock)
    assert poll(made) is CRITICAL and named(made)["cgroup"].detail.startswith("version 1,")


def test_the_group_s_stalls_are_asked_before_the_machine_s(fake_root, clock, poll):
    """A neighbour's shortage is not ours; where the kernel keeps none for groups, the machine's count."""
    root = fake_root()
    folder = root.v2(current=0, psi=(0, 0))
    root.psi(some=90, full=90)
    made = MemoryPressure(root=root.path, clock=clock)
    assert poll(made) is poll(made) is NORMAL and named(made)["psi"].detail == str(folder / "memory.pressure")
    (folder / "memory.pressure").unlink()
    assert [poll(made), poll(made)] == [NORMAL, CRITICAL], "it vanished: left out once, then what took its place"
    assert named(made)["psi"].detail.endswith("/proc/pressure/memory")


# -- what is missing, forbidden, garbled -----------------------------------------------------------------------------

GARBAGE = ["", "\n", "max max", "-1", "1e9", "nan", "9223372036854775808", "1" * 5000, "\x00", "١٢٣", "1_000", "0x10"]


@pytest.mark.parametrize("text", GARBAGE)
@pytest.mark.parametrize("name", ["memory.current", "memory.max", "memory.high", "memory.stat", "memory.events"])
def test_a_garbled_file_of_a_group_leaves_it_out(fake_root, clock, poll, name, text):
    """Never an exception; the others go on, and the reason is told."""
    root = fake_root()
    folder = root.v2(current="960MiB", max="1000MiB", high="1000MiB")
    root.meminfo(total="1GiB", available="145MiB")
    made = MemoryPressure(root=root.path, clock=clock)
    assert poll(made) is CRITICAL
    (folder / name).write_text(f"oom_kill {text}\n" if name == "memory.events" else text, encoding="utf-8")
    assert settle(made, poll)[-1] is ELEVATED
    assert [reading.source for reading in made.readings] == ["meminfo"]
    found = named(made)["cgroup"]
    assert not found.found and name in found.detail and len(found.detail) < 1000


@pytest.mark.parametrize("text", GARBAGE)
@pytest.mark.parametrize(
    ("path", "line", "name"),
    [
        ("proc/pressure/memory", "some avg10={} avg60=0", "psi"),
        ("proc/meminfo", "MemTotal: {} kB\nMemAvailable: 1 kB", "meminfo"),
        ("proc/meminfo", "MemTotal: 1024 kB\nMemAvailable: {} kB", "meminfo"),
        ("proc/meminfo", "{}", "meminfo"),
        ("proc/self/cgroup", "0::{}", "cgroup"),
    ],
)
def test_garbled_files_of_the_system_are_left_out(fake_root, clock, poll, path, line, name, text):
    """From the first look on."""
    root = fake_root()
    root.write(path, line.format(text.replace("1e9", "1e999") if name == "psi" else text))
    made = MemoryPressure(root=root.path, clock=clock)
    assert poll(made) is NORMAL
    assert not named(made)[name].found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # each example makes a folder of its own
@given(st.data())
def test_whatever_stands_in_the_files_nothing_is_raised(tmp_path_factory, fake_root, data):
    """Any of them, of both versions, with any bytes in it, at the first look or later."""
    root = fake_root.func(tmp_path_factory.mktemp("any"))
    version, moment = data.draw(st.sampled_from([1, 2])), data.draw(st.integers(0, 2))
    if version == 1:
        root.v1(usage="500MiB", limit="1000MiB")
    else:
        root.v2(current="500MiB", max="1000MiB", high="900MiB", psi=(1, 1))
    root.psi()
    root.meminfo()
    made = MemoryPressure(root=root.path, ledger=MemoryLedger(MIB))
    files = sorted(path for path in root.path.rglob("*") if path.is_file())
    for look in range(3):
        if look == moment:
            for path in data.draw(st.lists(st.sampled_from(files), min_size=1, max_size=3)):
                old = path.read_bytes()
                cut = data.draw(st.integers(0, len(old)))
                path.write_bytes(data.draw(st.sampled_from([b"", old[:cut]])) + data.draw(st.binary(max_size=50)))
        assert made.poll(force=True) in PressureLevel
        assert {source.name for source in made.sources} == {"cgroup", "psi", "meminfo", "ledger"}
        assert named(made)["ledger"].found and repr(made)


def test_a_group_of_version_1_without_its_figures_is_left_out(fake_root, clock, poll):
    """A stat that lacks what is counted says nothing; nor does a line of mountinfo that is cut off."""
    root = fake_root()
    folder = root.v1(usage="960MiB", limit="1000MiB")
    (folder / "memory.stat").write_text("cache 12\n")
    made = MemoryPressure(root=root.path, clock=clock)
    assert poll(made) is NORMAL
    assert "memory.stat has no total_inactive_file" in named(made)["cgroup"].detail
    root.write("proc/self/mountinfo", "30 22 0:26 / - cgroup\n")
    made = MemoryPressure(root=root.path, clock=clock)
    assert poll(made) is NORMAL
    assert "no version 1 hierarchy is mounted" in named(made)["cgroup"].detail


def test_numbers_larger_than_any_machine_are_no_limit(fake_root, clock, poll):
    """Version 1 writes 2^63 less a page for it."""
    root = fake_root()
    root.v1(usage="960MiB", limit=9223372036854771712)
    made = MemoryPressure(root=root.path, clock=clock)
    assert poll(made) is NORMAL and "no limit" in named(made)["cgroup"].detail


def test_a_source_that_may_not_be_read_is_named(fake_root, clock, poll, monkeypatch):
    """The permission may be missing for one file only, and come back."""
    root = fake_root()
    root.v2(current="960MiB", max="1000MiB")
    made = MemoryPressure(root=root.path, clock=clock)
    with monkeypatch.context() as patch:
        real = os.open

        def refuse(path, *args, **kwargs):
            if str(path).endswith("memory.current"):
                raise PermissionError(errno.EACCES, "Permission denied", path)
            return real(path, *args, **kwargs)

        patch.setattr(os, "open", refuse)
        assert poll(made) is NORMAL
        assert named(made)["cgroup"].detail.startswith(
            f"{root.path}/sys/fs/cgroup/app/memory.current: Permission denied"
        )
    clock.advance(sources_module.LOOK_AGAIN_SECONDS)
    assert poll(made) is CRITICAL


def test_a_kernel_that_opens_stalls_and_refuses_to_read_them(fake_root, clock, poll, monkeypatch):
    """As with `psi=0`, or `cgroup.pressure` switched off. The reason names the file, which a read does not."""
    root = fake_root()
    root.psi()
    path = str(root.path / "proc/pressure/memory")
    real_open, real_read, opened = os.open, os.read, set()

    def note(name, *args, **kwargs):
        fd = real_open(name, *args, **kwargs)
        opened.discard(fd)
        if name == path:
            opened.add(fd)
        return fd

    def refuse(fd, count):
        if fd in opened:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return real_read(fd, count)

    monkeypatch.setattr(os, "open", note)
    monkeypatch.setattr(os, "read", refuse)
    made = MemoryPressure(root=root.path, clock=clock)
    assert poll(made) is NORMAL
    assert named(made)["psi"].detail.endswith(f"{path}: Operation not supported")


@pytest.mark.parametrize("nth", range(1, 8))
def test_a_file_that_vanishes_between_two_reads(fake_root, clock, poll, nth, monkeypatch):
    """Whichever it is: left out, looked for again at the next poll, and back when it is."""
    root = fake_root()
    root.v2(current="960MiB", max="1000MiB")
    root.meminfo()
    root.psi()
    made = MemoryPressure(root=root.path, clock=clock)
    assert poll(made) is poll(made) is CRITICAL
    calls = 0
    real = os.open

    def vanish(path, *args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == nth:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return real(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", vanish)
        assert poll(made) is CRITICAL
    assert calls >= nth, "every one of the files was it, once"
    assert sum(source.found for source in made.sources) == 2
    assert poll(made) is CRITICAL
    assert sum(source.found for source in made.sources) == 3 and len(made.readings) == 4


def test_a_group_that_a_process_is_moved_to_as_it_begins_counts_soon(fake_root, clock, poll):
    """What starts a process moves it a moment later, and a file may be read while it is written: the second read looks anew."""
    root = fake_root(group="/session")
    root.v2(current=0)
    (root.path / "proc/self/cgroup").write_text("")
    made = MemoryPressure(root=root.path, clock=clock)
    assert poll(made) is NORMAL and not named(made)["cgroup"].found
    root.group = "/service"
    root.v2(current="960MiB", max="1000MiB")
    assert poll(made) is CRITICAL and named(made)["cgroup"].found


def test_a_folder_or_an_endless_file_is_no_source(fake_root, clock, poll):
    """A root that is no system at all."""
    root = fake_root()
    (root.path / "proc/meminfo").mkdir()
    root.write("proc/pressure/memory", "some avg10=99.00 \n" * 100_000)
    made = MemoryPressure(root=root.path, clock=clock)
    assert poll(made) is NORMAL
    assert "more than 1MiB" in named(made)["psi"].detail and not named(made)["meminfo"].found


@given(st.text() | st.binary().map(os.fsdecode) | st.integers(-9, 1 << 70).map(str))
def test_a_number_is_what_it_says_or_garbled(text):
    """Digits only, in range; nothing else gets through, and nothing else is raised."""
    digits = text.strip()
    if digits and set(digits) <= set("0123456789") and len(digits) <= 19 and int(digits) < 1 << 63:
        assert parse_number(text, "file") == int(digits)
    else:
        with pytest.raises(Garbled, match="file says"):
            parse_number(text, "file")


def test_a_small_file_is_read_whole_however_it_comes(tmp_path, monkeypatch):
    """The system may give a part at a time."""
    path = tmp_path / "file"
    path.write_text("name 1\n" * 1000)
    real = os.read
    monkeypatch.setattr(os, "read", lambda fd, count: real(fd, min(count, 100)))
    assert read_text(str(path)) == "name 1\n" * 1000


# -- where there is no /proc ------------------------------------------------------------------------------------


def make_psutil(total: int, available: int, monkeypatch) -> None:
    fake = SimpleNamespace(virtual_memory=lambda: SimpleNamespace(total=total, available=available))
    monkeypatch.setitem(sys.modules, "psutil", fake)


def without_proc(monkeypatch) -> None:
    real = os.path.exists
    monkeypatch.setattr(os.path, "exists", lambda path: path != "/proc" and real(path))


def test_psutil_is_asked_where_there_is_no_proc(clock, poll, monkeypatch):
    """On other systems than Linux; imported only then."""
    make_psutil(GIB, 30 * MIB, monkeypatch)
    without_proc(monkeypatch)
    made = MemoryPressure(root="/", clock=clock)
    assert poll(made) is CRITICAL and made.reason == "psutil: 30MiB available of 1GiB"
    make_psutil(GIB, GIB, monkeypatch)
    made = MemoryPressure(root="/", clock=clock)
    assert poll(made) is NORMAL and named(made)["psutil"].found


@pytest.mark.parametrize("memory", [(0, 0), (1, -1), (None, None)])
def test_psutil_that_fails_is_left_out(clock, poll, monkeypatch, memory):
    """Whatever it raises; and where it is not installed."""
    make_psutil(*memory, monkeypatch)
    without_proc(monkeypatch)
    made = MemoryPressure(root="/", clock=clock)
    assert poll(made) in PressureLevel
    assert not named(made)["psutil"].found and "psutil" in named(made)["psutil"].detail
    monkeypatch.setitem(sys.modules, "psutil", None)
    made = MemoryPressure(root="/", clock=clock)
    assert poll(made) in PressureLevel and not named(made)["psutil"].found


def test_psutil_is_not_asked_about_another_root(tmp_path, clock, poll, monkeypatch):
    """It knows the machine it runs on, and no other."""
    make_psutil(GIB, 30 * MIB, monkeypatch)
    made = MemoryPressure(root=tmp_path, clock=clock)
    assert poll(made) is NORMAL
    assert named(made)["psutil"].detail.startswith("not asked")


def test_a_relative_root_stays_where_it_was(fake_root, clock, poll, monkeypatch, tmp_path):
    """A program may change its folder."""
    root = fake_root()
    root.meminfo(total="1GiB", available="1MiB")
    monkeypatch.chdir(root.path.parent)
    made = MemoryPressure(root="root", clock=clock)
    monkeypatch.chdir("/")
    assert poll(made) is CRITICAL
