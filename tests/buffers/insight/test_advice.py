"""advise(): what is set up wrongly is found, what is sound is left alone, and each proposal is legal and helps.

The set-ups of setups.py run on real pools; the edges of each rule are shown by snapshots made by hand.
"""

from __future__ import annotations

import errno
import importlib.util
import re
import threading
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daramjwee.buffers import AdaptiveBufferPool, BufferPoolConfig, PressureLevel, Strategy, arenas
from daramjwee.buffers.insight.advice import RULES, RULES_DISABLED, advise
from daramjwee.buffers.reserve import reserve
from daramjwee.buffers.stats import BufferPoolStats, ChunkClassStats, GateStats, OperationStats, SizeShare
from daramjwee.buffers.strategy import SizeClass
from daramjwee.errors import ConfigError

# Beside this file: tests are no package, and parameters are wanted before there are fixtures.
_spec = importlib.util.spec_from_file_location("setups", Path(__file__).with_name("setups.py"))
setups = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(setups)

pytestmark = [
    pytest.mark.usefixtures("unkept"),
    pytest.mark.filterwarnings("ignore:.*was lost without release:ResourceWarning"),
]

KIB, MIB = 1024, 1024 * 1024
NORMAL, ELEVATED, HIGH, CRITICAL = PressureLevel
CODES = [rule.code for rule in (*RULES, *RULES_DISABLED)]
Config = BufferPoolConfig


def named(setup) -> str:
    return setup.name


# -- the labelled set ------------------------------------------------------------------------------------


@pytest.mark.parametrize("setup", setups.SEEDED, ids=named)
def test_what_is_set_up_wrongly_is_found_and_nothing_else(setup, tmp_path):
    """The right field and direction, on a real pool under a real load."""
    code, field, direction = setup.found
    with setups.look(setup, setup.config, tmp_path) as pool:
        findings = advise(pool.stats(), setup.config)
    assert {finding.code for finding in findings} == {code}
    assert (findings[0].field, findings[0].direction) == (field, direction)
    assert findings[0].current == getattr(setup.config, field)


@pytest.mark.parametrize("setup", [setup for setup in setups.SEEDED if setup.heals], ids=named)
def test_under_what_is_advised_the_same_load_gives_that_finding_no_more(setup, tmp_path):
    with setups.look(setup, setup.config, tmp_path) as pool:
        findings = advise(pool.stats(), setup.config)
    mended = setup.config.replace(**{finding.field: finding.proposed for finding in findings})
    with setups.look(setup, mended, tmp_path) as pool:
        again = advise(pool.stats(), mended)
    assert setup.found[0] not in {finding.code for finding in again}


@pytest.mark.parametrize("setup", setups.SOUND, ids=named)
def test_what_is_sound_is_left_alone(setup, tmp_path):
    with setups.look(setup, setup.config, tmp_path) as pool:
        assert advise(pool.stats(), setup.config) == ()


def test_copies_that_the_system_gives_no_memory_ask_for_no_other_strategy(monkeypatch):
    """They fall back, but not for what is configured."""

    def refuse(size: int) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    reserve.lay_by()
    monkeypatch.setattr(arenas, "_map", refuse)
    config = Config(large_object_strategy="chunked")
    with AdaptiveBufferPool(config) as pool:
        for _ in range(20):
            pool.copy(setups.Source(MIB), setups.Sink(), MIB)
        assert pool.stats().fallbacks == 20 and advise(pool.stats(), config) == ()


def test_each_rule_is_provoked_by_a_seeded_set_up_and_there_are_enough():
    assert {setup.found[0] for setup in setups.SEEDED} == set(CODES)
    assert len(setups.SEEDED) >= 14 and len(setups.SOUND) >= 12
    names = [setup.name for setup in (*setups.SEEDED, *setups.SOUND)]
    assert len(names) == len(set(names))


# -- the edges of each rule ------------------------------------------------------------------------------


def chunked(count: int, size: int, strategy: Strategy = Strategy.CHUNKED) -> tuple[OperationStats, ...]:
    return (OperationStats(SizeClass.LARGE, strategy, count, size),)


def gate(**counts) -> GateStats:
    return GateStats(**counts)


def sizes(*shares: tuple[int, float]) -> tuple[SizeShare, ...]:
    return tuple(SizeShare(size, weight) for size, weight in shares)


def private(count: int) -> tuple[ChunkClassStats, ...]:
    return (ChunkClassStats(0, misses=count, puts=count),)


def stats(**fields) -> BufferPoolStats:
    return BufferPoolStats(**({"system_pressure": fields.get("pressure", NORMAL)} | fields))


SLOW_GATE = gate(entered=64, waited=16, wait_seconds=0.64)
PEAK = {"mapped_bytes": 8 * MIB, "peak_bytes": MIB, "maps": 8, "seconds": 480}

# For each rule: a configuration, figures that are just enough, and changes each of which makes them too little.
EDGES = [
    ("disabled", Config(enabled=False), {"maps": 64, "mapped_bytes": 2 * MIB},
     [{"maps": 63}, {"mapped_bytes": 2 * MIB - 1}]),
    ("leases_are_lost", Config(), {"lost_leases": 1}, [{"lost_leases": 0}]),
    ("no_lease_is_lost", Config(leak_detection="full"), {"total_puts": 10_000},
     [{"total_puts": 9_999}, {"lost_leases": 1}]),
    ("timeout_short", Config(acquire_timeout=0.99), {"overloads": 8, "waits": 8, "wait_seconds": 8.0},
     [{"overloads": 7}, {"total_gets": 801}, {"wait_seconds": 7.1}, {"wait_seconds": 31.7}, {"pressure": HIGH}]),
    ("timeout_short", Config(acquire_timeout=0.5), {"gate": gate(waited=4, wait_seconds=0.5, timed_out=8)},
     [{"gate": gate(waited=4, wait_seconds=0.5, timed_out=7)}, {"gate": gate(waited=4, wait_seconds=0.49, timed_out=8)},
      {"gate": gate(waited=4, wait_seconds=8.1, timed_out=8)}, {"gate": gate(timed_out=8)}]),
    ("chunk_never_fits", Config(chunk_size="1MiB"), {"fallbacks": 8, "ledger_limit": MIB - 1},
     [{"fallbacks": 7}, {"ledger_limit": MIB}]),
    ("chunk_large", Config(chunk_size="1MiB"), {"copies": 64, "waits": 8},
     [{"copies": 63}, {"waits": 7}, {"total_gets": 801}]),
    ("chunk_large", Config(chunk_size="1MiB"), {"copies": 64, "pressure": HIGH},
     [{"copies": 63}, {"pressure": ELEVATED}]),
    ("chunk_large", Config(chunk_size="1MiB"), {"copies": 64, "gate": SLOW_GATE, "ledger_limit": 16 * MIB - 1},
     [{"ledger_limit": 16 * MIB}, {"gate": gate(entered=64, waited=15, wait_seconds=0.64)},
      {"gate": gate(entered=64, waited=16, wait_seconds=0.63)}]),
    ("chunk_small", Config(chunk_size="64KiB"),
     {"operations": chunked(64, 8 * MIB), "copied_bytes": 8 * MIB, "moved_chunks": 256},
     [{"operations": chunked(63, 8 * MIB)}, {"operations": chunked(64, 4 * MIB - 1)}, {"moved_chunks": 257},
      {"moved_chunks": 127}, {"operations": chunked(65, 8 * MIB)}, {"pressure": ELEVATED}]),
    ("strategy_falls_back", Config(large_object_strategy="pooled"), {"copies": 32, "fallbacks": 8},
     [{"fallbacks": 7}, {"copies": 33}, {"refusals": 1}, {"overloads": 1}]),
    ("direct_maps", Config(large_object_strategy="direct"),
     {"chunks": private(64), "copies": 256, "operations": chunked(64, MIB, Strategy.DIRECT), "copied_bytes": 2 * MIB},
     [{"chunks": private(63)}, {"copies": 257}, {"copied_bytes": 2 * MIB + 1}, {"sizes": sizes((2 * MIB, 1))}]),
    ("threshold_low", Config(large_object_threshold="32KiB"), {"gate": gate(entered=64, waited=63, refused=1)},
     [{"gate": gate(entered=63, waited=63, refused=1)}, {"gate": gate(entered=64, waited=63)}]),
    ("threshold_high", Config(large_object_threshold="1025KiB", very_large_object_threshold="2MiB"),
     {"waits": 8, "sizes": sizes((MIB, 64)), "gate": gate(entered=1)},
     [{"waits": 7}, {"total_gets": 801}, {"sizes": sizes((MIB, 63))}, {"sizes": sizes((256 * KIB, 64))}, {"gate": gate()}]),
    ("queue_short", Config(max_queued_large_ops=1023), {"gate": gate(refused=8)},
     [{"gate": gate(refused=7)}, {"gate": gate(refused=8, entered=801)}, {"pressure": HIGH}]),
    ("gate_narrow", Config(max_concurrent_large_ops=15),
     {"gate": SLOW_GATE, "peak_bytes": 32 * MIB, "ledger_limit": 64 * MIB},
     [{"gate": gate(entered=63, waited=16, wait_seconds=0.64)}, {"gate": gate(entered=64, waited=15, wait_seconds=0.64)},
      {"gate": gate(entered=64, waited=16, wait_seconds=0.63)}, {"peak_bytes": 32 * MIB + 1}, {"waits": 8},
      {"pressure": ELEVATED}, {"ledger_limit": 8 * MIB - 1, "peak_bytes": MIB}]),
    ("gate_wide", Config(max_concurrent_large_ops=2), {"gate": gate(entered=64), "waits": 8, "pressure": HIGH},
     [{"gate": gate(entered=63)}, {"gate": gate(entered=64, waited=1)}, {"waits": 7},
      {"total_gets": 801}, {"pressure": ELEVATED}]),
    ("largest_small", Config(), {"chunks": private(64), "total_gets": 1280, "sizes": sizes((2 * MIB, 8))},
     [{"chunks": private(63)}, {"total_gets": 1281}, {"sizes": sizes((2 * MIB, 7))}, {"sizes": sizes((MIB, 64))},
      {"sizes": sizes((17 * MIB, 64))}, {"pressure": ELEVATED}]),
    ("least_large", Config(min_buffer_size="16KiB"), {"sizes": sizes((4096, 96), (MIB, 32))},
     [{"sizes": sizes((4096, 95), (MIB, 33))}, {"sizes": sizes((4096, 96), (MIB, 31))}, {"sizes": sizes((8192, 128))}]),
    ("pool_small", Config(), {"waits": 8, "total_gets": 800, "total_puts": 800, "ledger_limit": 64 * MIB},
     [{"waits": 7}, {"total_gets": 801, "total_puts": 801}, {"total_puts": 63}, {"active_buffers": 201},
      {"ledger_limit": 64 * MIB + 1}, {"pressure": HIGH}]),
    ("pool_small", Config(max_concurrent_large_ops=256),
     {"gate": SLOW_GATE, "total_gets": 64, "total_puts": 64, "ledger_limit": 64 * MIB - 1},
     [{"ledger_limit": 64 * MIB}, {"gate": gate(entered=64, waited=15, wait_seconds=0.64)}]),
    ("pool_small", Config(),
     {"chunks": private(64), "total_gets": 1280, "total_puts": 1280, "peak_bytes": 58 * MIB, "ledger_limit": 65 * MIB},
     [{"chunks": private(63)}, {"total_gets": 1281}, {"peak_bytes": 57 * MIB}, {"ledger_limit": 64 * MIB},
      {"sizes": sizes((2 * MIB, 1))}]),
    ("pool_small", Config(max_pool_bytes="10MiB"),
     {"mapped_bytes": 72 * MIB, "peak_bytes": 9 * MIB, "maps": 8, "seconds": 480, "total_gets": 64, "total_puts": 64},
     [{"mapped_bytes": 72 * MIB - 1}, {"peak_bytes": 9 * MIB - 1}, {"maps": 7}, {"seconds": 481},
      {"chunks": private(4)}]),
    ("pool_large", Config(), {"pressure": HIGH, "arena_bytes": 32 * MIB, "private_bytes": 1, "total_gets": 64},
     [{"pressure": ELEVATED}, {"private_bytes": 0}, {"total_gets": 63}, {"waits": 1}]),
    ("idle_short", Config(max_idle_age=59), PEAK,
     [{"mapped_bytes": 8 * MIB - 1}, {"maps": 7}, {"seconds": 481}, {"pressure": ELEVATED}]),
    ("idle_long", Config(max_idle_age=61),
     {"pressure": ELEVATED, "idle_bytes": 8 * MIB, "arena_bytes": 16 * MIB, "total_gets": 64, "ledger_limit": 64 * MIB},
     [{"pressure": NORMAL}, {"pressure": HIGH}, {"idle_bytes": 8 * MIB - 1}, {"arena_bytes": 16 * MIB + 1},
      {"total_gets": 63}, {"ledger_held": 61 * MIB}]),
]  # fmt: skip

# The same of settings: with these figures, but a setting that leaves nothing to advise.
SETTINGS = [
    ("leases_are_lost", Config(leak_detection="full")),
    ("no_lease_is_lost", Config()),
    ("timeout_short", Config(acquire_timeout=0)),
    ("timeout_short", Config(acquire_timeout=1)),
    ("chunk_large", Config(chunk_size="512KiB")),
    ("chunk_large", Config(min_buffer_size="1MiB", default_buffer_size="1MiB")),
    ("chunk_small", Config(chunk_size="65KiB")),
    ("strategy_falls_back", Config()),
    ("direct_maps", Config()),
    ("threshold_low", Config(large_object_threshold="33KiB")),
    ("threshold_high", Config(large_object_threshold="1MiB", very_large_object_threshold="2MiB")),
    ("queue_short", Config()),
    ("gate_narrow", Config()),
    ("gate_wide", Config(max_concurrent_large_ops=1)),
    ("largest_small", Config(max_buffer_size="2MiB")),
    ("least_large", Config()),
    ("pool_large", Config(max_buffer_size="64MiB")),
    ("idle_short", Config()),
    ("idle_long", Config()),
]


def codes(figures: dict, config: BufferPoolConfig) -> set[str]:
    return {finding.code for finding in advise(stats(**figures), config)}


@pytest.mark.parametrize(("code", "config", "figures", "_"), EDGES, ids=[edge[0] for edge in EDGES])
def test_just_enough_is_found(code, config, figures, _):
    assert codes(figures, config) == {code}


@pytest.mark.parametrize(
    ("code", "config", "figures"),
    [(code, config, figures | less) for code, config, figures, changes in EDGES for less in changes],
)
def test_a_little_less_is_not_found(code, config, figures):
    assert code not in codes(figures, config)


@pytest.mark.parametrize(("code", "config"), SETTINGS)
def test_a_setting_that_leaves_nothing_to_advise_gets_no_advice(code, config):
    for name, _, figures, _ in EDGES:
        if name == code:
            assert code not in codes(figures, config)


def test_each_rule_has_its_edges():
    assert {edge[0] for edge in EDGES} == set(CODES) and len(CODES) == len(set(CODES))


def test_a_new_pool_gets_no_advice():
    with AdaptiveBufferPool() as pool:
        assert advise(pool.stats(), pool.config) == ()


def test_what_must_move_along_is_proposed_together():
    """A larger default needs a larger maximum, which needs a larger pool: one code, three findings, one remedy."""
    config = Config(
        min_buffer_size="4KiB", default_buffer_size="16KiB", max_buffer_size="16KiB", max_pool_bytes="128KiB"
    )
    figures = {"operations": chunked(64, 8 * MIB), "copied_bytes": 8 * MIB, "moved_chunks": 512}
    findings = advise(stats(**figures), config)
    assert [finding.field for finding in findings] == ["default_buffer_size", "max_buffer_size", "max_pool_bytes"]
    assert {finding.code for finding in findings} == {"chunk_small"}
    assert findings[0].remedy == (
        "set default_buffer_size to 256KiB (now 16KiB), together with max_buffer_size, max_pool_bytes"
    )


# -- whatever the figures --------------------------------------------------------------------------------

COUNTS = st.sampled_from([0, 1, 7, 8, 63, 64, 100, 1000, 10_000, 10**6])
BYTES = st.sampled_from([0, 1, 4096, 65536, MIB, 8 * MIB, 64 * MIB, 1 << 40])
SIZES = [1, 4096, 16 * KIB, 64 * KIB, 256 * KIB, 512 * KIB, MIB, 4 * MIB, 64 * MIB, 1 << 50]


@st.composite
def configs(draw) -> BufferPoolConfig:
    least, default, most, pool = sorted(draw(st.lists(st.sampled_from(SIZES), min_size=4, max_size=4)))
    large, very_large = sorted(draw(st.lists(st.sampled_from(SIZES), min_size=2, max_size=2, unique=True)))
    fitting = [size for size in SIZES if least <= size <= most]
    return Config(
        enabled=draw(st.sampled_from([True, True, True, False])),
        min_buffer_size=least,
        default_buffer_size=default,
        max_buffer_size=most,
        max_pool_bytes=pool,
        chunk_size=draw(st.sampled_from([None, *fitting])),
        large_object_threshold=large,
        very_large_object_threshold=very_large,
        large_object_strategy=draw(st.sampled_from(list(Strategy))),
        max_concurrent_large_ops=draw(st.sampled_from([1, 2, 15, 16, 64, 1 << 20])),
        max_queued_large_ops=draw(st.sampled_from([1, 1023, 1024, 1 << 20])),
        acquire_timeout=draw(st.sampled_from([0, 0.01, 0.5, 1, 30])),
        max_idle_age=draw(st.sampled_from([0, 1, 59, 60, 61, 3600])),
        leak_detection=draw(st.sampled_from(["off", "sampled", "full"])),
    )


@st.composite
def snapshots(draw, config: BufferPoolConfig) -> BufferPoolStats:
    """Figures that a pool could have: puts of gets, idle memory of what is mapped, failures of waits, and so on."""
    puts, active, misses, singles = draw(COUNTS), draw(COUNTS), draw(COUNTS), draw(COUNTS)
    idle, leased, alone, more = draw(BYTES), draw(BYTES), draw(BYTES), draw(BYTES)
    overloads, served, entered = draw(COUNTS), draw(COUNTS), draw(COUNTS)
    count, size = draw(COUNTS), draw(BYTES)
    chunk = config.chunk_size or config.default_buffer_size
    timeout = draw(st.sampled_from([0.0, 0.001, 0.02, 1.0, 60.0]))
    waited = draw(st.sampled_from([0, entered // 4, entered]))
    peak = idle + leased + alone + draw(BYTES)
    return stats(
        total_gets=puts + active, total_puts=puts, active_buffers=active, pool_misses=min(misses, puts + active),
        pool_hits=max(0, puts + active - misses), lost_leases=draw(st.sampled_from([0, 0, 1])),
        overloads=overloads, waits=overloads + served, wait_seconds=(overloads + served) * timeout,
        copies=count, copied_bytes=size, moved_chunks=draw(st.sampled_from([count, size // chunk])), fallbacks=draw(st.sampled_from([0, count // 4, count])),
        maps=max(1, singles) + draw(COUNTS), mapped_bytes=peak * draw(st.integers(1, 20)), peak_bytes=peak,
        arena_bytes=idle + leased, idle_bytes=idle, private_bytes=alone, ledger_held=idle + leased + alone + more,
        ledger_limit=draw(st.sampled_from([config.max_pool_bytes, config.max_pool_bytes // 2 + 1, 1 << 50])),
        pressure=draw(st.sampled_from(list(PressureLevel))), seconds=draw(st.sampled_from([0.0, 10.0, 1e5])),
        operations=chunked(count, size, draw(st.sampled_from([Strategy.CHUNKED, Strategy.DIRECT]))),
        sizes=sizes(*((asked, draw(COUNTS)) for asked in (4096, 256 * KIB, MIB, 2 * MIB, 16 * MIB))),
        chunks=private(singles),
        gate=gate(entered=entered, waited=waited, wait_seconds=waited * timeout, refused=draw(COUNTS),
                  timed_out=draw(COUNTS)),
    )  # fmt: skip


@given(st.data())
def test_proposals_are_legal_alone_by_code_and_together_whatever_the_figures(data):
    config = data.draw(configs())
    findings = advise(data.draw(snapshots(config)), config)
    fields = [finding.field for finding in findings]
    assert len(fields) == len(set(fields))
    for code in {finding.code for finding in findings}:
        config.replace(**{finding.field: finding.proposed for finding in findings if finding.code == code})
    advised = config.replace(**{finding.field: finding.proposed for finding in findings})
    for finding in findings:
        assert finding.current == getattr(config, finding.field) != finding.proposed
        assert getattr(advised, finding.field) == finding.proposed
        assert finding.direction in {"raise", "lower", "set"} and finding.seen and finding.gain and finding.figures
        msgspec.json.encode(finding)


def test_what_came_between_two_looks_and_two_pools_together_may_be_judged():
    config = Config(max_queued_large_ops=1)
    before, after = stats(gate=gate(refused=8)), stats(gate=gate(refused=15))
    assert codes({"gate": (after.since(before)).gate}, config) == set()
    assert {finding.code for finding in advise(before + after, config)} == {"queue_short"}


# -- the page --------------------------------------------------------------------------------------------


def test_the_page_names_each_rule_with_its_field_and_direction():
    page = (Path(__file__).parents[3] / "docs" / "monitoring.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \| ((?:raise|lower|set)[a-z, ]*) \|", page, re.MULTILINE)
    assert [row[0] for row in rows] == CODES
    told = {
        (code, field, direction)
        for code, fields, directions in rows
        for field, direction in zip(re.findall(r"\w+", fields), directions.split(", "), strict=True)
    }
    assert told == {setup.found for setup in setups.SEEDED}


def test_a_pool_that_is_too_small_is_told_so_while_its_requests_wait(unkept):
    """Requests that wait are pressure of the pool's own making: no reason to keep the advice back, and health does not ask
    for a larger machine."""
    with AdaptiveBufferPool(Config(max_pool_bytes="1MiB")) as pool:
        held = [pool.acquire(255 * KIB) for _ in range(4)]
        waiting = [threading.Thread(target=lambda: pool.acquire(255 * KIB, timeout=30).release()) for _ in range(16)]
        for thread in waiting:
            thread.start()
        while pool.stats().waiting < len(waiting):
            pass
        pool.memory_pressure.poll(force=True)
        pool.maintain()
        assert pool.pressure is HIGH and pool.stats().system_pressure is NORMAL
        (finding,) = (finding for finding in pool.health() if finding.code == "pressure")
        assert "raise max_pool_bytes" in finding.remedy and "ledger" in finding.seen
        for lease in held:
            lease.release()
        for thread in waiting:
            thread.join()
        for _ in range(100):
            pool.acquire(255 * KIB).release()
        assert pool.pressure is HIGH
        assert "max_pool_bytes" in {finding.field for finding in advise(pool.stats(), pool.config)}


def test_advice_without_figures_or_settings_is_refused_for_both():
    """And says where they are had."""
    with pytest.raises(ConfigError) as caught:
        advise(None, 3)
    assert [problem.field for problem in caught.value.problems] == ["stats", "config"]
    with pytest.raises(ConfigError, match=r"stats = None: must be a BufferPoolStats, such as pool.stats\(\)"):
        advise(None, BufferPoolConfig())


def test_one_lease_that_is_lost_is_one():
    (finding,) = advise(BufferPoolStats(total_gets=1, lost_leases=1), BufferPoolConfig())
    assert finding.seen.startswith("1 of 1 lease was lost, ")
