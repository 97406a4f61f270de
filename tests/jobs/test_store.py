"""The store: queue, keys, owners, and what is there after the process is gone."""

import multiprocessing
import sqlite3
from pathlib import Path

import pytest

from sa2va_bento.errors import BadRequestError, NoRoomError, NoSuchJobError, TooManyJobsError
from sa2va_bento.jobs.job import VIDEO, Job, JobError, JobRequest, State
from sa2va_bento.jobs.store import JobStore, new_id
from sa2va_bento.media.videos.selection import Selection

REQUEST = JobRequest(
    prompts=("a", "b"),
    histories=((("user", "hi"), ("assistant", "ho")), ()),
    files=(VIDEO,),
    selection=Selection(start_s=1.5, fps=2),
    frames_seen=(0, 3),
    warnings=("x",),
)


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path / "jobs.sqlite3")


def add(store: JobStore, owner: str = "", key: str | None = None, digest: str = "d", most: int = 10) -> Job:
    return store.add(new_id(), owner, REQUEST, digest, key, most)[0]


def test_a_job_comes_back_as_it_was(store: JobStore, tmp_path: Path) -> None:
    job = add(store)
    again = JobStore(tmp_path / "jobs.sqlite3").get(job.id, "")
    assert again == job
    assert again.request == REQUEST
    assert (again.state, again.place, again.attempt) == (State.QUEUED, 0, 0)


def test_places_count_what_waits_and_runs_before(store: JobStore) -> None:
    first, second, third = add(store), add(store), add(store)
    store.start(first.id)
    assert [store.get(job.id, "").place for job in (first, second, third)] == [None, 1, 2]
    store.finish(first.id, State.DONE)
    assert store.get(third.id, "").place == 1
    assert [job.id for job in store.live()] == [second.id, third.id]


def test_nobody_sees_the_jobs_of_others(store: JobStore) -> None:
    job = add(store, owner="anna")
    assert store.get(job.id, "anna").id == job.id
    for owner in ("", "ben"):
        with pytest.raises(NoSuchJobError):
            store.get(job.id, owner)


def test_the_same_key_means_the_same_job(store: JobStore) -> None:
    job = add(store, key="k")
    again, is_new = store.add(new_id(), "", REQUEST, "d", "k", 10)
    assert (again.id, is_new) == (job.id, False)
    assert add(store, owner="ben", key="k").id != job.id
    with pytest.raises(BadRequestError, match="Idempotency-Key"):
        add(store, key="k", digest="other")


def test_so_many_and_no_more(store: JobStore) -> None:
    jobs = [add(store, most=2) for _ in range(2)]
    with pytest.raises(TooManyJobsError):
        add(store, most=2)
    store.finish(jobs[0].id, State.FAILED, JobError(400, "why"))
    assert store.get(jobs[0].id, "").error == JobError(400, "why")
    add(store, most=2)


def test_what_has_ended_stays_so(store: JobStore) -> None:
    job = add(store)
    store.start(job.id)
    store.finish(job.id, State.DONE)
    store.finish(job.id, State.FAILED, JobError(500, "late"))
    store.cancel(job.id)
    assert store.start(job.id) is None
    assert store.get(job.id, "").state is State.DONE


def test_a_job_that_waits_is_cancelled_at_once_and_one_that_runs_is_told(store: JobStore) -> None:
    waits, runs = add(store), add(store)
    store.start(runs.id)
    store.cancel(waits.id)
    store.cancel(runs.id)
    assert store.get(waits.id, "").state is State.CANCELLED
    assert store.get(runs.id, "").state is State.RUNNING
    assert store.is_cancel_wanted(runs.id)
    assert store.start(runs.id) is None


def test_what_ended_long_ago_is_found(store: JobStore) -> None:
    job = add(store)
    store.finish(job.id, State.DONE)
    finished = store.get(job.id, "").finished
    assert finished
    assert store.finished_before(finished) == []
    assert store.finished_before(finished + 1) == [job.id]
    store.forget(job.id)
    with pytest.raises(NoSuchJobError):
        store.get(job.id, "")


def _add_some(path: str, count: int) -> None:
    store = JobStore(Path(path))
    for _ in range(count):
        add(store, most=1000)


def test_several_processes_share_a_store(store: JobStore, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_add_some, args=(str(tmp_path / "jobs.sqlite3"), 20)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(store.live()) == 60


def fill(store: JobStore) -> None:
    for _ in range(200):
        add(store, most=1000)


def test_a_full_disk_is_said(store: JobStore) -> None:
    job = add(store)
    with store._connection() as connection:
        connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}")
    with pytest.raises(NoRoomError):
        fill(store)
    assert store.get(job.id, "") == job
    with store._connection() as connection:
        assert not connection.in_transaction
        assert isinstance(connection, sqlite3.Connection)
