"""The index of a file tier and the files it stands for, changed in one order.

Invariant: bodies in the index + stagings <= capacity. An entry is on disk when its metadata file exists, and visible
in this process from the moment its record is in the index; the files of a record that left go after it.
Threads: any. The lock guards the index and is never held across a call of the system; who publishes or removes a key
has it to itself (`_busy`) meanwhile.
Design: docs/design/stores.md
"""

from __future__ import annotations

import io
import itertools
import logging
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING

from daramjwee.errors import Closed, CorruptEntry, StoreError, shorten
from daramjwee.model import NULL_OBSERVER, Event
from daramjwee.stores.file import layout
from daramjwee.stores.file.blocks import checksum
from daramjwee.stores.file.disk import Disk
from daramjwee.stores.file.entry import FileRecord, Pin
from daramjwee.stores.file.files import Descriptor, Files
from daramjwee.stores.file.format import BLOCK_BYTES, MetaRecord
from daramjwee.stores.shelf import Hold, Shelf, with_size
from daramjwee.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from daramjwee.model import Metadata, Observer
    from daramjwee.stores.file.staging import FileHold, FileStaging
    from daramjwee.stores.limits import Limits

    Guard = Callable[[], bool]

logger = logging.getLogger(__name__)

# How long a change of a key waits for another one of the same key: far more than any disk that works needs.
TURN_SECONDS = 30.0


class Turn:
    """One change of the files of a key. `over` is set without a call: no interrupt can come between a change's end and that,
    and leave the key to nobody for ever."""

    __slots__ = ("over",)

    def __init__(self) -> None:
        self.over = False


class FileIndex:
    """Records, their files, and the changes that keep the two in step. `FileStore` is its public face."""

    name = "file"
    files: Files = Files()  # tests put one here that fails

    def __init__(self, folder: str, limits: Limits, *, floor: int, fsync: bool) -> None:
        self.folder = folder
        self.closed = False
        self.epoch = 0  # counts forks: a staging of the parent is none of the child's
        # What was garbage collected without an end; finalizers only append here.
        self.lost: deque[FileHold] = deque()
        self.note_lost: Callable[[Iterable[FileHold]], None] = self.lost.extend
        self.lost_pins: deque[FileRecord] = deque()
        self.note_lost_pin: Callable[[Iterable[FileRecord]], None] = self.lost_pins.extend
        self._kept: dict[FileRecord, None] = {}  # those with an open descriptor, longest first
        self.lock = threading.Lock()
        self.bad_records = 0  # metadata files that the start found damaged
        self._changed = threading.Condition(self.lock)
        self._busy: dict[str, Turn] = {}  # keys whose files are being changed
        # Files of records that left the index, from that moment until they are removed: a delete must not leave them, or
        # the next start would find them and bring an old entry back.
        self._leftovers: dict[str, set[str]] = {}
        self._observer: Observer = NULL_OBSERVER
        self._shelf: Shelf[FileRecord] = Shelf(limits)
        self._stagings: weakref.WeakSet[FileStaging] = weakref.WeakSet()
        self._fills = itertools.count(1)
        self._generation = 0
        self._disk = Disk(self.files, folder, floor=floor, fsync=fsync)
        self._prefix = self._disk.objects

    def _start(self) -> None:
        checksum()  # imported now, and not in the midst of a first write that may be interrupted
        try:
            found = self._disk.start()
        except OSError as error:
            exists = isinstance(error, FileExistsError) and error.filename == self.folder
            said = "it is a file" if exists else error.strerror or error
            raise StoreError(
                f"the folder {self.folder} cannot be used as a file tier: {said}; give one that this user can write to"
            ) from error
        self._generation = found.generation
        self.bad_records = found.bad
        displaced: list[FileRecord] = []
        dropped = 0
        with self.lock:
            for record in found.records:
                hold = Hold(self.epoch)
                if self._shelf.reserve_locked(hold, record.size, displaced):
                    self._shelf.put_locked(record, hold, displaced)
                else:
                    displaced.append(record)
                    dropped += 1
            dropped += self._shelf.evictions
            self._shelf.evictions = 0
            self._leave_locked(displaced)
        if dropped:
            held, limits = format_size(sum(record.size for record in found.records)), self._shelf.limits
            logger.warning(
                "the folder %s held %d entries with %s, more than its limits allow (capacity %s): dropped %d of them",
                self.folder, len(found.records), held, format_size(limits.capacity), dropped,
            )  # fmt: skip
        self._remove(displaced)

    def publish(
        self, staging: FileStaging, file: Descriptor, metadata: Metadata, sums: bytes, guard: Guard | None
    ) -> tuple[FileRecord, tuple[int, int]] | None:
        """Bring a staging on disk under its final names, and its record into the index if the guard agrees: (record, stamp)."""
        key, size, disk = staging.key, staging.written, self._disk
        digest = layout.key_hash(key)
        body = layout.body_name(digest, staging.owner, staging.fill)
        # Asked before, too: of a fill that has lost already, nothing should reach the disk even for a moment.
        displaced: list[FileRecord] = []
        turn = Turn()
        try:
            if not self._take(key, turn, guard):
                return None
            try:
                stamp = disk.place_body(file.fd, staging.hold.path, body)
                staging.hold.path = self._prefix + body
                record = FileRecord(MetaRecord(key, with_size(metadata, size), size, BLOCK_BYTES, sums, 0, body[3:]))
                self._write_meta(record)
            except OSError as error:
                raise self.failed("write_failed", key, "publish", error) from error
            with self.lock:
                agreed = not self.closed and (guard is None or guard())
                if agreed:
                    # Known first: an interrupt before it is in the index leaves no file that a delete would not find.
                    self._leftovers.setdefault(key, set()).update(self._paths_of(record))
                    # Ends the hold, too: an interruption from then on must not make an abort undo it.
                    self._shelf.put_locked(record, staging.hold, displaced)
                    self._stagings.discard(staging)
                    self._stay_locked(record)
                    self._leave_locked(displaced)
            if not agreed:
                self._unlink(disk.meta_path(record.digest, record.generation), key)
                self._check_open()
                return None
        finally:
            try:
                self._remove(displaced)
            finally:
                turn.over = True
                self._give(key, turn)
        return record, stamp

    def restamp(self, key: str, metadata: Metadata, *, guard: Guard | None = None) -> bool:
        """New metadata under a new generation for the committed entry of the key, same body; False without one."""
        turn = Turn()
        try:
            if not self._take(key, turn, guard):
                return False
            record = self._shelf.table.get(key)
            if record is None:
                return False
            meta = MetaRecord(
                key, with_size(metadata, record.size), record.size, record.block, record.sums, 0, record.body[3:]
            )
            fresh = FileRecord(meta)
            former = self._disk.meta_path(record.digest, record.generation)
            try:
                self._write_meta(fresh)
            except OSError as error:
                raise self.failed("write_failed", key, "publish", error) from error
            with self.lock:
                agreed = self._shelf.table.get(key) is record and not self.closed and (guard is None or guard())
                if agreed:
                    record.metadata, record.generation = fresh.metadata, fresh.generation
            self._unlink(former if agreed else self._disk.meta_path(fresh.digest, fresh.generation), key)
            return agreed
        finally:
            turn.over = True
            self._give(key, turn)

    def delete(self, key: str, *, guard: Guard | None = None) -> bool:
        turn = Turn()
        try:
            if not self._take(key, turn, guard):
                return False
            with self.lock:
                record = self._shelf.table.get(key)
                if record is not None:
                    self._leave_locked([record])  # first: an interrupt before the next line leaves no file unknown
                    self._shelf.drop_locked(record)
                paths = sorted(self._leftovers.get(key, ()), key=layout.metadata_first)
            try:
                for path in paths:
                    self._disk.unlink(path)
                    self._settle_leftover(key, path)
            except OSError as error:  # what is left is tried again by the next delete
                raise self.failed("write_failed", key, "delete", error) from error
            return record is not None
        finally:
            turn.over = True
            self._give(key, turn)

    def end_staging(self, hold: FileHold) -> None:
        """End a staging without a commit; done again, it does nothing. One begun before a fork is the parent's to remove."""
        if hold.epoch != self.epoch or not hold.counted:
            return
        # First: after an interrupt in between it is done again.
        if hold.path is not None:
            self._unlink(hold.path, None)
        with self.lock:
            self._shelf.end_locked(hold)

    def _evict_bytes(self, wanted: int) -> bool:
        """Evict entries of so many bytes; False (and nothing done) when there are not so many."""
        evicted: list[FileRecord] = []
        try:
            with self.lock:
                if self._shelf.policy.weight < wanted:
                    return False
                self._shelf.evict_bytes_locked(wanted, evicted)
                self._leave_locked(evicted)
        finally:
            self._remove(evicted)
        return True

    # -- for entries and stagings --------------------------------------------------------------------------

    def body_path(self, record: FileRecord) -> str:
        return self._prefix + record.body

    def pin(self, record: FileRecord) -> Pin:
        """Keep the name of the body while a path to it is out. Raises where the name is gone already."""
        pin = Pin(self)
        with self.lock:
            if record.gone:
                raise io.UnsupportedOperation("the entry was replaced since it was opened: read it, or open it again")
            # No call between the two.
            record.pins += 1
            pin.held += (record,)
        return pin

    def unpin(self, pin: Pin) -> None:
        """The path is not used any more. Done again, it does nothing."""
        with self.lock:
            if not pin.held:
                return
            record = pin.held[0]
            self._unpin_locked(record)
            # No call since it was counted.
            del pin.held[:]
        self._remove_unpinned(record)

    def _unpin_locked(self, record: FileRecord) -> None:
        if record.gone and record.pins == 1:
            self._leftovers.setdefault(record.key, set()).add(self._prefix + record.body)
        record.pins -= 1

    def _remove_unpinned(self, record: FileRecord) -> None:
        if record.gone and not record.pins:
            self._unlink(self._prefix + record.body, record.key)

    def corrupt(self, record: FileRecord, detail: str) -> CorruptEntry:
        """Drop a damaged entry from index and disk, tell of it, and give the error to raise."""
        self._drop(record, "corrupt", detail)
        return CorruptEntry(
            f"the entry of {shorten(record.key)} in {self.folder} is damaged: {detail}; it was dropped, fetch it again"
        )

    def failed(self, kind: str, key: str, doing: str, error: OSError) -> StoreError:
        """Tell of a failed call of the system, and give the error to raise from it."""
        detail = f"could not {doing} the file of {shorten(key)} in {self.folder}: {error.strerror or error}"
        self._observer.notice(Event(kind, key, self.name, detail))
        return StoreError(detail)

    # -- order between files and index ---------------------------------------------------------------------

    def _take(self, key: str, turn: Turn, guard: Guard | None) -> bool:
        """Have the key to oneself for a change of its files, if the guard agrees. `turn.over` ends it, `_give` tells of that."""
        with self.lock:
            free = self._changed.wait_for(lambda: self._free_locked(key), timeout=TURN_SECONDS)
            if not free:
                raise StoreError(
                    f"another thread has been changing the files of {shorten(key)} in {self.folder} for "
                    f"{TURN_SECONDS:.0f} s: the disk hangs, or that thread was interrupted"
                )
            self._check_open()
            if guard is not None and not guard():
                return False
            self._busy[key] = turn
            return True

    def _give(self, key: str, turn: Turn) -> None:
        with self.lock:
            if self._busy.get(key) is turn:
                del self._busy[key]
                self._changed.notify_all()

    def _free_locked(self, key: str) -> bool:
        turn = self._busy.get(key)
        return turn is None or turn.over

    def _write_meta(self, record: FileRecord) -> None:
        """Create the metadata file under the next free generation: the commit point on disk."""
        while True:
            with self.lock:
                # By the clock, so that the last of several processes on one folder has the highest, too.
                self._generation = max(self._generation + 1, time.time_ns())
                record.generation = self._generation
            meta = MetaRecord(
                record.key, record.metadata, record.size, record.block, record.sums, record.generation, record.body[3:]
            )
            if self._disk.link_meta(meta, record.digest, next(self._fills)):
                return

    def _let_file_go_locked(self, record: FileRecord) -> None:
        record.file = None  # or its bytes stay on the disk
        self._kept.pop(record, None)

    def _leave_locked(self, records: list[FileRecord]) -> None:
        for record in records:
            self._let_file_go_locked(record)
            # The body of one that is pinned goes with its last pin.
            paths = self._paths_of(record)[: 1 if record.pins else 2]
            self._leftovers.setdefault(record.key, set()).update(paths)
            record.gone = True  # last: until then `_remove` does it again

    def _stay_locked(self, record: FileRecord) -> None:
        """A record that was noted before it came is in the index now, unless it had to leave at once."""
        if self._shelf.table.get(record.key) is record:
            left = self._leftovers[record.key]
            left.difference_update(self._paths_of(record))
            if not left:
                del self._leftovers[record.key]

    def _paths_of(self, record: FileRecord) -> tuple[str, str]:
        """Its files in the order in which they go: metadata first, or a crash leaves it without a body."""
        return self._disk.meta_path(record.digest, record.generation), self._prefix + record.body

    def _remove(self, records: list[FileRecord]) -> None:
        """Remove the files of records that left the index. What an interrupt leaves of them is a leftover."""
        for record in records:
            with self.lock:
                if not record.gone:  # an interrupt came before it was said
                    self._leave_locked([record])
                paths = self._due_locked(record)
            for path in paths:
                self._unlink(path, record.key)

    def _due_locked(self, record: FileRecord) -> list[str]:
        # Not in the `with` of who calls this, as `_tidy_locked` of the memory tier.
        due = self._leftovers.get(record.key, ())
        return [path for path in self._paths_of(record) if path in due]

    def _drop(self, record: FileRecord, kind: str, detail: str) -> None:
        logger.warning("dropping %s from %s: %s", shorten(record.key), self.folder, detail)
        dropped: list[FileRecord] = []
        try:
            with self.lock:
                if self._shelf.drop_locked(record):
                    dropped.append(record)
                    self._leave_locked(dropped)
        finally:
            self._remove(dropped)
        self._observer.notice(Event(kind, record.key, self.name, detail))

    def _unlink(self, path: str, key: str | None) -> None:
        """Remove a file; what cannot be removed is told of, and a leftover of its key."""
        try:
            self._disk.unlink(path)
        except OSError as error:
            logger.warning("could not remove %s: %s; a delete of its key, or the next start, tries again", path, error)
            if key is not None:
                with self.lock:
                    self._leftovers.setdefault(key, set()).add(path)
            self._observer.notice(Event("remove_failed", key, self.name, str(error)))
        else:
            if key is not None:
                self._settle_leftover(key, path)

    def _settle_leftover(self, key: str, path: str) -> None:
        """The file is gone."""
        with self.lock:
            left = self._leftovers.get(key)
            if left is not None:
                left.discard(path)
                if not left:
                    del self._leftovers[key]

    def _drain(self) -> None:
        """End what was garbage collected without an end. Each is taken from its deque when that is done: after an interrupt
        it is done again."""
        while self.lost or self.lost_pins:
            with self.lock:
                hold = self.lost[0] if self.lost else None
                pinned = self.lost_pins[0] if self.lost_pins else None
                if pinned is not None:
                    self._unpin_locked(pinned)
                    # No call since it was counted.
                    del self.lost_pins[0]
            if pinned is not None:
                self._remove_unpinned(pinned)
            if hold is not None:
                self.end_staging(hold)
                with self.lock:
                    if self.lost and self.lost[0] is hold:
                        del self.lost[0]

    def _check_open(self) -> None:
        if self.closed:
            raise Closed(f"the file tier in {self.folder} was closed before this call")

    def after_fork_in_child(self) -> None:
        """Entries stay; what the parent's threads were doing is theirs, and so is its corner of the staging area."""
        self.epoch += 1
        self._changed = threading.Condition(self.lock)
        self._busy.clear()
        self.lost.clear()
        self.lost_pins.clear()
        self._stagings = weakref.WeakSet()
        self._shelf.reserved = self._shelf.stagings = 0
        self._disk.forget_owner()
