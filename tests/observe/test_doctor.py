"""The doctor: every line of its report is provoked in each of its states, in a world made up for it."""

from __future__ import annotations

import errno
import inspect
import os
import re
from pathlib import Path

import pytest

from daramjwee import BufferPoolConfig, Cache, CacheConfig, ConfigError, FileStore, MemoryStore
from daramjwee.cli.doctor import settings_of
from daramjwee.errors import Problem
from daramjwee.model import LEAST_MEMORY
from daramjwee.observe.doctor import CHECKS, Case, Runtime, State, cgroup, examine, probes
from daramjwee.observe.doctor.case import FREE_SPACE_FLOOR, MEMORY_LIMIT
from daramjwee.observe.doctor.machine import EARLIEST_WALL
from daramjwee.stores.file.files import Files
from daramjwee.units import GIB, KIB, MIB, parse_size

ROOT = Path(__file__).parents[2]
OK, NOTE, PROBLEM = State
NOW = 1_800_000_000.0

MEMINFO = """MemTotal: 16777216 kB
MemAvailable: 12582912 kB
SwapTotal: 0 kB
SwapFree: 0 kB
CommitLimit: 8388608 kB
Committed_AS: 1048576 kB
"""
LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max data size             unlimited            unlimited            bytes
Max address space         unlimited            unlimited            bytes
Max open files            20000                20000                files
"""
CALM = "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
GROUP = "sys/fs/cgroup/app.slice/web"
THP = "sys/kernel/mm/transparent_hugepage"
HEALTHY = {
    "proc/meminfo": MEMINFO,
    "proc/self/limits": LIMITS,
    "proc/self/cgroup": "0::/app.slice/web\n",
    "proc/self/status": "Name: python\nVmSwap: 0 kB\nTHP_enabled: 1\n",
    "proc/self/maps": "7f00-7f01 r-xp 00000000 fe:00 1 /usr/lib/libc.so.6\n",
    "proc/self/mountinfo": (
        "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
        "28 27 0:9 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
    ),
    "proc/pressure/memory": CALM,
    "proc/sys/vm/overcommit_memory": "0\n",
    "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
    f"{GROUP}/memory.max": "max\n",
    f"{GROUP}/memory.high": "max\n",
    f"{GROUP}/memory.current": f"{100 * MIB}\n",
    f"{GROUP}/memory.stat": "inactive_file 0\nactive_file 0\n",
    f"{GROUP}/memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n",
    f"{GROUP}/memory.pressure": CALM,
    f"{GROUP}/cpu.max": "max 100000\n",
    f"{THP}/enabled": "always [madvise] never\n",
    f"{THP}/defrag": "always defer defer+madvise [madvise] never\n",
    "sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc\n",
}
RUNTIME = Runtime(
    implementation="cpython", version=(3, 12, 4), stage="final", free_threaded=False, gil=True, debug_build=False,
    dev_mode=False, traced=False, page_bytes=4096, libc="glibc 2.36", tick_seconds=1e-9, cpus=4,
)  # fmt: skip


class StillClock:
    """Both clocks stand where they are put."""

    def __init__(self, wall=NOW, monotonic=1000.0):
        self.wall, self.elapsed = wall, monotonic

    def now(self):
        return self.wall

    def monotonic(self):
        return self.elapsed


@pytest.fixture
def world(tmp_path):
    """Makes a case of a healthy machine, with files of /proc and /sys replaced, or (None) left out."""

    def make(texts=(), /, *, runtime=(), **given):
        root = tmp_path / "root"
        for name, text in (HEALTHY | dict(texts)).items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if text is None:
                path.unlink(missing_ok=True)
            else:
                path.write_text(text)
        usual = {
            "root": str(root), "environ": {}, "clock": StillClock(), "began": (NOW, 1000.0),
            "advise_huge": lambda: probes.HugePage(given=True), "lease_addresses": lambda config: {4096: 8192},
            "crc32c": probes.Crc, "share_blocks": lambda folder: probes.SHARED_BYTES,
        }  # fmt: skip
        changed = {name: getattr(RUNTIME, name) for name in Runtime.__struct_fields__} | dict(runtime)
        return Case(**usual | {"runtime": Runtime(**changed)} | given)

    return make


def look(name, case):
    """The answers of one check; each that is not ok says what to do, each that is has nothing to say."""
    checks = tuple(CHECKS[name](case))
    for check in checks:
        assert check.name == name
        assert check.seen
        assert bool(check.remedy) == (check.state is not State.OK), check
    return checks


def one(name, case):
    (check,) = look(name, case)
    return check


def limits(row, value):
    return re.sub(rf"({row}\s+)\S+", rf"\g<1>{value}", LIMITS)


# -- the whole -----------------------------------------------------------------------------------------------------


def test_a_healthy_machine_gets_one_ok_for_each_check(world, tmp_path):
    """Nothing to say where all is well, in the order of the table; a folder adds its own lines."""
    checks = examine(world())
    assert [check.name for check in checks] == [name for name in CHECKS if not name.startswith("folder")]
    assert {check.state for check in checks} == {OK}, checks
    folder = tmp_path / "tier"
    folder.mkdir(mode=0o700)
    os.utime(folder, (NOW, NOW))
    checks = examine(world(folder=str(folder)))
    assert [check.name for check in checks] == list(CHECKS)
    assert [check for check in checks if check.state is not OK and check.name != "folder_space"] == []


def test_this_machine_can_be_examined(tmp_path):
    """Every check answers for the machine that the tests run on, whatever it is, and none breaks."""
    checks = examine(Case(folder=str(tmp_path)))
    assert {check.name for check in checks} == set(CHECKS)
    assert not [check for check in checks if "could not be looked at" in check.seen]


def test_without_proc_and_sys_every_check_still_answers(world, tmp_path):
    """As on another system: what cannot be known is told as that, and is no problem but where pressure cannot be seen."""
    checks = examine(world(dict.fromkeys(HEALTHY), root=str(tmp_path / "nothing"), folder=str(tmp_path)))
    assert {check.name for check in checks} == set(CHECKS)
    unknown = {check.name for check in checks if "not known" in check.seen}
    assert unknown >= {
        "container_memory", "machine_memory", "address_space", "overcommit", "swap", "huge_pages", "huge_page_defrag",
        "container_cpus", "open_files", "folder_filesystem",
    }  # fmt: skip
    assert [check.name for check in checks if check.name in unknown and check.state is not NOTE] == []


def test_a_check_that_breaks_is_told_as_a_problem_and_the_others_answer(world):
    """The report is whole whatever one check meets."""

    def broken():
        raise RuntimeError("surprise")

    checks = {check.name: check for check in examine(world(crc32c=broken))}
    assert checks["checksums"].state is PROBLEM
    assert "RuntimeError: surprise" in checks["checksums"].seen
    assert checks["python"].state is OK


def test_what_the_system_forbids_to_look_at_is_not_known(world, tier):
    """That is no fault of the machine, nor of the check."""
    checks = {
        check.name: check for check in examine(world(folder=str(tier), files=Altered(statvfs=refusing(errno.EACCES))))
    }
    for name in ("folder_space", "folder_inodes"):
        assert checks[name].state is NOTE
        assert "not known" in checks[name].seen and "Permission denied" in checks[name].seen


@pytest.mark.parametrize(
    "text", ["", "\n", "garbage", "Max open files", "0 0 0 0", "\x00\xff", ": : :", "1 2 - 3\n - \n", "9" * 40]
)
def test_garbage_in_any_file_of_the_system_breaks_no_check(world, tmp_path, text):
    """All files at once say something that cannot be."""
    checks = examine(world(dict.fromkeys(HEALTHY, text), folder=str(tmp_path)))
    assert {check.name for check in checks} == set(CHECKS)
    assert [check for check in checks if "could not be looked at" in check.seen] == []


def test_the_table_of_the_docs_is_the_table_of_the_code():
    """docs/monitoring.md has each check once, in order, with the first line of what the code says of it."""
    page = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8").partition("## The doctor")[2]
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \|", page.partition("\n## ")[0], re.MULTILINE)
    said = [(name, inspect.getdoc(check).replace("\n", " ").rstrip(".")) for name, check in CHECKS.items()]
    assert rows == said


def test_what_is_assumed_of_a_cache_and_a_tier_are_their_defaults():
    """The doctor compares with what a program gets that says nothing."""
    assert parse_size(inspect.signature(Cache).parameters["memory_limit"].default) == MEMORY_LIMIT
    assert parse_size(inspect.signature(FileStore).parameters["free_space_floor"].default) == FREE_SPACE_FLOOR


# -- memory --------------------------------------------------------------------------------------------------------


def test_pressure_names_the_sources_found_and_those_not(world):
    """With figures where there are some, with the reason where there are none."""
    check = one("pressure", world())
    assert check.state is OK
    assert check.seen.startswith("NORMAL; seen by cgroup (")
    assert "psi (" in check.seen and "meminfo (" in check.seen
    check = one("pressure", world({"proc/self/cgroup": None, "proc/pressure/memory": None}))
    assert check.state is OK
    assert "; not by cgroup (" in check.seen


@pytest.mark.parametrize(("used", "state"), [(50, OK), (85, NOTE), (92, PROBLEM), (99, PROBLEM)])
def test_pressure_follows_the_level_of_now(world, used, state):
    """Elevated is worth knowing, more is a problem, and the reading that asked for it is named."""
    check = one("pressure", world({f"{GROUP}/memory.max": f"{100 * MIB}", f"{GROUP}/memory.current": f"{used * MIB}"}))
    assert check.state is state
    assert state is OK or f"{used}%" in check.seen


def test_pressure_without_any_source_is_a_problem(world, tmp_path):
    """Then nothing would tell that memory gets short."""
    bare = tmp_path / "bare"
    (bare / "proc").mkdir(parents=True)
    check = one("pressure", world(root=str(bare)))
    assert check.state is PROBLEM
    assert "seen by nothing" in check.seen


@pytest.mark.parametrize(
    ("limit", "processes", "state"),
    [
        ("max", 1, OK),
        (2 * GIB, 1, OK),
        (600 * MIB, 1, NOTE),
        (512 * MIB, 1, PROBLEM),
        (2 * GIB, 4, PROBLEM),
        (4 * GIB, 4, OK),
        (100 * MIB, 4, PROBLEM),
    ],
)
def test_a_container_must_hold_what_all_caches_may_hold(world, limit, processes, state):
    """memory_limit and the process beside it, times the processes, a quarter more for comfort."""
    check = one("container_memory", world({f"{GROUP}/memory.max": f"{limit}\n"}, processes=processes))
    assert check.state is state, check


def test_a_container_too_small_is_told_which_limit_would_fit(world):
    """The remedy has a figure that the check then accepts."""
    files = {f"{GROUP}/memory.max": f"{GIB}"}
    check = one("container_memory", world(files, processes=4))
    (figure,) = re.findall(r"lower memory_limit to (\S+),", check.remedy)
    assert one("container_memory", world(files, processes=4, memory_limit=parse_size(figure))).state is NOTE


@pytest.mark.parametrize("limit", [64 * MIB + 24_003 * MIB, 64 * MIB + 24_003 * MIB + 5 * KIB])
def test_the_limit_that_would_fit_is_never_rounded_up(world, limit):
    """23.44GiB, printed as 23.4GiB or as 23.5GiB, would be said to be too much in the next run."""
    files = {f"{GROUP}/memory.max": f"{limit}"}
    check = one("container_memory", world(files, memory_limit=60 * GIB))
    (figure,) = re.findall(r"lower memory_limit to (\S+),", check.remedy)
    assert one("container_memory", world(files, memory_limit=parse_size(figure))).state is NOTE
    assert limit - 64 * MIB - parse_size(figure) < GIB // 10


def test_the_least_limit_of_all_groups_above_counts_and_is_named(world):
    """A limit may be set on a group above, and `memory.high` slows down before the other kills."""
    above = "sys/fs/cgroup/app.slice/memory.max"
    check = one("container_memory", world({above: f"{256 * MIB}", f"{GROUP}/memory.max": f"{GIB}"}))
    assert check.state is PROBLEM
    assert f"/{above}" in check.seen and "killed" in check.seen
    check = one("container_memory", world({above: "max", f"{GROUP}/memory.high": f"{128 * MIB}"}))
    assert check.state is PROBLEM
    assert "memory.high" in check.seen and "slowed down" in check.seen


def test_version_1_groups_are_read_too_also_where_the_path_is_the_hosts(world):
    """Docker on an older system: the group's own path is not visible inside, the mounted root is."""
    old = {name: None for name in HEALTHY if name.startswith("sys/fs/cgroup")}
    old |= {
        "proc/self/cgroup": "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n",
        "proc/self/mountinfo": (
            "27 1 254:0 / / rw,relatime - overlay overlay rw\n"
            "31 27 0:29 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
            "32 27 0:30 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
        ),
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    }
    case = world(old)
    assert one("container_memory", case).state is OK
    assert cgroup.cpu_limit(case).value == 0.5
    check = one("container_memory", world(old | {"sys/fs/cgroup/memory/memory.limit_in_bytes": f"{128 * MIB}\n"}))
    assert check.state is PROBLEM
    hidden = f"cache 0\nhierarchical_memory_limit {256 * MIB}\n"
    check = one("container_memory", world(old | {
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n", "sys/fs/cgroup/memory/memory.stat": hidden,
    }))  # fmt: skip
    assert check.state is PROBLEM
    assert "hierarchical_memory_limit" in check.seen


def test_a_machine_must_hold_it_too_and_have_it_now(world):
    """All of its memory for a problem, what is available for a note."""
    assert one("machine_memory", world()).state is OK
    assert one("machine_memory", world(processes=64)).state is PROBLEM
    check = one("machine_memory", world({"proc/meminfo": MEMINFO.replace("12582912", "102400")}))
    assert check.state is NOTE
    assert check.seen.startswith("100MiB of 16GiB are available")


@pytest.mark.parametrize(("row", "name"), [("Max address space", "RLIMIT_AS"), ("Max data size", "RLIMIT_DATA")])
@pytest.mark.parametrize(("limit", "state"), [("unlimited", OK), (8 * GIB, OK), (GIB, NOTE), (512 * MIB, PROBLEM)])
def test_limits_of_the_address_space_leave_room_for_the_cache_and_for_threads(world, row, name, limit, state):
    """Less than the cache itself is a problem, less than threads may reserve a note."""
    check = one("address_space", world({"proc/self/limits": limits(row, limit)}))
    assert check.state is state
    assert limit == "unlimited" or name in check.seen


def test_strict_overcommit_is_told_with_what_is_left(world):
    """Mapped memory counts there, touched or not."""
    strict = {"proc/sys/vm/overcommit_memory": "2\n"}
    assert one("overcommit", world()).state is OK
    assert one("overcommit", world({"proc/sys/vm/overcommit_memory": "1\n"})).state is OK
    check = one("overcommit", world(strict))
    assert check.state is NOTE
    assert "7GiB are left" in check.seen
    check = one("overcommit", world(strict | {"proc/meminfo": MEMINFO.replace("1048576", "8300000")}))
    assert check.state is PROBLEM
    assert one("overcommit", world(strict | {"proc/meminfo": None})).state is NOTE


def test_swap_is_noted_when_it_is_used(world):
    """None and unused swap are well; this process in it, or half of it in use, is not."""
    swapped = MEMINFO.replace("SwapTotal: 0", "SwapTotal: 1048576")
    unused = {"proc/meminfo": swapped.replace("SwapFree: 0", "SwapFree: 1048576")}
    assert one("swap", world()).seen == "none"
    assert one("swap", world(unused)).state is OK
    assert one("swap", world({"proc/meminfo": swapped})).state is NOTE
    check = one("swap", world(unused | {"proc/self/status": "VmSwap: 2048 kB\n"}))
    assert check.state is NOTE
    assert "2MiB by this process" in check.seen


@pytest.mark.parametrize(
    ("enabled", "state", "words"),
    [
        ("always [madvise] never", OK, "madvise"),
        ("[always] madvise never", NOTE, "always"),
        ("always madvise [never]", NOTE, "ten times"),
        (None, NOTE, "not known"),
        ("garbage", NOTE, "not known"),
    ],
)
def test_huge_pages_are_there_for_those_who_ask(world, enabled, state, words):
    """`madvise` is what arenas ask for; the other settings are told with what they cost."""
    check = one("huge_pages", world({f"{THP}/enabled": enabled}))
    assert check.state is state
    assert words in check.seen


def test_huge_pages_switched_off_for_the_process_are_noted(world):
    """Some launchers of programs do that."""
    check = one("huge_pages", world({"proc/self/status": "THP_enabled: 0\n"}))
    assert check.state is NOTE
    assert "PR_SET_THP_DISABLE" in check.seen


@pytest.mark.parametrize(
    ("chosen", "state"),
    [("madvise", OK), ("defer", OK), ("defer+madvise", OK), ("always", NOTE), ("never", NOTE), (None, NOTE)],
)
def test_defrag_neither_stalls_everybody_nor_never_works(world, chosen, state):
    """What the kernel does when no huge page is free."""
    assert one("huge_page_defrag", world({f"{THP}/defrag": chosen and f"other [{chosen}] more"})).state is state


@pytest.mark.parametrize(
    ("found", "state", "words"),
    [
        (probes.HugePage(given=True), OK, "was given"),
        (probes.HugePage(given=False), NOTE, "small pages"),
        (probes.HugePage(given=None), NOTE, "not known"),
        (probes.HugePage("Invalid argument"), NOTE, "refused: Invalid argument"),
    ],
)
def test_what_came_of_the_advice_is_told(world, found, state, words):
    """Refused, accepted without a huge page, accepted with one, accepted and nobody knows."""
    check = one("huge_page_advice", world(advise_huge=lambda: found))
    assert check.state is state
    assert words in check.seen


def test_the_advice_is_really_tried(monkeypatch):
    """By a mapping as arenas make it: an answer of the system, not a guess; refused where there is no such advice."""
    found = probes.advise_huge()
    assert found.refused or found.given in {True, False, None}
    monkeypatch.delattr(probes.mmap, "MADV_HUGEPAGE", raising=False)
    assert "no MADV_HUGEPAGE" in probes.advise_huge().refused


@pytest.mark.parametrize(("size", "state"), [(4 * KIB, OK), (16 * KIB, NOTE), (64 * KIB, NOTE)])
def test_larger_pages_are_noted_as_they_make_small_buffers_large(world, size, state):
    """16 KiB on some ARM machines, 64 KiB on others."""
    assert one("page_size", world(runtime={"page_bytes": size})).state is state


def test_leases_begin_on_a_page_and_one_that_does_not_is_named(world):
    """Told by the addresses that a pool really gives."""
    found = probes.lease_addresses(BufferPoolConfig())
    assert sorted(found) == [4 * KIB, 256 * KIB, MIB, 2 * MIB]
    page = os.sysconf("SC_PAGE_SIZE")
    assert (
        one("slab_alignment", world(lease_addresses=probes.lease_addresses, runtime={"page_bytes": page})).state is OK
    )
    check = one("slab_alignment", world(lease_addresses=lambda config: {4 * KIB: 8192, MIB: 8208}))
    assert check.state is PROBLEM
    assert "leases of 1MiB do not" in check.seen


@pytest.mark.parametrize(
    ("given", "state", "words"),
    [
        ({}, OK, "glibc 2.36"),
        ({"environ": {"MALLOC_ARENA_MAX": "2"}}, OK, "MALLOC_ARENA_MAX=2"),
        ({"runtime": {"libc": ""}}, NOTE, "not glibc"),
        ({"environ": {"PYTHONMALLOC": "debug"}}, NOTE, "PYTHONMALLOC=debug"),
        ({"environ": {"PYTHONMALLOC": "pymalloc_debug"}}, NOTE, "pymalloc_debug"),
        ({"environ": {"PYTHONMALLOC": "malloc"}}, NOTE, "PYTHONMALLOC=malloc"),
        ({"environ": {"MALLOC_MMAP_THRESHOLD_": "131072"}}, NOTE, "MALLOC_MMAP_THRESHOLD_=131072"),
        ({"environ": {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=0"}}, NOTE, "GLIBC_TUNABLES"),
        ({"files": {"proc/self/maps": "7f r-xp 0 fe:00 9 /usr/lib/libjemalloc.so.2\n"}}, NOTE, "jemalloc"),
        ({"files": {"proc/self/maps": None}, "environ": {"LD_PRELOAD": "/usr/lib/libtcmalloc.so"}}, NOTE, "tcmalloc"),
    ],
)
def test_the_allocator_and_its_settings_are_told(world, given, state, words):
    """What the pool does not need, but what goes round it does."""
    given = dict(given)
    check = one("allocator", world(given.pop("files", {}), **given))
    assert check.state is state
    assert words in check.seen


# -- machine and interpreter ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "given", "state"),
    [
        ({}, {}, OK),
        ({f"{GROUP}/cpu.max": "200000 100000"}, {}, OK),
        ({f"{GROUP}/cpu.max": "50000 100000"}, {}, NOTE),
        ({f"{GROUP}/cpu.max": "200000 100000"}, {"runtime": {"cpus": 96}}, NOTE),
        ({f"{GROUP}/cpu.max": "200000 100000"}, {"runtime": {"cpus": 96}, "environ": {"MALLOC_ARENA_MAX": "2"}}, OK),
        ({"proc/self/cgroup": None}, {}, NOTE),
    ],
)
def test_processor_time_of_the_container(world, files, given, state):
    """Less than one processor, or a sliver of many, is noted."""
    assert one("container_cpus", world(files, **given)).state is state


@pytest.mark.parametrize(("limit", "state"), [("unlimited", OK), (20_000, OK), (1024, OK), (512, NOTE), (128, PROBLEM)])
def test_open_files(world, limit, state):
    """Streams, fills and what a tier keeps open must fit."""
    assert one("open_files", world({"proc/self/limits": limits("Max open files", limit)})).state is state


def test_clock_is_fine_and_cheap_to_read(world):
    """A coarse tick and a source that costs a call of the system are noted."""
    source = "sys/devices/system/clocksource/clocksource0/current_clocksource"
    assert one("clock", world()).seen == "a tick of 1ns, from tsc"
    assert one("clock", world({source: None})).state is OK
    assert one("clock", world(runtime={"tick_seconds": 0.015})).state is NOTE
    assert one("clock", world({source: "hpet\n"})).state is NOTE


def test_the_time_of_day_is_plausible_and_does_not_jump(world):
    """Before the library was written is a problem, a step while it was looked at a note."""
    check = one("wall_clock", world())
    assert (check.state, check.seen[:23]) == (OK, "2027-01-15 08:00:00 UTC")
    assert one("wall_clock", world(clock=StillClock(wall=EARLIEST_WALL - 1))).state is PROBLEM
    check = one("wall_clock", world(clock=StillClock(wall=NOW + 61, monotonic=1001.0)))
    assert check.state is NOTE
    assert "jumped by +60.0 s" in check.seen
    assert one("wall_clock", world(clock=StillClock(wall=NOW - 60))).state is NOTE
    assert one("wall_clock", world(clock=StillClock(wall=NOW + 60, monotonic=1060.0))).state is OK


@pytest.mark.parametrize(
    ("name", "runtime", "state"),
    [
        ("python", {}, OK),
        ("python", {"version": (3, 11, 0)}, OK),
        ("python", {"version": (3, 14, 0)}, NOTE),
        ("python", {"version": (3, 13, 0), "stage": "beta"}, NOTE),
        ("python", {"implementation": "pypy"}, PROBLEM),
        ("gil", {}, OK),
        ("gil", {"free_threaded": True}, NOTE),
        ("gil", {"free_threaded": True, "gil": False}, PROBLEM),
        ("python_build", {}, OK),
        ("python_build", {"debug_build": True}, NOTE),
        ("python_build", {"dev_mode": True}, NOTE),
        ("python_build", {"traced": True}, NOTE),
    ],
)
def test_the_interpreter(world, name, runtime, state):
    """What is tested, what is not claimed, what makes figures worthless."""
    assert one(name, world(runtime=runtime)).state is state


@pytest.mark.parametrize(
    ("found", "environ", "state", "words"),
    [
        (probes.Crc(), {}, OK, "by the processor"),
        (probes.Crc(hardware=False), {}, NOTE, "software"),
        (probes.Crc(hardware=False), {"CRC32C_SW_MODE": "force"}, NOTE, "CRC32C_SW_MODE=force"),
        (probes.Crc(right=False), {}, PROBLEM, "wrong"),
        (probes.Crc(missing="No module named 'crc32c'"), {}, PROBLEM, "No module named"),
    ],
)
def test_checksums(world, found, environ, state, words):
    """By the processor, or why not."""
    check = one("checksums", world(crc32c=lambda: found, environ=environ))
    assert check.state is state
    assert words in check.seen


def test_the_checksum_module_is_really_asked(monkeypatch):
    """Its own answer for a known text; that it is missing is found out by importing it."""
    assert probes.crc32c().right
    monkeypatch.setitem(__import__("sys").modules, "crc32c", None)
    assert probes.crc32c().missing


# -- the folder ----------------------------------------------------------------------------------------------------


@pytest.fixture
def tier(tmp_path):
    """A folder that a file tier has used."""
    folder = tmp_path / "tier"
    FileStore(folder, capacity="1MiB").close()
    return folder


def test_the_folder_of_a_tier_is_recognised_and_left_as_it_was(world, tier):
    """Format and mode are told; nothing is added or removed."""
    before = sorted(tier.rglob("*"))
    checks = {check.name: check for check in examine(world(folder=str(tier), clock=StillClock(wall=NOW)))}
    assert checks["folder"].seen == f"{tier}: a file tier, format 1"
    assert {checks[name].state for name in ("folder", "folder_private", "folder_operations", "folder_clones")} == {OK}
    assert sorted(tier.rglob("*")) == before


def test_a_folder_that_is_not_there_will_be_made_where_it_can_be(world, tmp_path, monkeypatch):
    """What is above it answers for the disk; nothing is made."""
    case = world(folder=str(tmp_path / "new" / "tier"))
    check = one("folder", case)
    assert check.state is NOTE
    assert str(tmp_path) in check.seen
    assert one("folder_filesystem", case).state is OK
    for name in ("folder_private", "folder_operations", "folder_clones", "folder_times"):
        assert look(name, case) == ()
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("")
    assert one("folder", world(folder=str(tmp_path / "file" / "tier"))).state is PROBLEM
    with monkeypatch.context() as patch:  # the tests may run as root, who may write anywhere
        patch.setattr(os, "access", lambda path, mode: False)
        check = one("folder", case)
    assert check.state is PROBLEM
    assert "may not make it" in check.seen


def test_folders_that_a_tier_would_refuse_are_problems(world, tmp_path, tier):
    """A file, a folder of somebody else's files, a damaged marker, a newer format, one that cannot be read."""
    (tmp_path / "file").write_text("")
    assert one("folder", world(folder=str(tmp_path / "file"))).state is PROBLEM
    assert "no DARAMJWEE" in one("folder", world(folder=str(tmp_path))).seen
    marker = tier / "DARAMJWEE"
    marker.write_text("rubbish\n")
    assert "cannot be read as a marker" in one("folder", world(folder=str(tier))).seen
    marker.write_text("daramjwee file tier\nformat 99\n")
    check = one("folder", world(folder=str(tier)))
    assert check.state is PROBLEM
    assert "format 99" in check.seen

    for call in ("stat", "listdir"):
        check = one("folder", world(folder=str(tier), files=Altered(**{call: refusing(errno.EACCES)})))
        assert check.state is PROBLEM
        assert "Permission denied" in check.seen


def test_the_folder_is_its_owners_alone(world, tmp_path, tier):
    """Another mode is a note, as the tier mends it; another owner, or a folder above that all may change, a problem."""
    assert one("folder_private", world(folder=str(tier))).state is OK
    assert one("folder_private", world(folder=str(tier), runtime={"uid": 4242})).state is PROBLEM
    tier.chmod(0o755)
    assert one("folder_private", world(folder=str(tier))).state is NOTE
    tier.chmod(0o700)
    tmp_path.chmod(0o777)
    assert one("folder_private", world(folder=str(tier))).state is PROBLEM
    tmp_path.chmod(0o1777)
    assert one("folder_private", world(folder=str(tier))).state is OK


class Altered(Files):
    """Calls of the system, some of them replaced."""

    def __init__(self, **replaced):
        vars(self).update(replaced)


def refusing(number):
    def call(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return call


def link_over(source, target):
    if os.path.exists(target):
        os.unlink(target)
    os.link(source, target)


def open_over(path, flags, mode=0o777):
    return os.open(path, flags & ~os.O_EXCL, mode)


@pytest.mark.parametrize(
    ("replaced", "words"),
    [
        ({"link": refusing(errno.EPERM)}, "hard links: Operation not permitted"),
        ({"link": link_over}, "hard links: a second one of the same name"),
        ({"open": open_over}, "making a new file (O_EXCL): a second one"),
        ({"rename": refusing(errno.EXDEV)}, "renaming over a file: "),
        ({"rename": lambda source, target: None}, "renaming over a file: the name still leads to the old file"),
        ({"pread": refusing(errno.ESTALE)}, "reading a file after it was unlinked: "),
        ({"pread": lambda fd, count, offset: b""}, "reading a file after it was unlinked: its bytes are gone"),
        ({"fsync": refusing(errno.EIO)}, "making a new file (O_EXCL): Input/output error"),
        ({"mkdir": refusing(errno.EROFS)}, "nothing can be written here: Read-only file system"),
        ({"mkdir": refusing(errno.EIO)}, "nothing can be written here: Input/output error"),
    ],
)
def test_a_folder_where_a_tier_cannot_work_is_a_problem_and_nothing_is_left(world, tier, replaced, words):
    """Each call that a tier relies on is tried, and told by its name when it fails."""
    before = sorted(tier.rglob("*"))
    check = one("folder_operations", world(folder=str(tier), files=Altered(**replaced)))
    assert check.state is PROBLEM
    assert words in check.seen
    assert sorted(tier.rglob("*")) == before


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EROFS, "mount it for writing"), (errno.EACCES, "chmod u+rwx"), (errno.ENOSPC, "free some space"),
        (errno.EIO, "name another folder"),
    ],
)  # fmt: skip
def test_a_folder_that_cannot_be_written_to_has_the_remedy_of_its_reason(world, tier, number, remedy):
    """A full disk needs no chown, a folder without permission no mount."""
    check = one("folder_operations", world(folder=str(tier), files=Altered(mkdir=refusing(number))))
    assert remedy in check.remedy


def test_a_mode_that_stops_the_tier_is_not_called_nothing(world, tier, monkeypatch):
    """A tier that may not write into its folder does not come to mend its mode."""
    tier.chmod(0o500)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the tests may run as root, who may write anywhere
    check = one("folder_private", world(folder=str(tier)))
    assert check.state is NOTE
    assert check.remedy == "see folder_operations: no tier can start in it as it is"


def test_a_folder_without_locks_is_noted(world, tier):
    """A tier works there, for one process."""
    check = one("folder_operations", world(folder=str(tier), try_lock=refusing(errno.ENOLCK)))
    assert check.state is NOTE
    assert "No locks available" in check.seen


def disk(**changed):
    """A `statvfs` of 1 GiB, half of it free."""
    blocks = {"f_frsize": 4096, "f_blocks": 262_144, "f_bavail": 131_072, "f_files": 65_536, "f_favail": 60_000}
    return Altered(statvfs=lambda path: type("Disk", (), blocks | changed))


@pytest.mark.parametrize(("free", "state"), [(GIB, OK), (630 * MIB, NOTE), (64 * MIB, PROBLEM), (0, PROBLEM)])
def test_free_space_against_the_floor(world, tier, free, state):
    """Nothing above the floor is a problem, less than ten of it a note."""
    case = world(folder=str(tier), files=disk(f_bavail=free // 4096))
    assert one("folder_space", case).state is state


def test_free_space_of_a_large_disk_is_noted_by_its_share(world, tier):
    """A twentieth."""
    case = world(folder=str(tier), files=disk(f_blocks=100 * GIB // 4096, f_bavail=2 * GIB // 4096))
    assert one("folder_space", case).state is NOTE


@pytest.mark.parametrize(
    ("changed", "state"),
    [({}, OK), ({"f_files": 0, "f_favail": 0}, OK), ({"f_favail": 3_000}, NOTE), ({"f_favail": 100}, PROBLEM)],
)
def test_inodes(world, tier, changed, state):
    """An entry needs two; some file systems have no fixed number."""
    assert one("folder_inodes", world(folder=str(tier), files=disk(**changed))).state is state


@pytest.mark.parametrize(
    ("kind", "state", "words"),
    [
        ("ext4", OK, "ext4 at"),
        ("btrfs", OK, "btrfs"),
        ("tmpfs", NOTE, "memory"),
        ("overlay", NOTE, "layer of the container"),
        ("nfs4", NOTE, "another machine's"),
        ("cifs", NOTE, "another machine's"),
        ("fuse.sshfs", NOTE, "a program answers"),
        ("wonderfs", NOTE, "not known to this library"),
    ],
)
def test_the_kind_of_file_system_and_what_it_means(world, tmp_path, tier, kind, state, words):
    """The mount that is nearest and latest counts; blanks in its name are no trouble."""
    table = (
        "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
        f"28 27 0:9 / {tmp_path} rw shared:1 - hidden none rw\n"
        f"29 27 0:9 / {tmp_path} rw shared:1 - {kind} server:/x rw\n"
        f"30 27 0:9 / {tmp_path}/t rw - other none rw\n"
        "a line that is none\n"
    )
    check = one("folder_filesystem", world({"proc/self/mountinfo": table}, folder=str(tier)))
    assert check.state is state
    assert words in check.seen
    spaced = tmp_path / "a b"
    spaced.mkdir()
    table += f"31 27 0:9 / {tmp_path}/a\\040b rw - xfs none rw\n"
    assert one("folder_filesystem", world({"proc/self/mountinfo": table}, folder=str(spaced))).seen.startswith(
        "xfs at "
    )


def test_a_read_only_mount_is_a_problem(world, tier):
    """Also one of a kind that is fine."""
    check = one("folder_filesystem", world({"proc/self/mountinfo": "1 0 0:1 / / ro - ext4 x rw\n"}, folder=str(tier)))
    assert check.state is PROBLEM


def test_clones_are_tried_and_their_absence_is_noted(world, tier):
    """Most file systems have none; that costs speed only."""
    assert one("folder_clones", world(folder=str(tier))).state is OK
    assert one("folder_clones", world(folder=str(tier), share_blocks=lambda folder: 0)).state is NOTE
    assert one("folder_clones", world(folder=str(tier), files=Altered(mkdir=refusing(errno.EACCES)))).state is NOTE
    check = one("folder_clones", world(folder=str(tier), share_blocks=probes.share_blocks))
    assert check.state in {OK, NOTE}
    assert list(tier.glob(".doctor*")) == []


def test_a_folder_changed_in_the_future_is_a_problem(world, tier):
    """In its own time, or that of any shard: an entry written there would never seem to age."""
    for folder in [tier, *tier.rglob("*")]:
        os.utime(folder, (NOW, NOW))
    assert one("folder_times", world(folder=str(tier))).state is OK
    shard = tier / "objects" / "a7"
    shard.mkdir()
    os.utime(shard, (NOW + 7200, NOW + 7200))
    check = one("folder_times", world(folder=str(tier)))
    assert check.state is PROBLEM
    assert "2.0h in the future" in check.seen


# -- settings ------------------------------------------------------------------------------------------------------


def test_settings_that_are_sound_are_named(world):
    """Those that differ from the defaults."""
    assert one("configuration", world()).seen == "the defaults"
    config, problems = settings_of(
        ["chunk_size=512KiB", "enabled=TRUE", "max_concurrent_large_ops=4", "min_buffer_size= 8KiB"]
    )
    assert problems == ()
    assert (
        one("configuration", world(config=config.buffers)).seen
        == "sound; set: min_buffer_size, chunk_size, max_concurrent_large_ops"
    )
    assert settings_of(["chunk_size=none"])[0].buffers.chunk_size is None


def test_every_problem_of_the_settings_has_a_line_with_its_mend(world):
    """Unknown fields and bad values together, as an error of `BufferPoolConfig` tells them."""
    config, problems = settings_of(["min_buffer_size=2MiB", "max_idle_age=soon", "colour=red"])
    assert config == CacheConfig()
    assert {problem.field for problem in problems} == {"min_buffer_size", "max_idle_age", "colour"}
    checks = look("configuration", world(config_problems=problems))
    assert [check.state for check in checks] == [PROBLEM] * 3
    assert all(check.remedy for check in checks)
    assert any(check.seen == "min_buffer_size = '2MiB'" for check in checks)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("chunksize", "chunk_size"), ("max_pool_byte", "max_pool_bytes"), ("leak-detection", "leak_detection")],
)
def test_a_field_that_was_mistyped_is_answered_with_the_one_that_was_meant(typed, meant):
    """Before the list of all."""
    _, (problem,) = settings_of([f"{typed}=1MiB"])
    assert problem.mend.startswith(f"is no field; did you mean {meant}? the fields are enabled, ")
    _, (problem,) = settings_of(["colour=red"])
    assert problem.mend.startswith("is no field; the fields are enabled, ")


def test_a_limit_that_no_cache_takes_is_a_problem(world):
    """The same least as `Cache` has; what else could be said of the pool is left out."""
    check = one("configuration", world(memory_limit=LEAST_MEMORY - 1))
    assert check.state is PROBLEM
    assert "raise it to 4MiB" in check.remedy
    assert one("configuration", world(memory_limit=LEAST_MEMORY)).state is NOTE
    with pytest.raises(ConfigError, match="must be at least 4MiB"):
        Cache(MemoryStore("1MiB"), memory_limit=LEAST_MEMORY - 1)


def test_settings_come_from_files_and_later_ones_count(tmp_path):
    """A TOML file as `bench --calibrate` writes it, a plain one, a JSON document."""
    calibrated, plain, document = (tmp_path / name for name in ("a.toml", "b.toml", "c.json"))
    calibrated.write_text('[buffers]\nchunk_size = "128KiB"\n')
    plain.write_text('chunk_size = "64KiB"\n')
    document.write_text('{"buffers": {"chunk_size": 8192}}')
    assert settings_of([str(calibrated)])[0].buffers.chunk_size == 128 * KIB
    assert settings_of([str(plain), "chunk_size=32KiB"])[0].buffers.chunk_size == 32 * KIB
    assert settings_of([str(document)])[0].buffers.chunk_size == 8 * KIB


@pytest.mark.parametrize(
    ("name", "text"),
    [("x.toml", "a b c"), ("x.json", "{"), ("x.json", "[1]"), ("x.json", '{"buffers": 3}'), ("x", None)],
)
def test_files_of_settings_that_cannot_be_read_are_problems(tmp_path, name, text):
    """What is wrong with them, and what to give instead."""
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    _, (problem,) = settings_of([str(path)])
    assert problem.field == "--buffers"
    assert "give field=value" in problem.mend


def test_a_pool_larger_than_the_limit_of_memory_is_noted(world):
    """It can never be used up; a pool that is off asks for nothing."""
    large = BufferPoolConfig(max_pool_bytes="1GiB")
    assert one("configuration", world(config=large)).state is NOTE
    assert one("configuration", world(config=large.replace(enabled=False))).state is OK


def test_a_problem_that_names_no_field_is_shown_by_its_value(world):
    """Nothing is left out of the line."""
    check = one("configuration", world(config_problems=(Problem("", "x", "mend it"),)))
    assert (check.seen, check.remedy) == ("'x'", "mend it")
