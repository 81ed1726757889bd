"""`cache.config` and `cache.reconfigure`: what holds, and changing it on a running cache, all or nothing."""

from __future__ import annotations

import itertools
import logging
import pickle
import sys
import threading
import types
from pathlib import Path
from typing import Any

import pytest

from daramjwee import (
    AdaptiveBufferPool,
    BufferPoolConfig,
    Cache,
    CacheConfig,
    CacheMiss,
    Closed,
    ConfigError,
    FileOrigin,
    FileStore,
    Freshness,
    MemoryStore,
    Status,
)
from daramjwee.config import SETTINGS, FileTier, GivenOrigin, GivenTier, MemoryTier
from daramjwee.engine.reconfigure import LIVE_IN_TIERS, Step, _carry_out
from daramjwee.testing.clock import ManualClock
from daramjwee.testing.origin import ScriptedOrigin

MIB = 1024 * 1024


def fields_of(error: ConfigError) -> set[str]:
    return {problem.field for problem in error.problems}


def changed_tiers(cache: Cache, **changes: Any) -> list[dict[str, Any]]:
    """The tiers of the cache as a mapping, the first with these changes."""
    first, *others = cache.config.to_mapping()["tiers"]
    return [{**first, **changes}, *others]


def test_the_configuration_tells_what_a_program_gave(tmp_path: Path) -> None:
    """Every setting of a cache that was made from objects, in plain numbers; what cannot be described is named."""
    tiers = MemoryStore("8MiB", policy="lru"), FileStore(tmp_path / "tier", capacity="16MiB", verify="always")
    pool = BufferPoolConfig(max_pool_bytes="16MiB")
    with Cache(*tiers, origin=lambda request: b"", freshness=Freshness("5m"), buffers=pool, workers=7) as cache:
        config = cache.config
        assert config.tiers == (
            MemoryTier(capacity="8MiB", policy="lru"),
            FileTier(folder=str(tmp_path / "tier"), capacity="16MiB", verify="always"),
        )
        assert isinstance(config.origin, GivenOrigin)
        assert (config.freshness, config.buffers, config.workers) == (Freshness("5m"), pool, 7)
        assert config.memory_limit == 512 * MIB


def test_a_store_of_another_kind_is_named_and_not_described() -> None:
    """A subclass may be more than its settings tell."""

    class Special(MemoryStore):
        name = "special"

    with Cache(Special("8MiB")) as cache:
        assert cache.config.tiers == (GivenTier(name="special"),)
        assert cache.reconfigure(workers=2).workers == 2
        with pytest.raises(ConfigError) as caught:
            cache.reconfigure(tiers="memory:4MiB")
        assert fields_of(caught.value) == {"tiers[0]"}


def test_every_live_setting_changes_at_once(tmp_path: Path) -> None:
    """Memory, tiers, buffers, workers and freshness in one call; the parts follow."""
    with Cache(MemoryStore("8MiB"), FileStore(tmp_path / "tier", capacity="16MiB")) as cache:
        tiers = changed_tiers(cache, capacity="2MiB", max_entries=9)
        tiers[1]["capacity"] = "32MiB"
        config = cache.reconfigure(
            memory_limit="32MiB", workers=2, freshness={"fresh": "5m"}, buffers={"chunk_size": "64KiB"}, tiers=tiers
        )
        assert config == cache.config
        assert cache.stats().memory_limit == 32 * MIB
        assert [tier.usage.capacity for tier in cache.stats().tiers] == [2 * MIB, 32 * MIB]
        assert cache.buffers.config.chunk_size == 65536
        assert cache.buffers.config == BufferPoolConfig(chunk_size=65536)
        assert config.freshness == Freshness("5m")
        assert config.workers == 2
        cache.reconfigure(buffers=BufferPoolConfig(enabled=False), freshness=Freshness())
        assert cache.config.buffers == BufferPoolConfig(enabled=False)
        cache.set("k", bytes(MIB))
        assert cache.get("k") == bytes(MIB)


def test_nothing_to_change_changes_nothing(tmp_path: Path) -> None:
    """The whole configuration given back is no change, however its folder is written."""
    with Cache(FileStore(tmp_path / "tier", capacity="16MiB"), origin=FileOrigin(tmp_path)) as cache:
        config = cache.config
        fields = {name: getattr(config, name) for name in config.__struct_fields__}
        assert cache.reconfigure(**fields) == config
        assert cache.reconfigure() == config
        other = changed_tiers(cache, folder=str(tmp_path / "x" / ".." / "tier"))
        assert cache.reconfigure(tiers=other) == config


def test_what_needs_a_new_cache_is_named_and_refused_as_a_whole(tmp_path: Path) -> None:
    """Every such field at once, with what to do; and what could have changed did not."""
    with Cache(MemoryStore("8MiB"), FileStore(tmp_path / "tier", capacity="16MiB")) as cache:
        before = cache.config
        tiers = changed_tiers(cache, policy="lru", capacity="4MiB")
        tiers[1] |= {"folder": str(tmp_path / "other"), "verify": "off", "durability": "fsync", "free_space_floor": 1}
        with pytest.raises(ConfigError) as caught:
            cache.reconfigure(
                tiers=tiers, origin={"type": "file", "folder": str(tmp_path)}, memory_limit="64MiB", workers=1
            )
        assert fields_of(caught.value) == {
            "origin", "tiers[0].policy", "tiers[1].folder", "tiers[1].verify", "tiers[1].durability",
            "tiers[1].free_space_floor",
        }  # fmt: skip
        assert "make a new one" in str(caught.value)
        assert cache.config == before
        for tiers in ("memory:8MiB", "memory:8MiB;memory:8MiB"):
            with pytest.raises(ConfigError, match="tiers"):
                cache.reconfigure(tiers=tiers, workers=1)
        assert cache.config == before


def test_bad_values_and_unknown_fields_are_listed_together() -> None:
    """As for a new cache; nothing is changed."""
    with Cache(MemoryStore("8MiB")) as cache:
        before = cache.config
        with pytest.raises(ConfigError) as caught:
            cache.reconfigure(memory_limit=1, workers=0, workrs=3, buffers={"chunk_size": "x"}, freshness={"fresh": -1})
        assert fields_of(caught.value) == {
            "memory_limit", "workers", "workrs", "buffers.chunk_size", "freshness.fresh",
        }  # fmt: skip
        assert cache.config == before


def test_a_pool_that_was_given_is_not_the_caches_to_change() -> None:
    """Others may use it; the rest can change."""
    with AdaptiveBufferPool() as pool, Cache(MemoryStore("8MiB"), buffers=pool) as cache:
        with pytest.raises(ConfigError, match="its own reconfigure"):
            cache.reconfigure(buffers={"chunk_size": "64KiB"}, workers=2)
        assert cache.config.workers == 4
        assert cache.reconfigure(workers=2, memory_limit="64MiB").workers == 2
        pool.reconfigure(BufferPoolConfig(chunk_size="64KiB"))
        assert cache.config.buffers.chunk_size == 65536


def test_a_shorter_lifetime_holds_for_what_was_judged_before(clock: ManualClock, origin: ScriptedOrigin) -> None:
    """Hits of the short way too: an entry that was fresh for ever is asked for again."""
    origin.script("k", b"one")
    with Cache(MemoryStore("8MiB"), origin=origin, clock=clock) as cache:
        assert cache.get("k") == cache.get("k") == b"one"
        clock.advance("10m")
        assert cache.get("k") == b"one"
        origin.script("k", b"two")
        cache.reconfigure(freshness={"fresh": "5m"})
        assert cache.get("k") == b"two"
        assert origin.fetches() == 2
        cache.reconfigure(freshness=Freshness())
        clock.advance("10m")
        assert cache.get("k") == b"two"


def test_a_stream_that_is_open_goes_on(tmp_path: Path, origin: ScriptedOrigin) -> None:
    """Its entry leaves the tier, its fill has no room any more: every byte comes all the same."""
    body = bytes(range(256)) * 4096
    origin.script("cold", body)
    with Cache(MemoryStore("16MiB"), origin=origin, memory_limit="64MiB") as cache:
        cache.set("warm", body)
        with cache.open("warm") as warm, cache.open("cold") as cold:
            first = warm.read(1000), cold.read(1000)
            cache.reconfigure(tiers=changed_tiers(cache, capacity="64KiB"), memory_limit="8MiB")
            assert first[0] + warm.read() == body
            assert first[1] + cold.read() == body
        assert cache.stats().memory_used <= 8 * MIB
        with pytest.raises(CacheMiss):
            cache.get("warm", None) if cache._engine.origin is None else _without_origin(cache, "warm")


def _without_origin(cache: Cache, key: str) -> bytes:
    assert key not in cache
    raise CacheMiss(key)


def test_a_lower_memory_limit_takes_memory_back(tmp_path: Path) -> None:
    """Idle buffers and entries make way for it."""
    with Cache(MemoryStore("64MiB"), memory_limit="128MiB") as cache:
        for n in range(32):
            cache.set(f"k{n}", bytes(MIB))
        with cache.buffers.acquire(MIB):
            pass
        assert cache.stats().memory_used >= 33 * MIB
        cache.reconfigure(memory_limit="8MiB")
        assert cache.stats().memory_used <= 8 * MIB
        assert cache.stats().memory_limit == 8 * MIB
        cache.set("new", bytes(MIB))
        assert cache.get("new") == bytes(MIB)


def test_a_part_that_fails_takes_back_those_before_it(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it raises, and also what it did by half; a failure to take back is told and hides nothing."""
    state = {"a": 1, "b": 1, "c": 1}

    def setter(name: str, failing: object) -> Any:
        def apply(value: int) -> None:
            state[name] = value
            if value == failing:
                raise KeyboardInterrupt

        return apply

    steps = [Step(setter("a", None), 1, 2), Step(setter("b", 2), 1, 2), Step(setter("c", None), 1, 2)]
    with pytest.raises(KeyboardInterrupt):
        _carry_out(steps)
    assert state == {"a": 1, "b": 1, "c": 1}

    def stubborn(value: int) -> None:
        state["a"] = value
        if value == 1:
            raise OSError("no way back")

    with caplog.at_level(logging.ERROR), pytest.raises(KeyboardInterrupt):
        _carry_out([Step(stubborn, 1, 2), *steps[1:]])
    assert state == {"a": 1, "b": 1, "c": 1}
    assert "could not be put back" in caplog.text


def test_a_failing_tier_leaves_every_setting_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit that was changed before it too."""
    store = MemoryStore("8MiB")
    with Cache(store) as cache:
        before, real = cache.config, store.reconfigure

        def failing(**limits: Any) -> None:
            real(**limits)
            if limits["capacity"] == 4 * MIB:
                raise RuntimeError("the tier fails")

        monkeypatch.setattr(store, "reconfigure", failing)
        with pytest.raises(RuntimeError, match="the tier fails"):
            cache.reconfigure(memory_limit="64MiB", workers=2, tiers=changed_tiers(cache, capacity="4MiB"))
        assert cache.config == before


def test_who_asks_for_the_settings_waits_for_no_change_and_sees_none_by_half(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be a log handler, whose lock the change is waiting for."""
    store = MemoryStore("8MiB")
    with Cache(store) as cache:
        before, real, seen = cache.config, store.reconfigure, []

        def ask() -> None:
            seen.append(cache.config)
            seen.append(pickle.loads(pickle.dumps(cache)).config)

        def waiting(**limits: Any) -> None:
            asker = threading.Thread(target=ask, daemon=True)
            asker.start()
            asker.join(10)
            real(**limits)

        monkeypatch.setattr(store, "reconfigure", waiting)
        after = cache.reconfigure(memory_limit="64MiB", tiers=changed_tiers(cache, capacity="4MiB"))
        assert seen == [before, before]
        assert cache.config == after != before


def test_what_is_being_judged_while_the_rules_change_is_not_given_by_the_old_ones(clock: ManualClock) -> None:
    """Not even for the moment until the judge looks again."""
    store = MemoryStore("8MiB")
    armed = []
    real_arm, real_monotonic = store.arm, clock.monotonic

    def arm(record: Any, *args: Any, **kwargs: Any) -> None:
        real_arm(record, *args, **kwargs)
        armed.append(record.until)

    store.arm = arm  # type: ignore[method-assign]
    with Cache(store, freshness=Freshness("1h"), clock=clock) as cache:
        cache.set("k", b"data")

        def monotonic() -> float:
            clock.monotonic = real_monotonic  # type: ignore[method-assign]
            cache.reconfigure(freshness={"fresh": "1s"})
            return real_monotonic()

        # Where an entry is armed it is the only one to ask for the time.
        judged = store.hot("k") if store.hot else None
        assert judged is not None
        clock.monotonic = monotonic  # type: ignore[method-assign]
        cache._engine.arm(judged)
        assert armed == [0.0]
        assert cache.get("k") == b"data"
        assert armed[1] > 0.0


def test_a_cache_that_is_closed_during_a_change_is_no_trouble_to_tell_of(caplog: pytest.LogCaptureFixture) -> None:
    """There is nothing to put back in a part that is closed."""
    store = MemoryStore("8MiB")
    cache = Cache(store)
    real = store.reconfigure

    def closing(**limits: Any) -> None:
        cache.close()
        real(**limits)

    store.reconfigure = closing  # type: ignore[method-assign]
    with pytest.raises(Closed):
        cache.reconfigure(memory_limit="64MiB", tiers=changed_tiers(cache, capacity="4MiB"))
    assert not caplog.records


def test_a_closed_cache_refuses() -> None:
    """`Closed`, as everywhere."""
    cache = Cache(MemoryStore("8MiB"))
    cache.close()
    with pytest.raises(Closed):
        cache.reconfigure(workers=2)


def test_two_changes_at_once_are_both_made() -> None:
    """One after the other, neither undoes the other."""
    with Cache(MemoryStore("8MiB")) as cache:
        start = threading.Barrier(2)

        def change(**changes: Any) -> None:
            start.wait()
            for _ in range(50):
                cache.reconfigure(**changes)

        threads = [
            threading.Thread(target=change, kwargs={"workers": 9}),
            threading.Thread(target=change, kwargs={"memory_limit": "64MiB"}),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (cache.config.workers, cache.config.memory_limit) == (9, 64 * MIB)


def test_the_table_of_settings_says_what_can_change() -> None:
    """`Setting.live` is what `reconfigure` does."""
    live = {setting.path for setting in SETTINGS if setting.live}
    assert {path.rpartition(".")[2] for path in live if path.startswith("tiers.")} == set(LIVE_IN_TIERS)
    others = {path.partition(".")[0] for path in live}
    assert others == {"memory_limit", "workers", "freshness", "buffers", "tiers"}
    for setting in SETTINGS:
        if setting.path.startswith(("freshness.", "buffers.")):
            assert setting.live, setting.path
        if setting.path.startswith("origin"):
            assert not setting.live, setting.path


def test_the_configuration_of_a_running_cache_makes_another(tmp_path: Path) -> None:
    """Round: config, mapping, cache, config."""
    made = CacheConfig(
        tiers=f"memory:8MiB;file:{tmp_path}/tier?capacity=16MiB&verify=always", workers=3, freshness={"fresh": "1h"},
        origin={"type": "file", "folder": str(tmp_path)},
    )  # fmt: skip
    (tmp_path / "a.txt").write_bytes(b"text")
    with Cache.from_config(made, environ={}) as cache:
        assert cache.config == made
        with cache.open("a.txt") as stream:
            assert stream.status is Status.MISS
            assert stream.read() == b"text"
        mapping = cache.config.to_mapping()
    with Cache.from_config(mapping, environ={}) as again:
        assert again.config == made
        with again.open("a.txt") as stream:
            assert stream.status is Status.HIT


class Interrupt:
    """A profiler that raises at the n-th place where a signal handler can run in these modules."""

    PLACES = ("engine/reconfigure.py", "engine/background.py", "engine/fetch.py", "engine/execute.py", "stores/")

    def __init__(self, n: int) -> None:
        self.left = n

    def __call__(self, frame: types.FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event not in ("call", "c_return") or code.co_name == "__del__":  # Python ignores what a finalizer raises
            return
        if any(place in code.co_filename for place in self.PLACES):
            self.left -= 1
            if self.left < 0:
                sys.setprofile(None)
                raise KeyboardInterrupt


def test_an_interrupt_anywhere_leaves_all_the_changes_or_none(tmp_path: Path) -> None:
    """At each point where a signal handler can run; every lock is free and the cache works afterwards."""
    for n in itertools.count():
        tiers = MemoryStore("8MiB"), FileStore(tmp_path / str(n), capacity="16MiB")
        with Cache(*tiers, memory_limit="32MiB") as cache:
            for k in range(3):
                cache.set(f"k{k}", bytes(MIB))
            assert cache._engine.flights.workers.wait_idle(30)
            before = cache.config
            tiers_wanted = changed_tiers(cache, capacity="2MiB")
            tiers_wanted[1]["capacity"] = "2MiB"
            wanted = {
                "memory_limit": "16MiB", "tiers": tiers_wanted, "workers": 2, "freshness": {"fresh": "1h"},
                "buffers": {"chunk_size": "64KiB"},
            }  # fmt: skip
            interrupted = False
            sys.setprofile(Interrupt(n))
            try:
                cache.reconfigure(**wanted)
            except KeyboardInterrupt:
                interrupted = True
            finally:
                sys.setprofile(None)
            assert cache.config in (before, before.replace(**wanted)), n
            after = cache.reconfigure(**wanted)
            assert after == before.replace(**wanted)
            assert [tier.usage.bytes <= 2 * MIB for tier in cache.stats().tiers] == [True, True]
            cache.set("new", bytes(MIB))
            assert cache.get("new") == bytes(MIB)
            if not interrupted:
                break
    assert n > 50
