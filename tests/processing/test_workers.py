"""Memory is given back when nothing comes, and now and then where something always comes."""

import threading

import pytest

from sa2va_bento.processing import workers
from sa2va_bento.processing.workers import WorkerPool


@pytest.mark.parametrize(("busy_s", "given_back"), [(0.0, True), (1e9, False)])
def test_a_pool_that_is_never_idle_tidies_up(busy_s: float, given_back: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "BUSY_S", busy_s)
    monkeypatch.setattr(workers, "IDLE_S", 1e6)
    tidied = threading.Event()
    pool = WorkerPool(1, on_idle=tidied.set)
    futures = [pool.submit(lambda number=number: number) for number in range(50)]
    assert [future.result(10) for future in futures] == list(range(50))
    assert tidied.is_set() == given_back
    pool.close()


def test_an_idle_pool_tidies_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "IDLE_S", 0.01)
    count, tidied = [0], threading.Event()

    def tidy() -> None:
        count[0] += 1
        tidied.set()

    pool = WorkerPool(2, on_idle=tidy)
    pool.submit(lambda: None).result(10)
    assert tidied.wait(10)
    pool.close()
    assert count == [1]
