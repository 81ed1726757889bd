"""The leak check names what is left, and waits for what is on its way out."""

from __future__ import annotations

import os
import threading
from types import SimpleNamespace

import pytest

from daramjwee.testing.leaks import no_leaks


class Pool:
    """As much of a buffer pool as the check asks."""

    def __init__(self) -> None:
        self.active = 0

    def stats(self):
        return SimpleNamespace(active_buffers=self.active)

    def __repr__(self) -> str:
        return "<Pool>"


class Cache:
    """As much of a cache as the check asks."""

    def __init__(self, pool: Pool | None) -> None:
        self.buffers = pool
        self.flights = 0

    def stats(self):
        return SimpleNamespace(flights=self.flights)

    def __repr__(self) -> str:
        return "<Cache>"


def test_a_block_that_gives_everything_back_passes():
    pool = Pool()
    pool.active = 1  # leased before, by somebody else
    with no_leaks(pool, Cache(pool), Cache(None), descriptors=True):
        thread = threading.Thread(target=lambda: None)
        thread.start()
        os.close(os.dup(0))


def test_leased_buffers_are_named_with_their_pool():
    pool = Pool()
    with pytest.raises(AssertionError, match="left behind: 2 leased buffers of <Pool>"):
        with no_leaks(pool, patience=0):
            pool.active += 2


def test_running_flights_are_named_with_their_cache():
    cache = Cache(Pool())
    with pytest.raises(AssertionError, match="1 running flight of <Cache>"):
        with no_leaks(cache, patience=0):
            cache.flights = 1


def test_threads_are_named_unless_they_were_there_before():
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="stray", daemon=True)
    try:
        with pytest.raises(AssertionError, match="threads stray"):
            with no_leaks(patience=0):
                thread.start()
        with no_leaks():
            pass
        with no_leaks(threads=False):
            threading.Thread(target=stop.wait, name="allowed", daemon=True).start()
    finally:
        stop.set()
        thread.join()


def test_descriptors_are_named_on_request():
    read_end = write_end = None
    try:
        with pytest.raises(AssertionError, match=r"descriptors .*pipe"):
            with no_leaks(descriptors=True, patience=0):
                read_end, write_end = os.pipe()
    finally:
        for descriptor in (read_end, write_end):
            if descriptor is not None:
                os.close(descriptor)


def test_what_is_on_its_way_out_is_waited_for():
    """A filler that saw the end still has to hand its lease back."""
    pool, leaving = Pool(), threading.Event()

    def give_back():
        leaving.wait(10)
        pool.active = 0

    with no_leaks(pool):
        pool.active = 1
        threading.Thread(target=give_back).start()
        threading.Timer(0.02, leaving.set).start()


def test_an_error_in_the_block_is_not_hidden_by_what_it_left():
    pool = Pool()
    with pytest.raises(ZeroDivisionError):
        with no_leaks(pool, patience=0):
            pool.active = 1
            raise ZeroDivisionError
