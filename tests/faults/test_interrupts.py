"""Interrupts of the tiers and of a cache, by a real signal at each point where the interpreter looks for one: nothing stays
reserved, charged, locked or stuck; and what was counted wrong once is not added up over many.

One page for all, as they share the tracer and what they ask of a cache afterwards."""

from __future__ import annotations

import _thread
import ast
import dis
import gc
import io
import itertools
import re
import signal
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pytest

import daramjwee
from daramjwee import Cache
from daramjwee.buffers import MemoryLedger
from daramjwee.buffers.charge import Grip, Held
from daramjwee.errors import FetchError, LimitExceeded
from daramjwee.model import NULL_OBSERVER, SYSTEM_CLOCK, Metadata
from daramjwee.stores import FileStore, MemoryStore
from daramjwee.units import KIB

# What is lost to an interrupt says so, and an interrupt in a finalizer is said by Python. Both are meant here.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.usefixtures("untraced", "unkept", "unsaid"),
    pytest.mark.timeout(180),
]

# Where a namedtuple is made, Python code without a file runs.
PLACES = re.compile("daramjwee/(stores|policies|buffers/ledger)|<string>")
EACH = slice(None)
STRIDE = 5  # there are thousands: each test begins with another
MOST_SAMPLES = 300  # what a thread does meanwhile may have a call look far more often
ENGINE = re.compile("daramjwee/(stores|policies|engine|fills|buffers|cache|model|errors|units)|<string>")


@pytest.fixture
def unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupts in finalizers go unsaid: pytest would keep the traceback of each, with its frames."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)


class Bell:
    """`bell + SIGINT` has the signal come, without a call: the interpreter does not look for it here."""

    __add__ = _thread.interrupt_main


class Signals:
    """A tracer that has a signal come before the `n`-th instruction of the code in `places`, to be seen where the
    interpreter looks next. With no `n`: before each, and `seen` says which were followed by a look before the next one."""

    traced_code: types.CodeType
    step_code: types.CodeType

    def __init__(self, n: int | None, places: re.Pattern[str] = PLACES) -> None:
        self.n = n
        self.places = places
        self.count = 0
        self.rung_at = -1
        self.seen: list[int] = []
        self.point = ""
        self.bell: Any = Bell()
        self.number = int(signal.SIGINT)
        self.known: dict[types.CodeType, bool] = {}

    def trace(self, frame: types.FrameType, event: str, argument: object) -> Any:
        code = frame.f_code
        if code not in self.known:
            self.known[code] = self.places.search(code.co_filename.replace("\\", "/")) is not None
        if not self.known[code]:
            return None
        frame.f_trace = self.step  # CPython 3.13 wants it before the next line
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self.step

    def step(self, frame: types.FrameType, event: str, argument: object) -> Any:
        # No call in here: it would be the place where the signal is seen.
        if event == "opcode":
            if self.n is None or self.n == self.count:
                self.rung_at = self.count
                self.bell + self.number
            self.count += 1
        return self.step

    def handle(self, number: int, frame: types.FrameType | None) -> None:
        assert frame is not None
        if frame.f_code in (Signals.traced_code, Signals.step_code):
            self.bell + self.number  # not in the tracer: later
        elif self.n is None:
            if self.seen[-1:] != [self.rung_at]:
                self.seen.append(self.rung_at)
        elif not self.point:
            sys.settrace(None)
            self.point = f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_qualname}"
            raise KeyboardInterrupt

    def during(self, act: Callable[[], object]) -> None:
        """`act`, with the signals; an interrupt ends it, and goes no further."""
        before = signal.signal(signal.SIGINT, self.handle)
        here = sys._getframe()
        here.f_trace = idle
        here.f_trace_opcodes = True  # CPython 3.12 wants one before it starts
        try:
            sys.settrace(self.trace)
            act()
            look()  # should a signal not have been seen yet
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
            signal.signal(signal.SIGINT, before)


def idle(frame: types.FrameType, event: str, argument: object) -> None:
    """Traces nothing."""


def look() -> None:
    """Begins with a look for signals, as every function does."""


Signals.traced_code, Signals.step_code = Signals.trace.__code__, Signals.step.__code__


def points_of(make: Callable[[], Any], act: Callable[[Any], object], places: re.Pattern[str] = PLACES) -> list[int]:
    """Before which instructions of `act` a signal is seen in another place than before the others."""
    for _ in range(2):  # in CPython 3.13 instructions are traced from the second time on
        signals = Signals(None, places)
        thing = make()
        signals.during(lambda thing=thing: act(thing))
    return signals.seen


def interrupt_everywhere(
    make: Callable[[], Any],
    act: Callable[[Any], object],
    trouble_of: Callable[[Any], str],
    places: re.Pattern[str] = PLACES,
    some: slice = EACH,
) -> int:
    """`act` on something new, with an interrupt at each point in turn, or at `some`; how many there were."""
    points = points_of(make, act, places)[some]
    if some is not EACH:
        points = points[:: 1 + len(points) // MOST_SAMPLES]
    gc.disable()
    gc.freeze()  # what the suite has at hand is not looked through each time
    try:
        for n in points:
            thing = make()
            signals = Signals(n, places)
            signals.during(lambda thing=thing: act(thing))
            trouble = trouble_of(thing)
            assert trouble == "", f"interrupt {n} at {signals.point}: {trouble}"
    finally:
        gc.unfreeze()
        gc.enable()
    return len(points)


# -- the tier by itself ------------------------------------------------------------------------------------------


def write(store: Any, key: str, size: int, *, pieces: int = 1, announced: bool = True) -> None:
    staging = store.stage(key, Metadata(size=size if announced else None))
    try:
        for _ in range(pieces):
            staging.write(bytes(size // pieces))
        entry = staging.commit()
    finally:
        staging.abort()
    if entry is not None:
        entry.close()


def made(policy: Literal["sieve", "lru"] = "sieve") -> MemoryStore:
    store = MemoryStore(64 * KIB, policy=policy)
    store.attach(ledger=MemoryLedger(160 * KIB), observer=NULL_OBSERVER, clock=SYSTEM_CLOCK)
    write(store, "a", 20 * KIB)
    write(store, "b", 20 * KIB)
    return store


def what_is_wrong(store: MemoryStore) -> str:
    """With the counts of a tier that nobody uses; empty where nothing is."""
    ledger = store.ledger
    assert ledger is not None
    if store.lock.locked() or ledger._lock.locked():
        return "a lock is taken"
    usage = store.usage()
    held = sum(metadata.size or 0 for key in store.keys() if (metadata := store.stat(key)) is not None)
    queued = [record.key for record in store._shelf.policy]
    wrong = [
        (usage.bytes, held, "bytes of the tier, of its entries"),
        (usage.stagings, 0, "stagings"),
        (ledger.held, held, "charged, held by entries"),
        (sorted(queued), sorted(store.keys()), "in the order, in the table"),
        (store._shelf.policy.count, len(queued), "counted, in the order"),
    ]
    return "; ".join(f"{what}: {one} and {other}" for one, other, what in wrong if one != other)


def trouble_of(store: MemoryStore) -> str:
    """What is not at rest, or does not work any more; closes it."""
    if not store.closed:
        gc.collect(0)
        trouble = what_is_wrong(store)
        if trouble:
            return trouble
        for key in ("a", "b", "new"):
            write(store, key, 1000)
            entry = store.open(key)
            assert entry is not None and entry.size == 1000
            entry.close()
            store.delete(key)
        if store.usage().bytes:
            return f"what was deleted counts: {store.usage()}"
    store.close()
    assert store.ledger is not None
    return f"held after the close: {store.ledger.held}" if store.ledger.held else ""


def read_while_it_is_deleted(store: Any) -> None:
    entry = store.open("a")
    store.delete("a")
    entry.peek_at(0, 100)
    entry.close()


def give_up(store: Any) -> None:
    staging = store.stage("new", Metadata(size=2 * KIB))
    try:
        staging.write(bytes(30 * KIB))
    finally:
        staging.abort()


def lose(store: Any) -> None:
    staging = store.stage("new", Metadata(size=2 * KIB))
    staging.write(bytes(30 * KIB))


def write_less_than_announced(store: Any) -> None:
    staging = store.stage("new", Metadata(size=30 * KIB))
    try:
        staging.write(bytes(5 * KIB))
        staging.commit()
    finally:
        staging.abort()


def write_what_memory_has_no_room_for(store: Any) -> None:
    store.ledger.resize(24 * KIB)
    with suppress(LimitExceeded):
        write(store, "new", 30 * KIB)


def be_reclaimed(store: Any) -> None:
    note = store.ledger.note_credit
    store.ledger.charge(150 * KIB)
    note(150 * KIB)


ACTS: dict[str, Callable[[Any], object]] = {
    "write": lambda store: write(store, "new", 30 * KIB),
    "in pieces": lambda store: write(store, "new", 30 * KIB, pieces=3, announced=False),
    "in pieces, announced": lambda store: write(store, "new", 30 * KIB, pieces=3),
    "less than announced": write_less_than_announced,
    "replace": lambda store: write(store, "a", 20 * KIB),
    "no memory": write_what_memory_has_no_room_for,
    "give up": give_up,
    "lose": lose,
    "read": read_while_it_is_deleted,
    "delete": lambda store: store.delete("a"),
    "restamp": lambda store: store.restamp("a", Metadata(etag='"2"')),
    "reconfigure": lambda store: store.reconfigure(capacity="24KiB"),
    "reclaim": be_reclaimed,
    "close": lambda store: store.close(),
}


@pytest.mark.parametrize("act", ACTS)
def test_an_interrupt_anywhere_leaves_a_memory_tier_that_counts_right(act: str) -> None:
    """Every byte of the ledger is accounted for, every key works, and a close (for a close that was interrupted: another)
    leaves nothing charged."""
    assert interrupt_everywhere(made, ACTS[act], trouble_of) >= 5


def test_an_interrupt_anywhere_leaves_an_lru_tier_that_counts_right() -> None:
    """The order is another, and a hit changes it."""

    def act(store: MemoryStore) -> None:
        entry = store.open("a")
        assert entry is not None
        entry.close()
        write(store, "new", 30 * KIB)

    assert interrupt_everywhere(lambda: made("lru"), act, trouble_of) > 50


def test_an_interrupt_anywhere_leaves_a_body_of_many_segments_whole_and_counted() -> None:
    """One that is joined at its end, with memory for both for a moment."""

    def make() -> MemoryStore:
        store = MemoryStore("1MiB")
        store.attach(ledger=MemoryLedger("2MiB"), observer=NULL_OBSERVER, clock=SYSTEM_CLOCK)
        return store

    assert interrupt_everywhere(make, lambda store: write(store, "new", 600 * KIB, pieces=2), trouble_of) > 50


def test_a_thousand_interrupts_lose_no_room_and_no_memory() -> None:
    """What one interrupt leaves for later is taken up by the next call, and not added up."""
    acts = [ACTS[name] for name in ("write", "in pieces", "replace", "give up", "lose", "read")]
    points = [points_of(made, act) for act in acts]
    store = made()
    turns = itertools.cycle([(act, n) for act, some in zip(acts, points, strict=True) for n in some])
    for act, n in itertools.islice(turns, 1000):
        if store.stat("a") is None:
            write(store, "a", 20 * KIB)
        Signals(n).during(lambda act=act: act(store))
        assert (trouble := what_is_wrong(store)) == "", trouble
    assert trouble_of(store) == ""


# -- beneath it, and above ---------------------------------------------------------------------------------------


def test_a_grip_notes_once_whatever_an_interrupt_hits() -> None:
    """It has no Python code that an interrupt could end: also where a frame is left that holds the last reference."""
    noted: list[Held] = []

    def act(_: object) -> None:
        held = Held()
        grip = Grip(noted.append, held)
        held.bytes = 7
        del grip

    for n in (0, *points_of(object, act)):
        noted.clear()
        Signals(n).during(lambda: act(None))
        assert [held.bytes for held in noted] == [7]

    cycle: list[Any] = [Grip(noted.append, Held())]
    cycle.append(cycle)
    noted.clear()
    del cycle
    gc.collect()
    assert len(noted) == 1


def trouble_of_cache(cache: Cache) -> str:
    engine = cache._engine
    store: Any = engine.tiers[0].store
    if any(not flight.finish(5.0) for flight in engine.flights.running()):
        return "a fill does not end"
    gc.collect(0)
    trouble = _counted_wrong(cache, store)
    if trouble:  # a cycle of frames and an error may hold something yet
        gc.collect()
        trouble = _counted_wrong(cache, store)
    for key in ("a", "new"):
        cache.set(key, b"data")
        assert cache.get(key) == b"data"
        cache.delete(key)
    cache.close()
    return trouble or (f"held after the close: {engine.ledger.held}" if engine.ledger.held else "")


def _counted_wrong(cache: Cache, store: Any) -> str:
    usage, buffers = store.usage(), cache.buffers.stats()
    held = sum(metadata.size or 0 for key in store.keys() if (metadata := store.stat(key)) is not None)
    charged = cache._engine.ledger.held - buffers.arena_bytes - buffers.private_bytes
    return (
        "" if (usage.bytes, usage.stagings, charged) == (held, 0, held) else f"{usage}, {held} held, {charged} charged"
    )


CALLS: dict[str, Callable[[Cache], object]] = {
    "set": lambda cache: cache.set("new", bytes(30 * KIB)),
    "replace": lambda cache: cache.set("a", bytes(20 * KIB)),
    "fill": lambda cache: cache.get("new", lambda _: bytes(6 * KIB)),
    "delete": lambda cache: cache.delete("a"),
    "reconfigure": lambda cache: cache.reconfigure(**{"tiers[0].capacity": "24KiB"}),
}


@pytest.mark.parametrize("call", CALLS)
def test_an_interrupt_anywhere_in_the_tier_of_a_cache_leaves_a_cache_that_counts_right(call: str) -> None:
    """Nothing is charged but what entries and buffers hold, no fill goes on for ever, and the close leaves nothing."""

    def make() -> Cache:
        cache = Cache(MemoryStore(64 * KIB), memory_limit="4MiB")
        cache.set("a", bytes(20 * KIB))
        cache.set("b", bytes(20 * KIB))
        return cache

    assert interrupt_everywhere(make, CALLS[call], trouble_of_cache) >= 20


# -- the engine and the fills ------------------------------------------------------------------------------------


def trouble_of_engine(cache: Cache) -> str:
    """What is not at rest, or does not work any more; closes it."""
    engine, trouble = cache._engine, ""
    flights, stores = engine.flights, [tier.store for tier in engine.tiers]
    if not engine.closed:
        for flight in flights.running():
            flight.finish(5.0)  # not for one that is being ended, by a filler: below
        if not (flights.workers.wait_idle(5.0) and flights.fillers.wait_idle(5.0)):
            return f"a thread is stuck: {flights.workers.busy} and {flights.fillers.busy} busy"
        trouble = _unrest(cache)
        for key in ("a", "new"):
            cache.set(key, b"set")
            assert cache.get(key) == b"set"
            cache.delete(key)
            assert cache.get(key, lambda _: b"filled") == b"filled"
            assert cache.get(key) == b"filled"
            cache.delete(key)
    cache.close()
    if open_ones := [store for store in stores if not store.closed]:
        return f"not closed: {open_ones}"
    owners = (*stores, engine.ledger, flights, flights.fence, flights.workers, flights.fillers)
    locks = [engine.closing, *(getattr(owner, "lock", None) or owner._lock for owner in owners)]
    if any(lock.locked() for lock in locks):
        return f"a lock is taken: {locks}"
    return trouble or (f"held after the close: {engine.ledger.held}" if engine.ledger.held else "")


def _unrest(cache: Cache) -> str:
    """What is out, in use or charged, and should not be."""
    for generation in (0, 2):  # a cycle of frames and an error may hold something yet
        gc.collect(generation)
        cache.stats()  # looks after what was lost, as the next does also
        cache.buffers.maintain()
        wrong = [f"{what}: {one} and {other}" for one, other, what in _books(cache) if one != other]
        if not wrong:
            break
    return "; ".join(wrong)


def _books(cache: Cache) -> Iterator[tuple[int, int, str]]:
    engine, buffers, in_memory = cache._engine, cache.buffers.stats(), 0
    for tier in engine.tiers:
        store: Any = tier.store
        usage, held = store.usage(), sum(store.stat(key).size for key in store.keys())
        yield usage.bytes, held, "bytes of a tier, of its entries"
        yield usage.stagings, 0, "stagings"
        in_memory += held if isinstance(store, MemoryStore) else 0
    yield engine.ledger.held - buffers.arena_bytes - buffers.private_bytes, in_memory, "charged, held by entries"
    yield buffers.total_gets, buffers.total_puts, "leases out, and back"
    yield len(engine.flights), 0, "flights"
    yield len(engine.flights.fence), 0, "claims"


def pieces_of(count: int, size: int) -> Callable[[object], Iterator[bytes]]:
    return lambda _: (bytes(size) for _ in range(count))


def fail_in_the_midst(_: object) -> Iterator[bytes]:
    yield bytes(9 * KIB)
    raise OSError("away")


def write_by_a_writer(cache: Cache) -> None:
    with cache.writer("new") as writer:
        for _ in range(3):
            writer.write(bytes(5 * KIB))


def fill_in_pieces(cache: Cache) -> None:
    with cache.open("new", pieces_of(3, 10 * KIB)) as stream:
        stream.read()


def read_a_part(cache: Cache) -> None:
    with cache.open("new", pieces_of(40, KIB)) as stream:
        stream.read(100)


def read_by_two(cache: Cache) -> None:
    fetch = pieces_of(3, 10 * KIB)
    with cache.open("new", fetch) as one, cache.open("new", fetch) as other:
        one.read(100)
        other.read()
        one.read()


def leave(cache: Cache) -> None:
    with cache.open("new", pieces_of(40, KIB), on_orphan="abort") as stream:
        stream.read(100)


def read_past_the_tiers(cache: Cache) -> None:
    with cache.open("new", pieces_of(4, 20 * KIB)) as stream:
        stream.read()


def leave_past_the_tiers(cache: Cache) -> None:
    with cache.open("new", pieces_of(4, 20 * KIB)) as stream:
        stream.read(30 * KIB)
    cache.stats()  # looks after what was left


def lose_a_stream(cache: Cache) -> None:
    cache.open("new", pieces_of(4, 20 * KIB)).read(30 * KIB)
    cache.stats()


def fetch_elsewhere(cache: Cache) -> None:
    with cache.open("new", pieces_of(3, 10 * KIB), timeout=60) as stream:
        stream.read()


def fail(cache: Cache) -> None:
    with suppress(FetchError):
        cache.get("new", fail_in_the_midst)


WAYS: dict[str, Callable[[Cache], object]] = {
    "set": lambda cache: cache.set("new", bytes(KIB)),
    "set anew": lambda cache: cache.set("a", bytes(30 * KIB)),
    "evict": lambda cache: cache.set("new", bytes(50 * KIB)),
    "delete": lambda cache: cache.delete("a"),
    "write": write_by_a_writer,
    "get": lambda cache: cache.get("new", lambda _: bytes(2 * KIB)),
    "fill": fill_in_pieces,
    "read a part": read_a_part,
    "read by two": read_by_two,
    "read past the tiers": read_past_the_tiers,
    "leave": leave,
    "leave past the tiers": leave_past_the_tiers,
    "lose a stream": lose_a_stream,
    "fetch elsewhere": fetch_elsewhere,
    "fail": fail,
    "refresh": lambda cache: cache.refresh("a", lambda _: bytes(5 * KIB)),
    "close": lambda cache: cache.close(),
}


def cache_over(*stores: Any) -> Cache:
    cache = Cache(*stores, memory_limit="4MiB")
    cache.set("a", bytes(20 * KIB))
    cache.set("b", bytes(20 * KIB))
    return cache


@pytest.mark.parametrize("way", WAYS)
def test_an_interrupt_anywhere_in_a_cache_leaves_it_right(way: str) -> None:
    """No fill, lock or thread is stuck, all that was lent is back, every key works; and after the close (for a close that was
    interrupted: another) nothing is held."""
    some = slice(list(WAYS).index(way), None, STRIDE)

    def make() -> Cache:
        return cache_over(MemoryStore(64 * KIB))

    assert interrupt_everywhere(make, WAYS[way], trouble_of_engine, ENGINE, some) >= 5


def test_an_interrupt_anywhere_in_a_wait_for_the_whole_leaves_a_fill_that_ends() -> None:
    """At each point of the flight itself, also where the waiting thread has just become the one that pumps."""

    def act(cache: Cache) -> None:
        with cache.open("new", pieces_of(3, 10 * KIB)) as stream, suppress(io.UnsupportedOperation):
            stream.path()

    flight = re.compile("daramjwee/fills/flight")
    assert interrupt_everywhere(lambda: cache_over(MemoryStore(64 * KIB)), act, trouble_of_engine, flight) > 20


@pytest.mark.parametrize("way", ["set", "get"])
def test_an_interrupt_anywhere_leaves_a_cache_over_files_right(way: str, tmp_path: Path) -> None:
    """As over memory."""
    folders = map(str, itertools.count())

    def make() -> Cache:
        return cache_over(FileStore(tmp_path / next(folders), capacity=64 * KIB, free_space_floor=0))

    some = slice(list(WAYS).index(way), None, 2 * STRIDE)
    assert interrupt_everywhere(make, WAYS[way], trouble_of_engine, ENGINE, some) >= 5


# -- the file tier, which shares the books -----------------------------------------------------------------------


@pytest.mark.parametrize("act", ["write", "replace", "give up", "lose", "delete", "reconfigure"])
def test_an_interrupt_anywhere_leaves_a_file_tier_that_counts_right(
    act: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for memory; and what is deleted then stays away."""
    monkeypatch.setattr("daramjwee.stores.file.index.TURN_SECONDS", 0.0)
    folders = map(str, itertools.count())

    def make() -> FileStore:
        store = FileStore(tmp_path / next(folders), capacity=64 * KIB, free_space_floor=0)
        write(store, "a", 20 * KIB)
        write(store, "b", 20 * KIB)
        return store

    def trouble_of_files(store: Any) -> str:
        gc.collect(0)
        usage = store.usage()
        held = sum(store.stat(key).size for key in store.keys())
        for key in (*store.keys(), "a", "b", "new"):
            store.delete(key)
        store.close()
        with FileStore(store.folder, capacity=64 * KIB) as again:
            back = list(again.keys())
        counted = (usage.bytes, usage.stagings, back) == (held, 0, [])
        return "" if counted else f"{usage}, {held} held; came back: {back}"

    assert interrupt_everywhere(make, ACTS[act], trouble_of_files) > 20


# -- what the compiler makes of it -------------------------------------------------------------------------------


def codes_of(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes_of(constant)


def guarded_lines(source: str) -> Iterator[tuple[int, int]]:
    """The bodies of `with` over a lock, and of `try` that would give something back: first line, last line."""
    for node in ast.walk(ast.parse(source)):
        guards = False
        if isinstance(node, ast.With):
            guards = any(ast.unparse(item.context_expr).endswith("lock") for item in node.items)
        elif isinstance(node, ast.Try):
            caught = [ast.unparse(handler.type) for handler in node.handlers if handler.type is not None]
            guards = "BaseException" in caught
        if guards:
            assert isinstance(node, ast.With | ast.Try)
            yield node.body[0].lineno, node.body[-1].end_lineno or node.body[-1].lineno


@pytest.mark.parametrize(
    "place",
    [
        "stores",
        "engine",
        "fills",
        "cache.py",
        "buffers/ledger.py",
        "buffers/holdings.py",
        "buffers/waiting.py",
        "buffers/gate.py",
    ],
)
def test_no_loop_jumps_back_outside_of_what_guards_it(place: str) -> None:
    """From CPython 3.12 on, the jump back of a loop or a comprehension in a block may not be covered by it: an interrupt
    there would leave a lock taken. Such loops are in functions of their own."""
    root = Path(daramjwee.__file__).parent / place
    found = []
    for path in root.rglob("*.py") if root.is_dir() else [root]:
        source = path.read_text(encoding="utf-8")
        bodies = list(guarded_lines(source))
        for code in codes_of(compile(source, str(path), "exec")):
            covered = [range(entry.start, entry.end) for entry in dis._parse_exception_table(code)]
            for step in dis.get_instructions(code):
                line = step.positions.lineno if step.positions else None
                if step.opname == "JUMP_BACKWARD" and line is not None:
                    guarded = any(code.co_firstlineno < first <= line <= last for first, last in bodies)
                    if guarded and not any(step.offset in some for some in covered):
                        found.append(f"{path}:{line} {code.co_qualname}")
    assert found == []
