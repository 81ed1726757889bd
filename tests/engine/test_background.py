"""Workers: bounded, started when needed, refused when full, ended in time."""

from __future__ import annotations

import itertools
import logging
import sys
import threading
import types

import pytest

from daramjwee.engine.background import Workers


def test_no_thread_is_started_before_there_is_a_job() -> None:
    """A cache that never fills in the background has no threads of its own."""
    before = set(threading.enumerate())
    workers = Workers("test", limit=4, queue=4)
    assert set(threading.enumerate()) <= before
    workers.close(1)


def test_jobs_beyond_threads_and_queue_are_refused() -> None:
    """Two threads and one place in line: the fourth job is refused, and taken again when there is room."""
    workers = Workers("test", limit=2, queue=1)
    go, started = threading.Event(), threading.Semaphore(0)

    def job() -> None:
        started.release()
        assert go.wait(30)

    assert workers.submit(job)
    assert workers.submit(job)
    assert started.acquire(timeout=30)
    assert started.acquire(timeout=30)
    assert workers.submit(job)
    assert not workers.submit(job)
    assert workers.busy == 3
    go.set()
    assert workers.wait_idle(30)
    assert workers.busy == 0
    assert workers.submit(job)
    assert workers.close(30)


def test_every_job_runs_once_however_many_submit() -> None:
    """16 threads submit 100 jobs each: 1600 runs, counted exactly."""
    workers = Workers("test", limit=3, queue=10_000)
    done = threading.Semaphore(0)

    def submit() -> None:
        for _ in range(100):
            assert workers.submit(done.release)

    threads = [threading.Thread(target=submit) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(1600):
        assert done.acquire(timeout=30)
    assert not done.acquire(blocking=False)
    assert workers.close(30)


def test_a_failing_job_is_logged_and_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """The thread goes on with the next job, and the failure is counted."""
    workers = Workers("test", limit=1, queue=10)
    ran = threading.Event()
    with caplog.at_level(logging.ERROR):
        assert workers.submit(lambda: 1 // 0)
        assert workers.submit(ran.set)
        assert ran.wait(30)
    assert workers.failures == 1
    assert "ZeroDivisionError" in caplog.text
    assert workers.close(30)


def test_a_closed_pool_takes_nothing_and_says_what_still_runs() -> None:
    """Close drops what waits, and answers False as long as a job does not end."""
    workers = Workers("test", limit=1, queue=10)
    go, started = threading.Event(), threading.Event()

    def job() -> None:
        started.set()
        assert go.wait(30)

    assert workers.submit(job)
    assert started.wait(30)
    assert not workers.close(0.01)
    assert not workers.submit(job)
    go.set()
    assert workers.close(30)


@pytest.mark.parametrize(("error", "raised"), [(RuntimeError("no more threads"), False), (KeyboardInterrupt(), True)])
def test_a_thread_that_cannot_start_takes_no_place(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, raised: bool
) -> None:
    """The job is refused (or the interrupt passed on), and the next one finds the pool as it was."""
    workers = Workers("test", limit=1, queue=1)

    def start(thread: threading.Thread) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        if raised:
            with pytest.raises(KeyboardInterrupt):
                workers.submit(print)
        else:
            assert not workers.submit(print)
    assert workers.busy == 0
    ran = threading.Event()
    assert workers.submit(ran.set)
    assert ran.wait(30)
    assert workers.close(30)


def test_an_interrupt_at_any_point_of_a_submission_leaves_workers_that_can_end() -> None:
    """A thread that was never started is nobody's to wait for, and takes nobody's place."""
    for n in itertools.count():
        workers = Workers("test", limit=1, queue=1)
        left, interrupted = n, False

        def interrupt(frame: types.FrameType, event: str, _argument: object) -> None:
            nonlocal left
            if event == "call" and frame.f_code.co_filename.endswith("engine/background.py"):
                left -= 1
                if left < 0:
                    sys.setprofile(None)
                    raise KeyboardInterrupt

        sys.setprofile(interrupt)
        try:
            workers.submit(int)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            sys.setprofile(None)
        ran = threading.Event()
        assert workers.wait_idle(30)
        assert workers.submit(ran.set)
        assert ran.wait(30)
        assert workers.close(30)
        if not interrupted:
            break
    assert n > 2


def test_more_threads_take_what_waits_and_fewer_end() -> None:
    """A higher limit starts threads for the jobs in line; a lower one ends those that are idle, and no job is lost."""
    workers = Workers("test", limit=1, queue=100)
    go, started, done = threading.Event(), threading.Semaphore(0), threading.Semaphore(0)

    def job() -> None:
        started.release()
        assert go.wait(30)
        done.release()

    for _ in range(4):
        assert workers.submit(job)
    assert started.acquire(timeout=30)
    assert workers.busy == 4
    workers.resize(3)
    assert workers.limit == 3
    assert started.acquire(timeout=30)
    assert started.acquire(timeout=30)
    workers.resize(1)
    for _ in range(4):
        assert workers.submit(job)
    go.set()
    for _ in range(8):
        assert done.acquire(timeout=30)
    assert workers.wait_idle(30)
    for thread in [t for t in threading.enumerate() if t.name == "daramjwee-test"][1:]:
        thread.join(30)
    assert len([t for t in threading.enumerate() if t.name == "daramjwee-test"]) <= 1
    assert workers.submit(done.release)
    assert done.acquire(timeout=30)
    assert workers.close(30)


def test_a_thousand_changes_of_the_limit_lose_no_job() -> None:
    """While 8 threads submit; every job runs once."""
    workers = Workers("test", limit=2, queue=100_000)
    done = threading.Semaphore(0)
    over = threading.Event()

    def submit() -> None:
        for _ in range(200):
            assert workers.submit(done.release)

    def change() -> None:
        for n in range(1000):
            workers.resize(1 + n % 5)
        over.set()

    threads = [threading.Thread(target=submit) for _ in range(8)] + [threading.Thread(target=change)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert over.is_set()
    for _ in range(1600):
        assert done.acquire(timeout=30)
    assert workers.close(30)
    assert not done.acquire(blocking=False)
