"""The default store: everything in memory for readers, everything on disk before it is seen.

A commit is checked against what is visible and what is on its way, gets the next revision, and
waits in line. One writer thread takes the whole line as one transaction, so that many commits
share one fsync; only then do readers and watches see them, in order. Commits of volatile keys
(leases, events) take their place in the line but need no disk: they go along with a later
transaction, and may be lost in a crash.

Before the file grows the disk is asked for the room: a checkpoint that has none would be stuck, and
the log with it. Where the disk is full, by what else is on it, nothing new is taken any more; what
is there can still be changed and deleted, out of a reserve, which is how room is made.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import sqlite3
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sampan.store.base import (
    Change,
    Conflict,
    Corrupt,
    Delete,
    Put,
    Range,
    Record,
    Unwritable,
    Watch,
)
from sampan.store.hub import Hub, change_of, check

_APPLICATION = 0x53414D50  # "SAMP": marks the file as ours
log = logging.getLogger(__name__)
_BLOCK = 100_000  # revisions reserved on disk at a time
_SCHEMA = (
    f"PRAGMA application_id={_APPLICATION}",
    "CREATE TABLE IF NOT EXISTS record (key TEXT PRIMARY KEY, value BLOB NOT NULL,"
    " revision INTEGER NOT NULL, created INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS reserve (id INTEGER PRIMARY KEY, filler BLOB)",
)
_RESERVE = 2 << 20  # bytes
_CHUNK = 256 << 10  # bytes by which the file grows ahead
_LAST = 8  # free pages that are left for what only changes or goes
_PAGE = 4096  # bytes, SQLite's own choice
_FULL = "database or disk is full"


@dataclass(slots=True)
class _Pending:
    changes: list[Change]
    revision: int
    durable: bool
    done: asyncio.Future[int]
    spoiled: bool = False  # it builds on a commit that failed

    @property
    def keys(self) -> set[str]:
        return {c.key for c in self.changes}

    @property
    def creates(self) -> bool:
        return any(c.previous is None and c.record is not None for c in self.changes)


class SqliteStore:
    """A ``Store`` in a directory. One process at a time may have it open."""

    def __init__(
        self, hub: Hub, db: sqlite3.Connection, lock: int, volatile: tuple[str, ...],
        reserved: int, file: int,
    ) -> None:  # fmt: skip
        self._hub = hub
        self._db = db
        self._lock = lock
        self._volatile = volatile
        self._reserved = reserved
        self._next = hub.revision
        self._line: deque[_Pending] = deque()
        self._overlay: dict[str, Record | None] = {}  # newest state that is not visible yet
        self._lazy: dict[str, Record | None] = {}  # volatile changes that are not on disk
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._draining: asyncio.Task[None] | None = None
        self._closed = False
        self._file = file  # of the database; closing it earlier would drop SQLite's locks
        self._full = False
        self._has_reserve = db.execute("SELECT 1 FROM reserve").fetchone() is not None

    @staticmethod
    async def open(directory: Path, *, volatile: tuple[str, ...] = ()) -> SqliteStore:
        """The store in *directory*, made where there is none. Raises Corrupt."""
        os.makedirs(directory, mode=0o700, exist_ok=True)
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            os.close(lock)
            raise Corrupt(f"{directory} is in use by another process") from e
        path = directory / "state.db"
        try:
            db, hub, reserved = _load(path)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as e:
            os.close(lock)
            disk = os.statvfs(directory)
            if _is_full(e) or disk.f_bavail * disk.f_frsize < _RESERVE:
                raise Corrupt(f"{path} cannot be written, the disk is full: {e}") from e
            raise Corrupt(f"{path} is not a usable database: {e}") from e
        except Corrupt:
            os.close(lock)
            raise
        return SqliteStore(hub, db, lock, volatile, reserved, os.open(path, os.O_RDWR))

    @property
    def revision(self) -> int:
        return self._hub.revision

    async def get(self, key: str) -> Record | None:
        return self._hub.get(key)

    async def range(
        self, prefix: str, *, start: str = "", limit: int = 0, revision: int = 0
    ) -> Range:
        return self._hub.range(prefix, start=start, limit=limit, revision=revision)

    def watch(self, prefix: str, *, since: int) -> Watch:
        return self._hub.watch(prefix, since=since)

    async def compact(self, revision: int) -> None:
        self._hub.compact(revision)

    async def commit(self, *ops: Put | Delete) -> int:
        if self._closed:
            raise Corrupt("the store is closed")
        currents = [self._current(op.key) for op in ops]
        try:
            for op, current in zip(ops, currents, strict=True):
                check(op, current)
        except Conflict as e:
            await self._seen(e.key)
            raise
        self._next += 1
        revision = self._next
        changes = [change_of(op, c, revision) for op, c in zip(ops, currents, strict=True)]
        durable = not all(op.key.startswith(self._volatile) for op in ops)
        if not durable and not self._line and revision <= self._reserved:
            self._hub.publish(changes, revision)
            self._remember(changes)
            return revision
        pending = _Pending(changes, revision, durable, asyncio.get_running_loop().create_future())
        for change in changes:
            self._overlay[change.key] = change.record
        self._line.append(pending)
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain())
        return await asyncio.shield(pending.done)

    def _current(self, key: str) -> Record | None:
        return self._overlay[key] if key in self._overlay else self._hub.get(key)

    async def _seen(self, key: str) -> None:
        """Wait until what is on its way to *key* can be read: who lost against it can look again
        at once."""
        under_way = [p.done for p in self._line if any(c.key == key for c in p.changes)]
        if under_way:
            await asyncio.wait(under_way)

    def _remember(self, changes: Sequence[Change]) -> None:
        self._lazy.update((c.key, c.record) for c in changes)

    async def _drain(self) -> None:
        """Write and publish until the line is empty."""
        loop = asyncio.get_running_loop()
        try:
            while self._line:
                if self._full:
                    with contextlib.suppress(sqlite3.Error):  # then it is as full as it was
                        await loop.run_in_executor(self._writer, self._make_room, 0)
                batch = tuple(self._line)
                fit = self._fitting(batch)
                changes = [c for p in fit if p.durable for c in p.changes]
                lazy = {} if self._full else self._lazy
                if lazy:
                    self._lazy = {}
                error: BaseException | None = None
                try:
                    await loop.run_in_executor(self._writer, self._write, changes, lazy, self._next)
                except (sqlite3.Error, Unwritable) as e:
                    self._lazy = {**lazy, **self._lazy}
                    error = Unwritable(str(e))
                for pending in batch:
                    self._line.popleft()
                    self._settle(pending, error if pending in fit else Unwritable(_FULL))
        finally:
            self._draining = None

    def _fitting(self, batch: Sequence[_Pending]) -> list[_Pending]:
        """Those that may be written: while the disk is full none that creates something, and none
        that builds on what was refused."""
        fit, refused = [], set[str]()
        for pending in batch:
            new = self._full and pending.durable and pending.creates
            if pending.spoiled or new or pending.keys & refused:
                refused |= pending.keys
            else:
                fit.append(pending)
        return fit

    def _settle(self, pending: _Pending, error: BaseException | None) -> None:
        for change in pending.changes:
            if self._overlay.get(change.key) is change.record:
                del self._overlay[change.key]
        if error is not None and pending.durable:
            pending.done.set_exception(error)
            for later in self._line:
                later.spoiled = later.spoiled or bool(later.keys & pending.keys)
            # Nobody may be waiting any more (a cancelled request): that is no error of its own.
            pending.done.exception()
            return
        self._hub.publish(pending.changes, pending.revision)
        if not pending.durable:
            self._remember(pending.changes)
        pending.done.set_result(pending.revision)

    def _write(
        self, changes: Sequence[Change], lazy: dict[str, Record | None], newest: int
    ) -> None:
        """One transaction, in the writer's thread. Raises sqlite3.Error, Unwritable."""
        final: dict[str, Record | None] = {**lazy, **{c.key: c.record for c in changes}}
        grown = sum(len(r.value) for r in final.values() if r is not None)
        grown -= sum(len(c.previous.value) for c in changes if c.previous is not None)
        self._make_room(max(0, grown) // _PAGE + len(changes) // 8)
        try:
            self._transact(final, newest)
        except sqlite3.OperationalError as e:
            if not _is_full(e):
                raise
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")  # the log begins anew
            self._transact(final, newest)

    def _transact(self, final: dict[str, Record | None], newest: int) -> None:
        db = self._db
        puts = [(k, r.value, r.revision, r.created) for k, r in final.items() if r is not None]
        gone = [(k,) for k, r in final.items() if r is None]
        reserved = self._reserved
        if newest + _BLOCK // 2 > reserved:
            reserved = newest + _BLOCK
        db.execute("BEGIN IMMEDIATE")
        try:
            db.executemany("INSERT OR REPLACE INTO record VALUES (?,?,?,?)", puts)
            db.executemany("DELETE FROM record WHERE key=?", gone)
            if reserved != self._reserved:
                db.execute("INSERT OR REPLACE INTO meta VALUES ('reserved', ?)", (reserved,))
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:  # a full disk may have ended it already
                db.execute("ROLLBACK")
            raise
        self._reserved = reserved

    def _make_room(self, pages: int) -> None:
        """In the writer's thread: the disk has given so many pages more. Raises Unwritable."""
        db = self._db
        (free,) = db.execute("PRAGMA freelist_count").fetchone()
        (held,) = db.execute("PRAGMA page_count").fetchone()
        try:
            self._grow(held + max(0, pages - free))
            if not self._has_reserve:
                self._put_by(held, free - pages)
        except (OSError, sqlite3.Error) as e:
            if not self._full:
                log.error("nothing new can be stored: %s", e)
            self._full = True
            free = self._release(free)
            if pages > max(0, free - _LAST):
                raise Unwritable(_FULL) from e
        else:
            self._full = False

    def _release(self, free: int) -> int:
        """Use the reserve; how many pages are free then."""
        db = self._db
        if self._has_reserve:
            try:
                db.execute("PRAGMA wal_checkpoint(PASSIVE)")  # the log begins anew: it has no room
                db.execute("DELETE FROM reserve")
            except sqlite3.Error as e:
                log.error("the reserve cannot be used: %s", e)
                return free
            self._has_reserve = False
            (free,) = db.execute("PRAGMA freelist_count").fetchone()
        return free

    def _grow(self, pages: int) -> None:
        """The disk has given the file so many pages. Raises OSError."""
        if os.fstat(self._file).st_size < pages * _PAGE:
            os.posix_fallocate(self._file, 0, pages * _PAGE + _CHUNK)

    def _put_by(self, held: int, free: int) -> None:
        """Room for bad times, in the file (held: its pages, free: those of them that are) and in
        its log."""
        db = self._db
        db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        self._grow(held + max(0, _RESERVE // _PAGE + _LAST - free))
        db.execute("INSERT INTO reserve VALUES (1, zeroblob(?))", (_RESERVE,))
        db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        self._has_reserve = True

    async def backup(self, path: Path) -> None:
        """A copy of the whole store at *path* as of one revision; commits wait meanwhile. Raises
        sqlite3.Error."""
        lazy, self._lazy = self._lazy, {}
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._writer, self._copy, lazy, self._next, path)
        except sqlite3.Error:
            self._lazy = {**lazy, **self._lazy}
            raise

    def _copy(self, lazy: dict[str, Record | None], newest: int, path: Path) -> None:
        self._write((), lazy, newest)
        self._db.execute("VACUUM INTO ?", (str(path),))

    async def close(self) -> None:
        """Finish what is in line, write the volatile rest, let go of the directory."""
        if self._closed:
            return
        self._closed = True
        if self._draining is not None:
            await self._draining
        loop = asyncio.get_running_loop()
        lazy, self._lazy = self._lazy, {}
        try:
            await loop.run_in_executor(self._writer, self._finish, lazy)
        except (sqlite3.Error, Unwritable) as e:  # a full disk: what was acknowledged is there
            log.warning("events and leases of the last moments are lost: %s", e)
        self._writer.shutdown()
        self._hub.close()
        os.close(self._file)
        os.close(self._lock)

    def _finish(self, lazy: dict[str, Record | None]) -> None:
        try:
            self._write((), lazy, self._next)
            # A clean end needs no block: the next start goes on right here.
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('reserved', ?)", (self._next,))
        finally:
            self._db.close()


def _is_full(error: Exception) -> bool:
    return bool(getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL)


def _create(path: Path) -> None:
    """An empty store with its reserve, whole or not at all. Raises sqlite3.Error."""
    part = path.with_name(path.name + ".new")
    part.unlink(missing_ok=True)
    db = sqlite3.connect(part, isolation_level=None)
    try:
        # Nothing to keep yet: one write, without journal and without waiting for each page.
        for statement in ("PRAGMA journal_mode=OFF", "PRAGMA synchronous=OFF", *_SCHEMA):
            db.execute(statement)
        db.execute("INSERT INTO reserve VALUES (1, zeroblob(?))", (_RESERVE,))
    finally:
        db.close()
    part.replace(path)


def _allocate_log(path: Path) -> None:
    """The log may become so large on a full disk, too; what is not written is no entry of it."""
    file = os.open(path.with_name(path.name + "-wal"), os.O_RDWR)
    try:
        os.posix_fallocate(file, 0, _RESERVE)
    except OSError as e:
        log.warning("the disk is full: %s", e)
    finally:
        os.close(file)


def _load(path: Path) -> tuple[sqlite3.Connection, Hub, int]:
    if not path.exists() or path.stat().st_size == 0:
        _create(path)
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        (application,) = db.execute("PRAGMA application_id").fetchone()
        if application != _APPLICATION:
            raise Corrupt(f"{path} is not a database of sampan")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        for statement in _SCHEMA:
            db.execute(statement)
        row = db.execute("SELECT value FROM meta WHERE name='reserved'").fetchone()
        records = [
            Record(key, value, revision, created)
            for key, value, revision, created in db.execute(
                "SELECT key, value, revision, created FROM record"
            )
        ]
        newest = max((r.revision for r in records), default=1)
        # After a crash revisions up to the reservation may have been handed out.
        revision = max(newest, row[0] if row else 1)
        reserved = revision + _BLOCK
        db.execute("INSERT OR REPLACE INTO meta VALUES ('reserved', ?)", (reserved,))
        _allocate_log(path)
    except BaseException:
        db.close()
        raise
    hub = Hub(revision=revision)
    for record in records:
        hub.load(record)
    hub.sort()
    return db, hub, reserved
