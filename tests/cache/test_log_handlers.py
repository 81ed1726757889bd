"""Log handlers that ask the cache, or change it, while another thread's change waits for them to be done."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from daramjwee import Cache, Closed, Drain, MemoryStore, Overloaded
from daramjwee.engine import reconfigure as changing

CALLS: dict[str, Callable[[Cache], Any]] = {
    "config": lambda cache: cache.config.workers,
    "get": lambda cache: cache.get("k"),
    "fetch": lambda cache: cache.get("new", lambda request: b"fetched"),
    "set": lambda cache: cache.set("k", b"after"),
    "delete": lambda cache: cache.delete("k"),
    "keys": lambda cache: sorted(cache.keys()),
    "stats": lambda cache: cache.stats().hits,
    "lease": lambda cache: cache.buffers.acquire(1000).release(),
    "close": lambda cache: cache.close(Drain.ABORT),
}


@pytest.fixture
def cache() -> Iterator[Cache]:
    with Cache(MemoryStore("8MiB"), memory_limit="64MiB") as cache:
        cache.set("k", b"before")
        yield cache


class Calling(logging.Handler):
    """A handler that makes a call of its own, once, and keeps what came of it. `before`: what it waits for first."""

    def __init__(self, call: Callable[[], Any], before: Callable[[], Any] = lambda: None) -> None:
        super().__init__()
        self._call, self._before = call, before
        self.entered = threading.Event()
        self.came: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        if self.entered.is_set():
            return
        self.entered.set()
        self._before()
        try:
            self.came.append(self._call())
        except Exception as error:
            self.came.append(error)


@pytest.fixture
def attached() -> Iterator[Callable[[Calling], Calling]]:
    """Attaches a handler to the logger of changes, and takes it off again."""
    handlers: list[Calling] = []

    def attach(handler: Calling) -> Calling:
        handlers.append(handler)
        changing.logger.addHandler(handler)
        return handler

    yield attach
    for handler in handlers:
        changing.logger.removeHandler(handler)


def failing(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A change whose part fails, and fails again when it is taken back: that is logged, with the settings locked."""

    def fail(config: object) -> None:
        raise OSError("no memory for it")

    monkeypatch.setattr(cache.buffers, "reconfigure", fail)

    def change() -> None:
        with pytest.raises(OSError, match="no memory for it"):
            cache.reconfigure(**{"buffers.chunk_size": "128KiB"})

    return change


def beside(cache: Cache, monkeypatch: pytest.MonkeyPatch, attached: Any, call: Callable[[], Any]) -> Any:
    """What comes of `call` in a handler that another thread holds, while a change waits for it to write a record."""
    waits = threading.Event()

    def passing(record: logging.LogRecord) -> bool:
        if threading.current_thread() is changer:
            waits.set()  # from here on there is the handler's lock, and nothing else
        return True

    handler = attached(Calling(call, before=lambda: waits.wait(30)))
    changer = threading.Thread(target=failing(cache, monkeypatch), name="changer", daemon=True)
    other = threading.Thread(target=lambda: changing.logger.warning("of another thread"), name="other", daemon=True)
    changing.logger.addFilter(passing)
    try:
        other.start()
        assert handler.entered.wait(30)
        changer.start()
        for thread in (changer, other):
            thread.join(30)
            assert not thread.is_alive(), f"{thread.name} hangs"
    finally:
        changing.logger.removeFilter(passing)
    (came,) = handler.came
    return came


def test_a_change_in_a_log_handler_is_refused_while_another_waits_for_the_handler(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, attached: Any
) -> None:
    """At once, and nothing is changed: to wait would be to wait for ever."""
    came = beside(cache, monkeypatch, attached, lambda: cache.reconfigure(workers=7))
    assert isinstance(came, Overloaded)
    assert "another change of settings is being made, which may wait for this log handler" in str(came)
    assert cache.config.workers == 4
    assert cache.reconfigure(workers=7).workers == 7


@pytest.mark.parametrize("name", CALLS)
def test_every_other_call_in_a_log_handler_is_answered_meanwhile(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, attached: Any, name: str
) -> None:
    """With the settings from before the change."""
    came = beside(cache, monkeypatch, attached, lambda: CALLS[name](cache))
    assert not isinstance(came, Exception)
    if name == "config":
        assert came == 4
    if name == "close":
        with pytest.raises(Closed):
            cache.get("k")


@pytest.mark.parametrize("name", [*CALLS, "reconfigure"])
def test_a_call_in_a_log_handler_of_the_change_itself_is_answered(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, attached: Any, name: str
) -> None:
    """In the thread that makes the change: it has the lock."""
    calls = {**CALLS, "reconfigure": lambda cache: cache.reconfigure(workers=7).workers}
    handler = attached(Calling(lambda: calls[name](cache)))
    failing(cache, monkeypatch)()
    (came,) = handler.came
    assert not isinstance(came, Exception)
    if name == "reconfigure":
        assert cache.config.workers == 7


def test_a_log_handler_may_change_settings_when_nobody_else_does(cache: Cache, attached: Any) -> None:
    """As from anywhere."""
    handler = attached(Calling(lambda: cache.reconfigure(workers=7).workers))
    changing.logger.warning("a record")
    assert handler.came == [7]
