"""What fork, a killed process and an interpreter that just ends make of a cache."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING

import pytest

from daramjwee import Cache, Closed, FileStore, MemoryStore
from daramjwee.engine import background
from daramjwee.testing.leaks import no_leaks
from daramjwee.testing.origin import Gate, ScriptedOrigin

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BIG = os.urandom(1_000_000)


def in_child(work: Callable[[], object]) -> int:
    """Run `work` in a forked child; its exit status, 0 when it returned true."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if work() else 2
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_forked_child_goes_on_with_the_tiers_and_without_the_fills(tmp_path: Path) -> None:
    """Fork in mid-fill: the child reads, sets and fetches; streams from before raise `Closed` there; the parent
    notices nothing."""
    gate = Gate()
    origin = ScriptedOrigin({"k": b"data", "other": b"from the origin"})
    origin.script("big", BIG[:300_000], gate, BIG[300_000:])
    with Cache(MemoryStore("8MiB"), FileStore(tmp_path, capacity="64MiB"), origin=origin) as cache:
        assert cache.get("k") == b"data"
        with cache.open("big") as stream:
            assert stream.read(10) == BIG[:10]

            def child() -> bool:
                try:
                    stream.read(1)
                except Closed:
                    pass
                else:
                    return False
                cache.set("mine", b"child")
                return (
                    cache.get("k") == b"data"
                    and cache.get("mine") == b"child"
                    and cache.get("other") == b"from the origin"
                    and cache.stats().flights == 0
                )

            assert in_child(child) == 0
            gate.open()
            assert stream.read() == BIG[10:]
        assert cache.get("k") == b"data"
        assert "mine" not in cache


def test_a_child_forked_under_load_never_hangs(tmp_path: Path) -> None:
    """Locks may be held by other threads at the fork: the child has its own."""
    with Cache(MemoryStore("8MiB"), FileStore(tmp_path, capacity="64MiB"), origin=ScriptedOrigin({"k": BIG})) as cache:
        stop = threading.Event()

        def load(number: int) -> None:
            while not stop.is_set():
                cache.set(f"s{number}", BIG[: 1000 * number])
                cache.delete("k")
                cache.get("k")

        threads = [threading.Thread(target=load, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(15):
                assert in_child(lambda: (cache.get("k"), cache.set("c", b"x"), cache.get("c") == b"x")[-1]) == 0
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_an_interpreter_that_ends_in_mid_fill_ends_at_once_and_leaves_no_entry(tmp_path: Path) -> None:
    """No close, a fill that stands still, a stream open: the exit is clean, and the next start sweeps."""
    done = run_python(
        """
        import sys, threading
        from daramjwee import Cache, FileStore
        def body():
            yield b"x" * 300_000
            yield b"y" * 300_000
            threading.Event().wait(60)
        cache = Cache(FileStore(sys.argv[1], capacity="64MiB"))
        stream = cache.open("k", lambda request: body())
        assert stream.read(400_000)[:1] == b"x"
        print("end")
        """,
        str(tmp_path),
    )
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr
    with Cache(FileStore(tmp_path, capacity="64MiB")) as cache:
        assert list(cache.keys()) == []
    assert [p for p in (tmp_path / "staging").rglob("*") if p.is_file() and not p.name.endswith(".lock")] == []


def test_a_process_killed_in_mid_fill_publishes_nothing_and_loses_nothing_else(tmp_path: Path) -> None:
    """SIGKILL: what was complete is there, whole; what was not is swept by the next start."""
    done = run_python(
        f"""
        import os, sys
        from daramjwee import Cache, FileStore
        def body():
            yield b"x" * 600_000
            os.kill(os.getpid(), {int(signal.SIGKILL)})
        cache = Cache(FileStore(sys.argv[1], capacity="64MiB"))
        cache.set("whole", b"w" * 500_000)
        cache.get("half", lambda request: body())
        """,
        str(tmp_path),
    )
    assert done.returncode == -signal.SIGKILL
    with Cache(FileStore(tmp_path, capacity="64MiB")) as cache:
        assert list(cache.keys()) == ["whole"]
        assert cache.get("whole") == b"w" * 500_000
        assert cache.stats().tiers[0].usage.bytes == 500_000


def test_a_cache_that_is_garbage_collected_leaves_no_thread_and_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a close: its fillers end by themselves, its files are closed with it."""
    monkeypatch.setattr(background, "IDLE_SECONDS", 0.1)
    with no_leaks(descriptors=True):
        cache = Cache(FileStore(tmp_path, capacity="64MiB"), origin=ScriptedOrigin({"big": BIG}))
        assert cache.get("big") == BIG
        del cache
        gc.collect()
