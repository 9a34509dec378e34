"""The jobs of the server: a durable queue in a database, with leases, fencing and exactly one publication.

A job is queued, then in_progress under a lease, then completed or failed. A lease has a number that rises
with every claim: whoever writes must name it, so that a worker that was taken for dead cannot publish. A job whose
worker is gone (boot, process and start time tell) or silent for a whole lease goes back to the queue, three
times at most. Execution can happen twice, publication cannot.
"""

import json
import os
import secrets
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mutoscope.serving import orders
from mutoscope.serving.database import Connection, Cursor, Row, open_database
from mutoscope.serving.orders import Order
from mutoscope.serving.processes import is_gone, is_of_this_boot, owner_of

Status = Literal["queued", "in_progress", "completed", "failed"]

LEASE = 30.0
"""Seconds without a heartbeat after which a job is given to another worker."""

FORGOTTEN = 10 * LEASE
"""Seconds of silence after which a worker on another machine is struck off."""

ATTEMPTS = 3
RETRY_WINDOW = 600.0
"""Seconds in which a keyless retry of the client is the same request."""

KEY_WINDOW = 86_400.0
"""Seconds for which an idempotency key is remembered."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
  number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL,
  status TEXT NOT NULL, progress INTEGER NOT NULL DEFAULT 0, task TEXT NOT NULL, data TEXT NOT NULL,
  fingerprint TEXT NOT NULL, created_at INTEGER NOT NULL, started_at REAL, completed_at INTEGER,
  expires_at INTEGER, error TEXT, attempts INTEGER NOT NULL DEFAULT 0, lease INTEGER NOT NULL DEFAULT 0,
  owner TEXT, lease_until REAL);
CREATE INDEX IF NOT EXISTS by_turn ON jobs (status, tenant, number);
CREATE INDEX IF NOT EXISTS by_tenant ON jobs (tenant, number);
CREATE TABLE IF NOT EXISTS idempotency (
  tenant TEXT NOT NULL, key TEXT NOT NULL, fingerprint TEXT NOT NULL, job TEXT NOT NULL,
  created_at REAL NOT NULL, PRIMARY KEY (tenant, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS turns (tenant TEXT PRIMARY KEY, turn INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS workers (
  owner TEXT PRIMARY KEY, name TEXT NOT NULL, model TEXT NOT NULL, device TEXT NOT NULL,
  seen REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS characters (
  id TEXT PRIMARY KEY, tenant TEXT NOT NULL, name TEXT NOT NULL, created_at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
  id TEXT PRIMARY KEY, type TEXT NOT NULL, job TEXT NOT NULL, created_at INTEGER NOT NULL,
  tries INTEGER NOT NULL DEFAULT 0, next_at REAL NOT NULL,
  delivered INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS hooks (job TEXT PRIMARY KEY, url TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS keys (
  id TEXT PRIMARY KEY, digest TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, name TEXT NOT NULL,
  created_at INTEGER NOT NULL, revoked_at INTEGER) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Job:
    """One row: what was ordered, where it stands. Times are Unix seconds; `lease` is the fencing token."""

    id: str
    number: int
    tenant: str
    status: Status
    progress: int
    order: Order
    created_at: int
    started_at: float | None
    completed_at: int | None
    expires_at: int | None
    error: dict[str, Any] | None
    attempts: int
    lease: int


@dataclass(frozen=True)
class Character:
    """A clip that shows somebody, kept under a name."""

    id: str
    name: str
    created_at: int


@dataclass(frozen=True)
class Event:
    """Something to tell a webhook: that of `url`, or the server's own ("")."""

    id: str
    type: str
    job: str
    created_at: int
    tries: int
    url: str = ""


@dataclass(frozen=True)
class Submission:
    """A request to queue an order: who asks, its fingerprint, and how a repetition of it is recognised.

    `webhook` is told of its end in the place of the server's own.
    """

    tenant: str
    order: Order
    fingerprint: str
    key: str | None = None
    is_retry: bool = False
    webhook: str = ""


Repetition = tuple[str, str | None, bool]
"""A request's fingerprint, its idempotency key, and whether the client says that it sends it again."""


@dataclass(frozen=True)
class QueueLimits:
    """Queued and running jobs, of one tenant and of all."""

    per_tenant: int = 100
    total: int = 1000


class QueueFull(Exception):
    """There is no room for another job now."""


class KeyReused(Exception):
    """The idempotency key was used for another request."""


class Store:
    """All tables in one database: a SQLite file, or the PostgreSQL of a URL, which several machines may share.

    Safe to use from threads and processes. Raises InputError when the database cannot be used.
    """

    def __init__(self, place: Path | str) -> None:
        self.path = place if isinstance(place, Path) else Path()
        self.database = open_database(place)
        self.database.build(SCHEMA)

    # --- queueing ---------------------------------------------------------------------------------

    def submit(self, asked: Submission, limits: QueueLimits) -> tuple[Job, bool]:
        """Queue an order; (job, True), or (the job that the same request made before, False).

        A request is the same under the same idempotency key, or as the client's own retry of an equal one.
        Raises QueueFull, and KeyReused for a key that named another request.
        """
        with self.database.transaction("submit") as db:
            same = (asked.tenant, asked.fingerprint, asked.key, asked.is_retry)
            earlier = _first(db.execute("SELECT * FROM jobs WHERE id = ?", (made_before(db, *same),)))
            if earlier is not None:
                return earlier, False
            active = "SELECT COUNT(*) FROM jobs WHERE status IN ('queued', 'in_progress')"
            mine = db.execute(active + " AND tenant = ?", (asked.tenant,)).fetchone()[0]
            if mine >= limits.per_tenant or db.execute(active).fetchone()[0] >= limits.total:
                raise QueueFull
            identifier = f"video_{secrets.token_hex(16)}"
            last = db.execute("SELECT created_at FROM jobs ORDER BY number DESC LIMIT 1").fetchone()
            db.execute(
                "INSERT INTO jobs (id, tenant, status, task, data, fingerprint, created_at) VALUES"
                " (?, ?, 'queued', ?, ?, ?, ?)",
                (
                    identifier,
                    asked.tenant,
                    asked.order.task,
                    orders.dump(asked.order),
                    asked.fingerprint,
                    max(int(time.time()), last["created_at"] if last is not None else 0),
                ),
            )
            remember(db, asked.tenant, asked.fingerprint, asked.key, identifier)
            if asked.webhook:
                db.execute("INSERT INTO hooks VALUES (?, ?)", (identifier, asked.webhook))
            job = _job(db.execute("SELECT * FROM jobs WHERE id = ?", (identifier,)).fetchone())
        return job, True

    # --- reading ----------------------------------------------------------------------------------

    def get(self, tenant: str, identifier: str) -> Job | None:
        """A job of this tenant; a foreign one is as unknown as one that never was."""
        query = "SELECT * FROM jobs WHERE id = ? AND tenant = ?"
        return _first(self.connection().execute(query, (identifier, tenant)))

    def find(self, identifier: str) -> Job | None:
        """A job of any tenant, for whoever owns the machine."""
        return _first(self.connection().execute("SELECT * FROM jobs WHERE id = ?", (identifier,)))

    def page(
        self, tenant: str, after: str | None, limit: int, ascending: bool
    ) -> tuple[list[Job], bool] | None:
        """Up to `limit` jobs beyond `after`, and whether more follow; None when `after` is unknown."""
        db = self.connection()
        beyond, direction, place = (">", "ASC", 0) if ascending else ("<", "DESC", 2**62)
        if after is not None:
            row = db.execute(
                "SELECT number FROM jobs WHERE id = ? AND tenant = ?", (after, tenant)
            ).fetchone()
            if row is None:
                return None
            place = row["number"]
        rows = db.execute(
            f"SELECT * FROM jobs WHERE tenant = ? AND number {beyond} ? ORDER BY number {direction} LIMIT ?",
            (tenant, place, limit + 1),
        ).fetchall()
        return [_job(row) for row in rows[:limit]], len(rows) > limit

    def all_jobs(self, limit: int) -> list[Job]:
        """The newest jobs of all tenants, for whoever owns the machine."""
        rows = self.connection().execute("SELECT * FROM jobs ORDER BY number DESC LIMIT ?", (limit,))
        return [_job(row) for row in rows]

    def counts(self) -> dict[str, int]:
        """Number of jobs in each status."""
        rows = self.connection().execute("SELECT status, COUNT(*) AS n FROM jobs GROUP BY status")
        return {row["status"]: row["n"] for row in rows}

    def oldest_queued(self) -> float:
        """Seconds that the first job in the queue has waited, 0 when it is empty."""
        query = "SELECT MIN(created_at) AS first FROM jobs WHERE status = 'queued'"
        first = self.connection().execute(query).fetchone()["first"]
        return 0.0 if first is None else max(0.0, time.time() - first)

    # --- working ----------------------------------------------------------------------------------

    def claim(self, owner: str) -> Job | None:
        """Take the next job: tenants take turns, each with its oldest. None when nothing is queued.

        A job that lost its worker comes after those that did not: if it was the job's fault, the others are done
        first, and if workers are being killed, no job meets them all. Claims never wait for each other: of two at the
        same instant both may serve one tenant.
        """
        waiting = "SELECT 1 FROM jobs WHERE status = 'queued' LIMIT 1"
        if self.connection().execute(waiting).fetchone() is None:
            return None
        now = self.database.now()
        with self.transaction() as db:
            row = db.execute(
                "SELECT jobs.number, jobs.tenant FROM jobs LEFT JOIN turns ON turns.tenant = jobs.tenant"
                " WHERE jobs.status = 'queued'"
                " ORDER BY COALESCE(turns.turn, 0), jobs.attempts, jobs.number LIMIT 1"
                + self.database.skip_taken
            ).fetchone()
            if row is None:
                return None
            db.execute(
                "INSERT INTO turns VALUES (?, (SELECT COALESCE(MAX(turn), 0) + 1 FROM turns))"
                " ON CONFLICT (tenant) DO UPDATE SET turn = excluded.turn",
                (row["tenant"],),
            )
            db.execute(
                "UPDATE jobs SET status = 'in_progress', progress = 0, attempts = attempts + 1,"
                " lease = lease + 1, owner = ?, lease_until = ?, started_at = ? WHERE number = ?",
                (owner, now + LEASE, time.time(), row["number"]),
            )
            return _job(db.execute("SELECT * FROM jobs WHERE number = ?", (row["number"],)).fetchone())

    def holds(self, job: Job) -> bool:
        """Whether this lease is still the valid one: False once the job is cancelled or taken over."""
        query = "SELECT 1 FROM jobs WHERE id = ? AND lease = ? AND status = 'in_progress'"
        return self.connection().execute(query, (job.id, job.lease)).fetchone() is not None

    def advance(self, job: Job, progress: int) -> bool:
        """Record progress in percent and renew the lease; False when the lease is no longer valid."""
        return self._guarded(job, "progress = ?, lease_until = ?", (progress, self.database.now() + LEASE))

    def renew(self, job: Job) -> bool:
        """Heartbeat of a job; False when the lease is no longer valid."""
        return self._guarded(job, "lease_until = ?", (self.database.now() + LEASE,))

    def release(self, job: Job) -> bool:
        """Give an unfinished job back to the queue without counting the attempt."""
        change = "status = 'queued', progress = 0, attempts = attempts - 1, owner = NULL"
        return self._guarded(job, change, ())

    def correct(self, job: Job, order: Order) -> bool:
        """Put what a job came to in the place of what was foreseen; False when the lease was lost."""
        return self._guarded(job, "data = ?", (orders.dump(order),))

    def complete(self, job: Job, expires_at: int | None) -> bool:
        """Publish: from here on the files of this lease are the video. False when the lease was lost."""
        change = "status = 'completed', progress = 100, completed_at = ?, expires_at = ?"
        return self._guarded(job, change, (_ended(job), expires_at), "video.completed")

    def fail(self, job: Job, error: dict[str, Any]) -> bool:
        """End a job with an error {code, message}; False when the lease was lost."""
        change = "status = 'failed', completed_at = ?, error = ?"
        return self._guarded(job, change, (_ended(job), json.dumps(error)), "video.failed")

    def _guarded(self, job: Job, change: str, values: tuple[Any, ...], event: str | None = None) -> bool:
        with self.transaction() as db:
            done = db.execute(
                f"UPDATE jobs SET {change} WHERE id = ? AND lease = ? AND status = 'in_progress'",
                (*values, job.id, job.lease),
            )
            if done.rowcount == 1 and event is not None:
                announce(db, event, job.id)
            return done.rowcount == 1

    def rescue(self) -> int:
        """Requeue the jobs whose worker is gone or silent, fail those that ended three workers."""
        db = self.connection()
        query = "SELECT id, owner, lease, attempts, lease_until FROM jobs WHERE status = 'in_progress'"
        rows = db.execute(query).fetchall()
        now = self.database.now() if rows else 0.0
        lost = [
            row
            for row in rows
            if not now <= row["lease_until"] <= now + 2 * LEASE or self._is_gone(row["owner"])
        ]
        for row in lost:
            guard = (row["id"], row["lease"])
            with self.transaction() as db:
                if row["attempts"] < ATTEMPTS:
                    db.execute(
                        "UPDATE jobs SET status = 'queued', progress = 0, owner = NULL, lease = lease + 1"
                        " WHERE id = ? AND lease = ? AND status = 'in_progress'",
                        guard,
                    )
                    continue
                error = {
                    "code": "worker_died",
                    "message": f"The worker ended {ATTEMPTS} times while making this video; try another size "
                    "or length, and read the server's log.",
                }
                done = db.execute(
                    "UPDATE jobs SET status = 'failed', completed_at = ?, error = ?, lease = lease + 1"
                    " WHERE id = ? AND lease = ? AND status = 'in_progress'",
                    (int(time.time()), json.dumps(error), *guard),
                )
                if done.rowcount == 1:
                    announce(db, "video.failed", row["id"])
        return len(lost)

    # --- ending -----------------------------------------------------------------------------------

    def cancel(self, tenant: str, identifier: str) -> Job | None:
        """Stop a queued or running job: it fails with code "cancelled". None when it is unknown."""
        error = json.dumps({"code": "cancelled", "message": "The job was cancelled."})
        with self.transaction() as db:
            done = db.execute(
                "UPDATE jobs SET status = 'failed', completed_at = ?, error = ?, lease = lease + 1"
                " WHERE id = ? AND tenant = ? AND status IN ('queued', 'in_progress')",
                (int(time.time()), error, identifier, tenant),
            )
            if done.rowcount == 1:
                announce(db, "video.failed", identifier)
        return self.get(tenant, identifier)

    def delete(self, tenant: str, identifier: str) -> Job | None:
        """Take a job out of the store and return it; its worker notices within one step."""
        with self.transaction() as db:
            query = "DELETE FROM jobs WHERE id = ? AND tenant = ? RETURNING *"
            return _first(db.execute(query, (identifier, tenant)))

    def expire(self) -> list[Job]:
        """Take out the jobs whose time is over, and return them; forget old idempotency keys and events."""
        now = time.time()
        with self.transaction() as db:
            db.execute("DELETE FROM idempotency WHERE created_at < ?", (now - KEY_WINDOW,))
            db.execute("DELETE FROM events WHERE created_at < ?", (now - KEY_WINDOW,))
            db.execute(
                "DELETE FROM hooks WHERE job NOT IN (SELECT job FROM events WHERE delivered = 0)"
                " AND job NOT IN (SELECT id FROM jobs WHERE status IN ('queued', 'in_progress'))"
            )
            rows = db.execute("DELETE FROM jobs WHERE expires_at <= ? RETURNING *", (now,)).fetchall()
            return [_job(row) for row in rows]

    def known_files(self) -> tuple[dict[str, int], set[str], set[str]]:
        """What the files belong to: lease of every job, folders of inputs in use, characters."""
        db = self.connection()
        rows = db.execute("SELECT id, lease, data FROM jobs").fetchall()
        leases = {row["id"]: row["lease"] for row in rows}
        inputs = {orders.parse(row["data"]).inputs for row in rows}
        return leases, inputs, {row["id"] for row in db.execute("SELECT id FROM characters")}

    def unfinished(self) -> set[str]:
        """The jobs that wait or are being made."""
        query = "SELECT id FROM jobs WHERE status IN ('queued', 'in_progress')"
        return {row["id"] for row in self.connection().execute(query)}

    # --- workers ----------------------------------------------------------------------------------

    def register(self, name: str, model: str, device: str) -> str:
        """Enter this process as a worker; returns its owner mark."""
        owner = owner_of(os.getpid())
        with self.transaction() as db:
            db.execute("DELETE FROM workers WHERE owner = ?", (owner,))
            row = (owner, name, model, device, self.database.now())
            db.execute("INSERT INTO workers VALUES (?, ?, ?, ?, ?)", row)
        return owner

    def beat(self, owner: str) -> bool:
        """Heartbeat of a worker; False when it has been written off."""
        with self.transaction() as db:
            done = db.execute("UPDATE workers SET seen = ? WHERE owner = ?", (self.database.now(), owner))
            return done.rowcount == 1

    def write_off(self, owner: str) -> None:
        with self.transaction() as db:
            db.execute("DELETE FROM workers WHERE owner = ?", (owner,))

    def workers(self) -> list[dict[str, Any]]:
        """Workers with the seconds since their last heartbeat; those whose process is gone are left out."""
        rows = self.connection().execute("SELECT * FROM workers ORDER BY name").fetchall()
        now = self.database.now()
        return [
            {
                "owner": row["owner"],
                "name": row["name"],
                "model": row["model"],
                "device": row["device"],
                "silent": max(0.0, now - row["seen"]),
            }
            for row in rows
            if not self._is_gone(row["owner"])
        ]

    def forget_gone_workers(self) -> None:
        """Strike off the workers whose process is gone and, of other machines, those long silent."""
        now = self.database.now()
        for row in self.connection().execute("SELECT owner, seen FROM workers").fetchall():
            is_lost = self.database.is_shared and now - row["seen"] > FORGOTTEN
            if is_lost or self._is_gone(row["owner"]):
                self.write_off(row["owner"])

    def _is_gone(self, owner: str) -> bool:
        """Whether a worker has certainly ended; of one on another machine only its silence tells."""
        return (is_of_this_boot(owner) or not self.database.is_shared) and is_gone(owner)

    # --- characters and events --------------------------------------------------------------------

    def add_character(self, tenant: str, character: Character, same: Repetition) -> Character:
        """Keep a character, or return the one that the same request made before. Raises KeyReused."""
        with self.database.transaction("character") as db:
            earlier = made_before(db, tenant, *same)
            if earlier is None:
                row = (character.id, tenant, character.name, character.created_at)
                db.execute("INSERT INTO characters VALUES (?, ?, ?, ?)", row)
                remember(db, tenant, *same[:2], character.id)
        return character if earlier is None else self.character(tenant, earlier) or character

    def character(self, tenant: str, identifier: str) -> Character | None:
        query = "SELECT * FROM characters WHERE id = ? AND tenant = ?"
        row = self.connection().execute(query, (identifier, tenant)).fetchone()
        return None if row is None else Character(row["id"], row["name"], row["created_at"])

    def due_events(self) -> list[Event]:
        """Undelivered events whose time has come, oldest first."""
        rows = self.connection().execute(
            "SELECT events.*, COALESCE(hooks.url, '') AS url FROM events LEFT JOIN hooks ON hooks.job = events.job"
            " WHERE delivered = 0 AND next_at <= ? ORDER BY created_at, next_at LIMIT 50",
            (time.time(),),
        )
        names = ("id", "type", "job", "created_at", "tries", "url")
        return [Event(**{name: row[name] for name in names}) for row in rows]

    def settle_event(self, event: Event, delivered: bool, next_at: float) -> None:
        """Record a try: delivered (or given up), or to be tried again at `next_at`."""
        with self.transaction() as db:
            db.execute(
                "UPDATE events SET tries = tries + 1, delivered = ?, next_at = ? WHERE id = ?",
                (int(delivered), next_at, event.id),
            )

    # --- the database -----------------------------------------------------------------------------

    def connection(self) -> Connection:
        """This thread's connection, for the tables that other files keep here too."""
        return self.database.connection()

    def transaction(self) -> AbstractContextManager[Connection]:
        """A transaction that writes, whole or not at all."""
        return self.database.transaction()


def made_before(db: Connection, tenant: str, fingerprint: str, key: str | None, is_retry: bool) -> str | None:
    """The id of what the same request made: under its key, or, as the client's own retry, of an equal one.

    Raises KeyReused for a key that named another request.
    """
    if key is None and not is_retry:
        return None
    row = db.execute(
        "SELECT fingerprint, job FROM idempotency WHERE tenant = ? AND key = ? AND created_at > ?",
        (tenant, key or _unnamed(fingerprint), time.time() - (KEY_WINDOW if key else RETRY_WINDOW)),
    ).fetchone()
    if row is None:
        return None
    if row["fingerprint"] != fingerprint:
        raise KeyReused
    made: str = row["job"]
    return made


def remember(db: Connection, tenant: str, fingerprint: str, key: str | None, identifier: str) -> None:
    """Note what a request made, as part of the transaction that makes it."""
    db.execute(
        "INSERT INTO idempotency VALUES (?, ?, ?, ?, ?) ON CONFLICT (tenant, key) DO UPDATE SET"
        " fingerprint = excluded.fingerprint, job = excluded.job, created_at = excluded.created_at",
        (tenant, key or _unnamed(fingerprint), fingerprint, identifier, time.time()),
    )


def _unnamed(fingerprint: str) -> str:
    """What stands for the key of a request without one: no header begins with a space."""
    return f" {fingerprint}"


def announce(db: Connection, kind: str, job: str) -> None:
    """Queue an event for the webhook, as part of the transaction that brings it about."""
    now = time.time()
    row = (f"evt_{secrets.token_hex(16)}", kind, job, int(now), now)
    db.execute("INSERT INTO events (id, type, job, created_at, next_at) VALUES (?, ?, ?, ?, ?)", row)


def _ended(job: Job) -> int:
    """Now; never before the job was made, whatever the clocks of two machines say."""
    return max(int(time.time()), job.created_at)


def _first(cursor: Cursor) -> Job | None:
    row = cursor.fetchone()
    return None if row is None else _job(row)


def _job(row: Row) -> Job:
    return Job(
        id=row["id"],
        number=row["number"],
        tenant=row["tenant"],
        status=row["status"],
        progress=row["progress"],
        order=orders.parse(row["data"]),
        created_at=row["created_at"],
        started_at=row["started_at"],
        completed_at=row["completed_at"],
        expires_at=row["expires_at"],
        error=None if row["error"] is None else json.loads(row["error"]),
        attempts=row["attempts"],
        lease=row["lease"],
    )
