"""Batches: files of requests, each made as if it had come alone, a few at a time, their answers kept in files.

A line is sent to the application under an idempotency key of its own, so that a server that was killed between the
job and its record finds the same job again. A batch has at most AT_ONCE jobs in the queue: who waits for a single
video does not wait for all of a batch.
"""

import hashlib
import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mutoscope.serving import orders
from mutoscope.serving.database import Connection, Row
from mutoscope.serving.jobs import (
    KEY_WINDOW,
    RETRY_WINDOW,
    Job,
    KeyReused,
    Store,
    announce,
    made_before,
    remember,
)
from mutoscope.serving.protocol import (
    BatchCounts,
    BatchFault,
    BatchFaults,
    BatchReply,
    FileReply,
    video_reply,
)

State = Literal["in_progress", "completed", "failed", "cancelling", "cancelled", "expired"]

LINES = 10_000
WINDOW = 86_400
"""Seconds that a batch has; what is not begun by then is not made."""

AT_ONCE = 4
SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
  number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, purpose TEXT NOT NULL,
  filename TEXT NOT NULL, content BLOB NOT NULL, created_at INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS batches (
  number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, status TEXT NOT NULL,
  endpoint TEXT NOT NULL, input_file TEXT NOT NULL, metadata TEXT, faults TEXT, total INTEGER NOT NULL,
  created_at INTEGER NOT NULL, cancelling_at INTEGER, ended_at INTEGER, completed INTEGER, failed INTEGER,
  output_file TEXT, error_file TEXT, fingerprint TEXT NOT NULL, key TEXT);
CREATE INDEX IF NOT EXISTS by_status ON batches (status);
CREATE TABLE IF NOT EXISTS batch_lines (
  batch TEXT NOT NULL, place INTEGER NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL, code INTEGER, reply TEXT,
  job TEXT, PRIMARY KEY (batch, place)) WITHOUT ROWID;
"""
OPEN = ("in_progress", "cancelling")


@dataclass(frozen=True)
class Batch:
    """A row: whose it is, where its lines go, how it stands. Times are Unix seconds."""

    id: str
    tenant: str
    status: State
    endpoint: str
    input_file: str
    metadata: dict[str, str] | None
    faults: list[BatchFault]
    total: int
    created_at: int
    cancelling_at: int | None
    ended_at: int | None
    completed: int
    failed: int
    output_file: str | None
    error_file: str | None


@dataclass(frozen=True)
class Asked:
    """A request for a batch: who asks, for what, and how a repetition of it is recognised."""

    tenant: str
    endpoint: str
    input_file: str
    metadata: dict[str, str] | None = None
    key: str | None = None
    is_retry: bool = False

    @property
    def fingerprint(self) -> str:
        fields = {"endpoint": self.endpoint, "input_file": self.input_file, "metadata": self.metadata}
        return orders.fingerprint(fields)


@dataclass(frozen=True)
class Line:
    """One request: the caller's name for it, its body as JSON, and the answer once there is one."""

    batch: str
    place: int
    name: str
    body: str
    code: int | None
    reply: str | None
    job: str | None


class Bundles:
    """The tables of files and batches, beside those of the jobs."""

    def __init__(self, store: Store) -> None:
        self.store = store
        store.database.build(SCHEMA)

    # --- files --------------------------------------------------------------------------------------

    def add_file(
        self,
        tenant: str,
        filename: str,
        content: bytes,
        purpose: str = "batch",
        key: str | None = None,
        is_retry: bool = False,
    ) -> FileReply:
        """Keep a file, or return the one that the same request made before. Raises KeyReused."""
        digest = hashlib.sha256(content).hexdigest()
        same = orders.fingerprint({"file": filename, "purpose": purpose, "sha256": digest})
        with self.store.database.transaction("file") as db:
            earlier = made_before(db, tenant, same, key, is_retry)
            found = None if earlier is None else self.file(tenant, earlier)
            if found is None:
                identifier = _keep(db, tenant, purpose, filename, content)
                remember(db, tenant, same, key, identifier)
                found = self.file(tenant, identifier)
        assert found is not None
        return found

    def file(self, tenant: str, identifier: str) -> FileReply | None:
        """What is known of a file of this tenant."""
        query = f"SELECT {FILE_COLUMNS} FROM files WHERE id = ? AND tenant = ?"
        row = self.store.connection().execute(query, (identifier, tenant)).fetchone()
        return None if row is None else _file(row)

    def content(self, tenant: str, identifier: str) -> bytes | None:
        query = "SELECT content FROM files WHERE id = ? AND tenant = ?"
        row = self.store.connection().execute(query, (identifier, tenant)).fetchone()
        return None if row is None else row["content"]

    def files(
        self, tenant: str, after: str | None, limit: int, ascending: bool, purpose: str | None
    ) -> tuple[list[FileReply], bool] | None:
        """Up to `limit` files beyond `after`, and whether more follow; None when `after` is unknown."""
        only = "" if purpose is None else " AND purpose = :purpose"
        found = self._page("files", FILE_COLUMNS, tenant, after, limit, ascending, only, purpose)
        return None if found is None else ([_file(row) for row in found[0]], found[1])

    def delete_file(self, tenant: str, identifier: str) -> bool:
        """Remove a file; the batches that were made of it go on."""
        with self.store.transaction() as db:
            done = db.execute("DELETE FROM files WHERE id = ? AND tenant = ?", (identifier, tenant))
            return done.rowcount == 1

    # --- batches ------------------------------------------------------------------------------------

    def begin(self, asked: Asked) -> Batch | None:
        """A batch of the lines of a file, failed at once when one of them is none; None for an unknown file.

        The same request again (see `Store.submit`) gets the batch that it made before; raises KeyReused for a key
        that named another request.
        """
        content = self.content(asked.tenant, asked.input_file)
        if content is None:
            return None
        lines, faults = read_lines(content, asked.endpoint)
        now = int(time.time())
        row = {
            "id": f"batch_{secrets.token_hex(16)}",
            "tenant": asked.tenant,
            "status": "failed" if faults else "in_progress",
            "endpoint": asked.endpoint,
            "input_file": asked.input_file,
            "metadata": None if asked.metadata is None else json.dumps(asked.metadata),
            "faults": json.dumps([fault.model_dump() for fault in faults]),
            "total": len(lines),
            "created_at": now,
            "ended_at": now if faults else None,
            "completed": 0,
            "failed": 0,
            "fingerprint": asked.fingerprint,
            "key": asked.key,
        }
        with self.store.transaction() as db:
            earlier = _earlier(db, asked)
            if earlier is not None:
                return self.batch(asked.tenant, earlier)
            names = ", ".join(row)
            places = ", ".join(f":{name}" for name in row)
            db.execute(f"INSERT INTO batches ({names}) VALUES ({places})", row)
            if not faults:
                texts = [(row["id"], place, name, body) for place, (name, body) in enumerate(lines)]
                db.executemany(
                    "INSERT INTO batch_lines (batch, place, name, body) VALUES (?, ?, ?, ?)", texts
                )
        return self.batch(asked.tenant, str(row["id"]))

    def batch(self, tenant: str, identifier: str) -> Batch | None:
        query = "SELECT * FROM batches WHERE id = ? AND tenant = ?"
        row = self.store.connection().execute(query, (identifier, tenant)).fetchone()
        return None if row is None else self._batch(row)

    def batches(self, tenant: str, after: str | None, limit: int) -> tuple[list[Batch], bool] | None:
        """Up to `limit` batches beyond `after`, newest first, and whether more follow."""
        found = self._page("batches", "*", tenant, after, limit, ascending=False)
        return None if found is None else ([self._batch(row) for row in found[0]], found[1])

    def cancel(self, tenant: str, identifier: str) -> Batch | None:
        """Begin nothing more of a batch and stop what is being made; one that has ended stays as it is."""
        with self.store.transaction() as db:
            db.execute(
                "UPDATE batches SET status = 'cancelling', cancelling_at = ?"
                " WHERE id = ? AND tenant = ? AND status = 'in_progress'",
                (int(time.time()), identifier, tenant),
            )
        return self.batch(tenant, identifier)

    def open_batches(self) -> list[Batch]:
        """What is to be gone on with, of all tenants, oldest first."""
        query = "SELECT * FROM batches WHERE status IN (?, ?) ORDER BY number"
        return [self._batch(row) for row in self.store.connection().execute(query, OPEN)]

    def waiting(self, batch: Batch) -> list[Line]:
        """The lines that are to be sent now: the first unanswered ones, as many as there is room for."""
        db = self.store.connection()
        running = db.execute(
            "SELECT COUNT(*) FROM batch_lines JOIN jobs ON jobs.id = batch_lines.job WHERE batch = ?"
            " AND jobs.status IN ('queued', 'in_progress')",
            (batch.id,),
        ).fetchone()[0]
        query = "SELECT * FROM batch_lines WHERE batch = ? AND code IS NULL ORDER BY place LIMIT ?"
        return [_line(row) for row in db.execute(query, (batch.id, max(0, AT_ONCE - running)))]

    def answer(self, line: Line, code: int, reply: str) -> None:
        """Record what the application said to a line."""
        job = json.loads(reply)["id"] if code == 200 else None
        with self.store.transaction() as db:
            db.execute(
                "UPDATE batch_lines SET code = ?, reply = ?, job = ? WHERE batch = ? AND place = ?",
                (code, reply, job, line.batch, line.place),
            )

    def unfinished(self, batch: Batch) -> list[str]:
        """The jobs of a batch that wait or are being made."""
        query = (
            "SELECT job FROM batch_lines JOIN jobs ON jobs.id = batch_lines.job WHERE batch = ?"
            " AND jobs.status IN ('queued', 'in_progress')"
        )
        return [row["job"] for row in self.store.connection().execute(query, (batch.id,))]

    def is_open(self, batch: Batch) -> bool:
        """Whether a line has no answer yet, or a job of the batch waits or is being made."""
        query = "SELECT 1 FROM batch_lines WHERE batch = ? AND code IS NULL LIMIT 1"
        unanswered = self.store.connection().execute(query, (batch.id,)).fetchone()
        return unanswered is not None or bool(self.unfinished(batch))

    def finish(self, batch: Batch, status: State) -> None:
        """End a batch: what became of its lines goes into two files, of those that succeeded and of the others."""
        good, bad = list[str](), list[str]()
        query = "SELECT * FROM batch_lines WHERE batch = ? ORDER BY place"
        for line in map(_line, self.store.connection().execute(query, (batch.id,)).fetchall()):
            job = self.store.get(batch.tenant, line.job) if line.job else None
            (good if job is not None and job.status == "completed" else bad).append(told(line, job, status))
        with self.store.transaction() as db:
            guard = "SELECT 1 FROM batches WHERE id = ? AND status IN (?, ?)"
            if db.execute(guard, (batch.id, *OPEN)).fetchone() is None:
                return
            files = [
                _keep(db, batch.tenant, "batch_output", f"{batch.id}_{name}.jsonl", "".join(lines).encode())
                if lines
                else None
                for name, lines in (("output", good), ("error", bad))
            ]
            row = (status, int(time.time()), len(good), len(bad), *files, batch.id)
            db.execute(
                "UPDATE batches SET status = ?, ended_at = ?, completed = ?, failed = ?, output_file = ?,"
                " error_file = ? WHERE id = ?",
                row,
            )
            db.execute("DELETE FROM batch_lines WHERE batch = ?", (batch.id,))
            announce(db, f"batch.{status}", batch.id)

    def _batch(self, row: Row) -> Batch:
        completed, failed = row["completed"], row["failed"]
        if row["status"] in OPEN:
            completed, failed = (
                self.store.connection()
                .execute(
                    "SELECT COUNT(CASE WHEN jobs.status = 'completed' THEN 1 END),"
                    " COUNT(CASE WHEN code IS NOT NULL AND COALESCE(jobs.status, 'failed') = 'failed' THEN 1 END)"
                    " FROM batch_lines LEFT JOIN jobs ON jobs.id = batch_lines.job WHERE batch = ?",
                    (row["id"],),
                )
                .fetchone()
            )
        return Batch(
            id=row["id"],
            tenant=row["tenant"],
            status=row["status"],
            endpoint=row["endpoint"],
            input_file=row["input_file"],
            metadata=None if row["metadata"] is None else json.loads(row["metadata"]),
            faults=[BatchFault(**fault) for fault in json.loads(row["faults"])],
            total=row["total"],
            created_at=row["created_at"],
            cancelling_at=row["cancelling_at"],
            ended_at=row["ended_at"],
            completed=completed,
            failed=failed,
            output_file=row["output_file"],
            error_file=row["error_file"],
        )

    def _page(
        self,
        table: Literal["files", "batches"],
        columns: str,
        tenant: str,
        after: str | None,
        limit: int,
        ascending: bool,
        only: str = "",
        purpose: str | None = None,
    ) -> tuple[list[Row], bool] | None:
        db = self.store.connection()
        beyond, direction, place = (">", "ASC", 0) if ascending else ("<", "DESC", 2**62)
        if after is not None:
            query = f"SELECT number FROM {table} WHERE id = ? AND tenant = ?"
            row = db.execute(query, (after, tenant)).fetchone()
            if row is None:
                return None
            place = row["number"]
        rows = db.execute(
            f"SELECT {columns} FROM {table} WHERE tenant = :tenant AND number {beyond} :place{only}"
            f" ORDER BY number {direction} LIMIT :limit",
            {"tenant": tenant, "place": place, "purpose": purpose, "limit": limit + 1},
        ).fetchall()
        return rows[:limit], len(rows) > limit


def _earlier(db: Connection, asked: Asked) -> str | None:
    """The batch that the same request made before."""
    if asked.key is not None:
        query = "SELECT id, fingerprint FROM batches WHERE tenant = ? AND key = ? AND created_at > ?"
        row = db.execute(query, (asked.tenant, asked.key, time.time() - KEY_WINDOW)).fetchone()
        if row is not None and row["fingerprint"] != asked.fingerprint:
            raise KeyReused
    elif asked.is_retry:
        query = "SELECT id FROM batches WHERE tenant = ? AND fingerprint = ? AND created_at >= ? ORDER BY number DESC"
        found = (asked.tenant, asked.fingerprint, time.time() - RETRY_WINDOW)
        row = db.execute(query, found).fetchone()
    else:
        return None
    return None if row is None else row["id"]


FILE_COLUMNS = "number, id, tenant, purpose, filename, LENGTH(content) AS bytes, created_at"


def read_lines(content: bytes, endpoint: str) -> tuple[list[tuple[str, str]], list[BatchFault]]:
    """The requests of a file as (name, body as JSON), and what is wrong with it (the first 100 faults)."""
    lines: list[tuple[str, str]] = []
    faults: list[BatchFault] = []
    names: set[str] = set()
    for number, text in enumerate(content.split(b"\n"), 1):
        if not text.strip():
            continue
        fault = None
        try:
            line = json.loads(text.decode())
        except (ValueError, RecursionError):
            fault = BatchFault(code="invalid_json_line", line=number, message="The line is not valid JSON.")
        else:
            fault = _fault(line, number, endpoint, names)
        if fault is None:
            names.add(line["custom_id"])
            lines.append((line["custom_id"], json.dumps(line["body"])))
        elif len(faults) < 100:
            faults.append(fault)
    if not lines and not faults:
        faults.append(BatchFault(code="empty_file", line=None, message="The file has no requests."))
    if len(lines) > LINES:
        words = f"The file has {len(lines)} requests; a batch has at most {LINES}."
        faults.append(BatchFault(code="too_many_requests", line=None, message=words))
    return lines, faults


def _fault(line: Any, number: int, endpoint: str, names: set[str]) -> BatchFault | None:
    def says(code: str, param: str, message: str) -> BatchFault:
        return BatchFault(code=code, line=number, message=message, param=param)

    if not isinstance(line, dict) or not isinstance(line.get("body"), dict):
        return says("invalid_request", "body", "The line is not an object with a body that is an object.")
    name = line.get("custom_id")
    if not isinstance(name, str) or not 1 <= len(name) <= 512 or not _is_text(name):
        return says("invalid_custom_id", "custom_id", "The custom_id is not a text of 1 to 512 characters.")
    if name in names:
        return says("duplicate_custom_id", "custom_id", "Another line has the same custom_id.")
    if line.get("method") != "POST":
        return says("invalid_method", "method", "The method of a line is POST.")
    if line.get("url") != endpoint:
        return says("mismatched_url", "url", f"The url of a line is the endpoint of the batch, {endpoint}.")
    return None


def _is_text(name: str) -> bool:
    """Whether no half of a pair is in it, which UTF-8 cannot say."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def told(line: Line, job: Job | None, ended: State) -> str:
    """What became of a line, as a line of the file of answers."""
    error, response = None, None
    if line.code is None:
        words = {"cancelled": "The batch was cancelled.", "expired": "The batch ended before this was begun."}
        error = {"code": f"batch_{ended}", "message": words.get(ended, "This was not begun.")}
    elif line.job is not None and job is None:
        error = {"code": "video_deleted", "message": "The video was deleted."}
    else:
        body = video_reply(job).model_dump() if job is not None else json.loads(line.reply or "null")
        response = {"status_code": line.code, "request_id": line.job or "", "body": body}
    identifier = f"batch_req_{secrets.token_hex(16)}"
    answer = {"id": identifier, "custom_id": line.name, "response": response, "error": error}
    return json.dumps(answer) + "\n"


def batch_reply(batch: Batch) -> BatchReply:
    def when(status: State) -> int | None:
        return batch.ended_at if batch.status == status else None

    return BatchReply(
        id=batch.id,
        endpoint=batch.endpoint,
        input_file_id=batch.input_file,
        status=batch.status,
        errors=BatchFaults(data=batch.faults) if batch.faults else None,
        output_file_id=batch.output_file,
        error_file_id=batch.error_file,
        created_at=batch.created_at,
        in_progress_at=None if batch.status == "failed" else batch.created_at,
        expires_at=batch.created_at + WINDOW,
        completed_at=when("completed"),
        failed_at=when("failed"),
        cancelling_at=batch.cancelling_at,
        cancelled_at=when("cancelled"),
        expired_at=when("expired"),
        request_counts=BatchCounts(total=batch.total, completed=batch.completed, failed=batch.failed),
        metadata=batch.metadata,
    )


def _keep(db: Connection, tenant: str, purpose: str, filename: str, content: bytes) -> str:
    identifier = f"file_{secrets.token_hex(16)}"
    row: Sequence[Any] = (identifier, tenant, purpose, filename, content, int(time.time()))
    columns = "(id, tenant, purpose, filename, content, created_at)"
    db.execute(f"INSERT INTO files {columns} VALUES (?, ?, ?, ?, ?, ?)", row)
    return identifier


def _file(row: Row) -> FileReply:
    return FileReply(**{name: row[name] for name in ("id", "bytes", "created_at", "filename", "purpose")})


def _line(row: Row) -> Line:
    return Line(**dict(row))
