"""BentoML's own client hands in videos and asks for jobs."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bentoml
import pytest
from bentoml.exceptions import BentoMLException

from tests import films
from tests.fakes import FakePredictor
from tests.serving import server_of

COUNT = 4


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with server_of(FakePredictor()) as url:
        yield url


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return films.film(tmp_path_factory.mktemp("films") / "a.mp4", films.frames(COUNT))


def test_a_job_from_its_file_to_its_result(url: str, film: Path) -> None:
    with bentoml.SyncHTTPClient(url) as made:
        client: Any = made
        job = client.process_video(video=film, prompt="Please segment it.", every_nth=2)
        deadline = time.monotonic() + 20
        while (status := client.job(job_id=job["id"]))["state"] in ("queued", "running"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert (status["state"], status["frames_done"]) == ("done", 2)
        result = client.job_result(job_id=job["id"], mask_format="none", start=1)
        assert [frame["source_index"] for frame in result["segments"][0]["frames"]] == [2]
        assert client.cancel_job(job_id=job["id"])["state"] == "done"
        with pytest.raises(BentoMLException, match="no such job"):
            client.job(job_id="x")


def test_the_asynchronous_client_waits_for_the_result(url: str, film: Path) -> None:
    async def ask() -> Any:
        async with bentoml.AsyncHTTPClient(url) as made:
            client: Any = made
            return await client.process_video(video=film, prompts=["Segment a.", "Segment b."], wait=20)

    assert [track["id"] for track in asyncio.run(ask())["segments"]] == [0, 1]
