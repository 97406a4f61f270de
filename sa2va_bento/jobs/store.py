"""The jobs in SQLite (write-ahead log): what is accepted is on disk before its id is told, and stays there until it is
finished and has been kept for a while. Any number of processes may share a store; each call is a transaction."""

import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sa2va_bento.errors import BadRequestError, NoRoomError, NoSuchJobError, TooManyJobsError
from sa2va_bento.jobs.job import Job, JobError, JobRequest, State

SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    state TEXT NOT NULL,
    request TEXT NOT NULL,
    idempotency_key TEXT,
    digest TEXT NOT NULL,
    created REAL NOT NULL,
    started REAL,
    finished REAL,
    attempt INTEGER NOT NULL DEFAULT 0,
    frames_done INTEGER NOT NULL DEFAULT 0,
    frames_total INTEGER,
    error_status INTEGER,
    error TEXT,
    cancel INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX IF NOT EXISTS one_job_a_key ON jobs (owner, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX IF NOT EXISTS by_state ON jobs (state, number);
"""
BUSY_S = 10.0
"""How long a writer waits for another."""
LIVE = (State.QUEUED, State.RUNNING)


class JobStore:
    """The table of jobs. Methods may be called from any thread.

    Raises:
        NoRoomError: from any method that writes, where the disk is full.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._local = path, threading.local()
        with self._connection() as connection:
            connection.executescript(SCHEMA)

    def add(
        self, job_id: str, owner: str, request: JobRequest, digest: str, key: str | None, max_live: int
    ) -> tuple[Job, bool]:
        """Accepts a job, and says whether it is new: with a key that its owner has used before, for the same request,
        it is the job of that time.

        Raises:
            TooManyJobsError: there are `max_live` that wait or run.
            BadRequestError: the key was used for another request.
        """
        with self._writing() as connection:
            known = self._by_key(connection, owner, key, digest)
            if known:
                return known, False
            self._check_room(connection, max_live)
            connection.execute(
                "INSERT INTO jobs (id, owner, state, request, idempotency_key, digest, created)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (job_id, owner, State.QUEUED, request.to_json(), key, digest, time.time()),
            )
            return self._job(connection, job_id), True

    def find(self, owner: str, key: str | None, digest: str) -> Job | None:
        """The job that was made with a key before. Raises BadRequestError where it was for another request."""
        with self._connection() as connection:
            return self._by_key(connection, owner, key, digest)

    def check_room(self, max_live: int) -> None:
        """Raises TooManyJobsError where another job would not be taken now."""
        with self._connection() as connection:
            self._check_room(connection, max_live)

    def get(self, job_id: str, owner: str) -> Job:
        """Raises NoSuchJobError, of somebody else's too."""
        with self._connection() as connection:
            job = self._job(connection, job_id)
        if job.owner != owner:
            raise NoSuchJobError("there is no such job")
        return job

    def live(self) -> list[Job]:
        """Those that wait or run, oldest first."""
        with self._connection() as connection:
            rows = connection.execute("SELECT id FROM jobs WHERE state IN (?, ?) ORDER BY number", LIVE).fetchall()
            return [self._job(connection, row[0]) for row in rows]

    def ids(self) -> set[str]:
        with self._connection() as connection:
            return {row[0] for row in connection.execute("SELECT id FROM jobs")}

    def start(self, job_id: str) -> Job | None:
        """Marks a job as running, once more where it was; None where it is not to run any more."""
        with self._writing() as connection:
            changed = connection.execute(
                "UPDATE jobs SET state = ?, started = ?, attempt = attempt + 1, frames_done = 0"
                " WHERE id = ? AND state IN (?, ?) AND cancel = 0",
                (State.RUNNING, time.time(), job_id, *LIVE),
            ).rowcount
            return self._job(connection, job_id) if changed else None

    def progress(self, job_id: str, frames_done: int, frames_total: int | None) -> None:
        with self._writing() as connection:
            connection.execute(
                "UPDATE jobs SET frames_done = ?, frames_total = ? WHERE id = ?", (frames_done, frames_total, job_id)
            )

    def finish(self, job_id: str, state: State, error: JobError | None = None) -> None:
        """Ends a job, unless it has ended."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE jobs SET state = ?, finished = ?, error_status = ?, error = ? WHERE id = ? AND state IN (?, ?)",
                (state, time.time(), error and error.status, error and error.message, job_id, *LIVE),
            )

    def cancel(self, job_id: str) -> None:
        """A job that waits ends; of one that runs its worker is told."""
        with self._writing() as connection:
            connection.execute("UPDATE jobs SET cancel = 1 WHERE id = ?", (job_id,))
            connection.execute(
                "UPDATE jobs SET state = ?, finished = ? WHERE id = ? AND state = ?",
                (State.CANCELLED, time.time(), job_id, State.QUEUED),
            )

    def is_cancel_wanted(self, job_id: str) -> bool:
        with self._connection() as connection:
            row = connection.execute("SELECT cancel FROM jobs WHERE id = ?", (job_id,)).fetchone()
            return row is None or bool(row[0])

    def forget(self, job_id: str) -> None:
        with self._writing() as connection:
            connection.execute("DELETE FROM jobs WHERE id = ?", (job_id,))

    def finished_before(self, moment: float) -> list[str]:
        """Ids of the jobs that ended before a time."""
        with self._connection() as connection:
            return [row[0] for row in connection.execute("SELECT id FROM jobs WHERE finished < ?", (moment,))]

    def _by_key(self, connection: sqlite3.Connection, owner: str, key: str | None, digest: str) -> Job | None:
        if key is None:
            return None
        row = connection.execute(
            "SELECT id, digest FROM jobs WHERE owner = ? AND idempotency_key = ?", (owner, key)
        ).fetchone()
        if row is None:
            return None
        if row[1] != digest:
            raise BadRequestError("Idempotency-Key: it was used for another request")
        return self._job(connection, row[0])

    def _check_room(self, connection: sqlite3.Connection, max_live: int) -> None:
        (live,) = connection.execute("SELECT count(*) FROM jobs WHERE state IN (?, ?)", LIVE).fetchone()
        if live >= max_live:
            raise TooManyJobsError(f"{live} jobs wait or run, at most {max_live} are taken; try again later")

    def _job(self, connection: sqlite3.Connection, job_id: str) -> Job:
        row = connection.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        if row is None:
            raise NoSuchJobError("there is no such job")
        place = None
        if row["state"] == State.QUEUED:
            (place,) = connection.execute(
                "SELECT count(*) FROM jobs WHERE state IN (?, ?) AND number < ?", (*LIVE, row["number"])
            ).fetchone()
        error = JobError(row["error_status"], row["error"]) if row["error"] is not None else None
        return Job(
            id=row["id"],
            owner=row["owner"],
            state=State(row["state"]),
            request=JobRequest.from_json(row["request"]),
            created=row["created"],
            started=row["started"],
            finished=row["finished"],
            attempt=row["attempt"],
            frames_done=row["frames_done"],
            frames_total=row["frames_total"],
            error=error,
            place=place,
            is_cancel_wanted=bool(row["cancel"]),
        )

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """This thread's own connection."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None)
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            self._local.connection = connection
        try:
            yield connection
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE):
                raise NoRoomError("there is no room on the disk for jobs") from None
            raise

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that nobody's write can come between."""
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise


def new_id() -> str:
    """An id that nobody can guess."""
    return secrets.token_urlsafe(16)
