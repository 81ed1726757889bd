"""What to expect of daramjwee, and what not: sentences for people, each with the figures of a report that it rests on.

Invariant: a sentence holds whatever its figures are; the figures come from the report, never from here.
Pure: values only.
Design: docs/design/bench.md
"""

from __future__ import annotations

from typing import NamedTuple


class Saying(NamedTuple):
    """A sentence with a place for each of `figures`: (the scenario's name for `--only`, the row's name)."""

    text: str
    figures: tuple[tuple[str, str], ...]


EXPECT = (
    Saying(
        "**One fetch for everybody.** 16 readers who open one cold object of 64 MiB together cost {} fetch; all have it "
        "after {} the time of one reader, the first byte after {} the time of a bare HTTP read, for {} of memory beside "
        "their own buffers. The same with diskcache: {} fetches; with its lock: {}, and the first byte after {}; fsspec "
        "filecache: {} requests; hishel: {} fetches, {} for all.",
        (
            ("fill", "16 readers: origin fetches"),
            ("fill", "16 readers: wall / 1 reader"),
            ("fill", "16 readers: first byte / bare HTTP read"),
            ("fill", "16 readers: extra memory"),
            ("fill", "diskcache, set, 16 readers: origin fetches"),
            ("fill", "diskcache, Lock, 16 readers: origin fetches"),
            ("fill", "diskcache, Lock, 16 readers: first byte"),
            ("fill", "fsspec filecache, 16 readers: origin fetches"),
            ("fill", "hishel, 16 readers: origin fetches"),
            ("fill", "hishel, 16 readers: wall"),
        ),
    ),
    Saying(
        "**Files at the speed of files.** A hit in the file tier is read at {} the speed of a bare `open` and `readinto` for "
        "1 MiB, {} for 16 MiB (diskcache: {} and {}). The first read of an entry in a process is checked, block by block: "
        "{} and {}.",
        (
            ("file", "1 MiB, of the bare read's speed"),
            ("file", "16 MiB, of the bare read's speed"),
            ("file", "1 MiB, of the bare read's speed: diskcache"),
            ("file", "16 MiB, of the bare read's speed: diskcache"),
            ("file", "1 MiB, of the bare read's speed, first (verifying) read"),
            ("file", "16 MiB, of the bare read's speed, first (verifying) read"),
        ),
    ),
    Saying(
        "**Small hits for a small price.** `cache.get` of 1 KiB takes {}, {} a bare `dict.get`, and with 8 threads {} that. "
        "cachetools under a lock takes {}, cachebox (Rust) {}, diskcache {} a `dict.get`.",
        (
            ("hit", "cache.get, 1 KiB"),
            ("hit", "cache.get / dict.get"),
            ("hit", "cache.get, 8 threads / 1 thread"),
            ("hit", "cachetools LRU + lock / dict.get"),
            ("hit", "cachebox LRU / dict.get"),
            ("hit", "diskcache / dict.get"),
        ),
    ),
    Saying(
        "**Large objects without fresh memory.** From 512 KiB on, over all ends that were measured, a copy is {} as quick as "
        "`shutil.copyfileobj` and {} as quick as `readinto` of a fresh `bytearray` (geometric means). It faults {} pages more "
        "than the best of a user's ways, and starts the collector {} times. A file of 64 MiB gets to a new file {} as quickly "
        "as by the best of a user's ways, to a unix socket {} as quickly as by `sendall(read())`.",
        (
            ("matrix", "from 512KiB, all ends: adaptive / copyfileobj, geometric mean"),
            ("matrix", "from 512KiB, all ends: adaptive / fresh bytearray, geometric mean"),
            ("matrix", "from 256KiB, all ends: page faults of a copy beyond the best user's"),
            ("matrix", "all sizes, all ends: collector runs of a copy, adaptive"),
            ("copies", "new file, 64MiB: speed / best user's"),
            ("copies", "unix socket, 64MiB: speed / sendall(read())"),
        ),
    ),
    Saying(
        "**Many threads, mixed sizes.** 8 threads that copy files of 256 KiB to 8 MiB get {} as much done as with a fresh "
        "buffer for each, which faults {} as many pages, and whose peak of memory is {} as high.",
        (
            ("mixed", "none kept: operations / fresh"),
            ("mixed", "none kept: fresh page faults / ours"),
            ("mixed", "none kept: fresh peak memory / ours"),
        ),
    ),
    Saying(
        "**The same through the whole cache.** With 8 threads, mean of all sizes from 1 KiB up, beside a cache without a pool or "
        "with the plain one, whichever is better: a cold fill of a file that is copied to a file has {} the speed, a hit in a "
        "file that is copied to a sink {}, a hit in memory {}. Of 256 KiB to 8 MiB mixed, a program that reads those hits in a "
        "file as a whole needs {} as much memory at its peak, and a cache without a pool faults {} as many pages.",
        (
            ("endtoend", "cold, file tier: copy_to a file, 8 threads: speed / the better old one, all sizes"),
            ("endtoend", "hit in a file: copy_to a sink, 8 threads: speed / the better old one, all sizes"),
            ("endtoend", "hit in memory: get, 8 threads: speed / the better old one, all sizes"),
            (
                "endtoend",
                "hit in a file: copy_to a sink, 8 threads, 256KiB to 8MiB mixed: peak of memory, no pool and read whole / new",
            ),
            ("endtoend", "hit in a file: copy_to a sink, 8 threads, 256KiB to 8MiB mixed: page faults, no pool / new"),
        ),
    ),
    Saying(
        "**Memory has a bound.** Thousands of copies by 64 threads under a ledger of 32 MiB: never more than {} in it, at the "
        "peak {} of memory more than the idle process, {} left after `close()`.",
        (
            ("bounded", "64 threads: ledger at most"),
            ("bounded", "64 threads: process peak above idle"),
            ("bounded", "64 threads: still leased or charged after close()"),
        ),
    ),
)

EXPECT_NOT = (
    Saying(
        "**To beat one thread that calls `f.read(n)` again and again.** malloc keeps that one block warm, so nothing is "
        "quicker; at best it is a draw, and the fixed cost of a copy, some microseconds, shows while the copy itself takes "
        "not many more. `pool.copy` beside `write(read())`, from a file over a file: {} the speed at 256 KiB, {} at 512 KiB, "
        "{} at 1 MiB, {} at 16 MiB. The pool wins where memory is not warm: several buffers at once, many threads, large "
        "objects, an allocator that trims.",
        tuple(
            ("matrix", f"file to file, {size}: adaptive / write(read())")
            for size in ("256KiB", "512KiB", "1MiB", "16MiB")
        ),
    ),
    Saying(
        "**To gain from small objects.** Below 32 KiB the cost of deciding is larger than that of moving: at 8 KiB "
        "`pool.copy` has {} the speed of a user's best way from a file to a file, {} from a plain object. A cache reads and "
        "writes small objects without it.",
        (
            ("matrix", "file to file, 8KiB: adaptive / best user's"),
            ("matrix", "plain to file, 8KiB: adaptive / best user's"),
        ),
    ),
    Saying(
        "**To save a copy where nothing need be copied.** A `BytesIO` shares its bytes, so `write(read())` moves nothing but "
        "the write: {} the speed of a user's best way at 256 KiB, {} at 16 MiB.",
        (
            ("matrix", "BytesIO to file, 256KiB: adaptive / best user's"),
            ("matrix", "BytesIO to file, 16MiB: adaptive / best user's"),
        ),
    ),
    Saying(
        "**A set as cheap as into a dict.** A set makes metadata, checks freshness and tells those who wait: {} for 1 KiB "
        "in memory, of which cachetools under a lock takes {}. In a folder {}, of which diskcache takes {}; for 1 MiB {} "
        "and {}.",
        (
            ("paths", "set 1KiB in memory: ours"),
            ("paths", "set 1KiB in memory: cachetools LRU + lock / ours"),
            ("paths", "set 1KiB in a folder: ours"),
            ("paths", "set 1KiB in a folder: diskcache / ours"),
            ("paths", "set 1MiB in a folder: ours"),
            ("paths", "set 1MiB in a folder: diskcache / ours"),
        ),
    ),
    Saying(
        "**A key that is not there for nothing.** {} in memory, {} with a folder (diskcache takes {} of that): the answer goes "
        "through every tier and is counted.",
        (
            ("paths", "get a key that is not there, memory: ours"),
            ("paths", "get a key that is not there, folder: ours"),
            ("paths", "get a key that is not there, folder: diskcache / ours"),
        ),
    ),
    Saying(
        "**A folder that opens without being read.** The index is in memory, so opening 1,000 entries reads 1,000 small "
        "files: {}. diskcache, whose index stays in a database, takes {} of that, hishel {}.",
        (
            ("paths", "open a folder of 1,000 entries, read one, close: ours"),
            ("paths", "open a folder of 1,000 entries, read one, close: diskcache / ours"),
            ("paths", "open a folder of 1,000 entries, read one, close: hishel / ours"),
        ),
    ),
)
