"""Video jobs over HTTP with a model that isn't one: what is accepted, how it is watched, fetched, stopped and kept."""

import base64
import io
import json
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from starlette.testclient import TestClient

from sa2va_bento.errors import InferenceError
from tests import films
from tests.events import Event, read_events
from tests.fakes import FakePredictor
from tests.serving import client_of, server_of

SEGMENT = {"prompt": "Please segment the red circle."}
COUNT = 6


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return films.film(tmp_path_factory.mktemp("films") / "a.mp4", films.frames(COUNT)).read_bytes()


@pytest.fixture(scope="module")
def jobs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jobs")


@pytest.fixture(scope="module")
def model() -> FakePredictor:
    return FakePredictor()


@pytest.fixture(scope="module")
def client(model: FakePredictor, jobs_dir: Path) -> Iterator[TestClient]:
    limits = {"SA2VA_MAX_VIDEO_MB": "1", "SA2VA_MAX_IMAGE_MPIXELS": "4", "SA2VA_MAX_JOBS": "3"}
    with client_of(model, SA2VA_JOBS_DIR=str(jobs_dir), SA2VA_HEARTBEAT_S="0.2", **limits) as client:
        yield client


def submit(client: TestClient, film: bytes, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    data = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
    return client.post("/process_video", files={"video": ("a.mp4", film)}, data={**SEGMENT, **data}, headers=headers)


def ended(client: TestClient, job_id: str, **headers: str) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while (status := client.get(f"/jobs/{job_id}", headers=headers).json())["state"] in ("queued", "running"):
        assert time.monotonic() < deadline, status
        time.sleep(0.02)
    return status


def done(client: TestClient, film: bytes, **fields: Any) -> str:
    accepted = submit(client, film, **fields)
    assert accepted.status_code == 202, accepted.text
    status = ended(client, accepted.json()["id"])
    assert status["state"] == "done", status
    return accepted.json()["id"]


def test_a_job_from_its_upload_to_its_result(client: TestClient, film: bytes) -> None:
    accepted = submit(client, film)
    assert accepted.status_code == 202
    job = accepted.json()
    assert accepted.headers["location"] == f"/jobs/{job['id']}" == job["links"]["self"]
    assert job["state"] in ("queued", "running")
    status = ended(client, job["id"])
    assert (status["state"], status["frames_done"], status["frames_total"], status["attempt"]) == ("done", 6, 6, 1)
    result = client.get(job["links"]["result"]).json()
    assert (result["result"], result["frames"], result["model"]) == ("Sure, [SEG].", 6, "sa2va-nano")
    assert result["video"]["codec"] == "h264"
    (track,) = result["segments"]
    assert (track["first_frame"], track["last_frame"], track["frames_present"], track["gaps"]) == (0, 5, 6, [])
    assert [frame["timestamp_s"] for frame in track["frames"]] == pytest.approx([0.1 * n for n in range(6)], abs=2e-3)
    for frame in track["frames"]:
        mask = coco.decode(frame["mask"])
        assert mask.shape == (64, 96)
        assert frame["area"] == mask.sum() == 64 * 48
        assert frame["bbox"] == [0, 0, 48, 64]
        assert (frame["present"], frame["score"], frame["object_score"]) == (True, 0.9, 0.8)


def test_waiting_gives_the_result_at_once(client: TestClient, film: bytes) -> None:
    for headers, fields in (({"Prefer": "respond-async, wait=20"}, {}), ({}, {"wait": 20})):
        answer = submit(client, film, headers, **fields)
        assert answer.status_code == 200
        assert answer.headers["preference-applied"] == "wait=20"
        assert answer.json()["result"] == "Sure, [SEG]."


def test_json_with_base64_and_pictures(client: TestClient, film: bytes) -> None:
    body = {**SEGMENT, "video": base64.b64encode(film).decode(), "wait": 20, "tone": "soft"}
    answer = client.post("/process_video", json=body).json()
    assert answer["frames"] == COUNT
    assert answer["warnings"] == ["unknown field ignored: 'tone'"]
    pictures = [base64.b64encode(films.png(image)).decode() for image in films.frames(3)]
    answer = client.post("/process_video", json={**SEGMENT, "frames": pictures, "wait": 20}).json()
    assert (answer["frames"], answer["video"]["codec"]) == (3, "pictures")
    assert [frame["timestamp_s"] for frame in answer["segments"][0]["frames"]] == [None] * 3
    files = [("frames", (f"{n}.png", films.png(image))) for n, image in enumerate(films.frames(4))]
    answer = client.post("/process_video", files=files, data={**SEGMENT, "wait": "20"}).json()
    assert answer["frames"] == 4


def test_several_prompts_share_the_frames(client: TestClient, film: bytes, model: FakePredictor) -> None:
    prompts = ["Segment a.", "What is it?", "Segment b."]
    body = {"video": base64.b64encode(film).decode(), "prompts": prompts, "wait": 20}
    answer = client.post("/process_video", json=body).json()
    assert [reply["prompt"] for reply in answer["replies"]] == prompts
    assert [[track["id"] for track in reply["tracks"]] for reply in answer["replies"]] == [[0], [], [1]]
    assert [(track["id"], track["question"]) for track in answer["segments"]] == [(0, 0), (1, 2)]
    assert len(model.clips[-1].questions) == 3


def test_frames_are_chosen(client: TestClient, film: bytes, model: FakePredictor) -> None:
    answer = submit(client, film, every_nth=2, start_s=0.1, max_frames=2, wait=20, frames_seen=[1], frames_seen_count=2)
    frames = answer.json()["segments"][0]["frames"]
    assert [frame["source_index"] for frame in frames] == [1, 3]
    assert [frame["frame_index"] for frame in frames] == [0, 1]
    assert (model.clips[-1].seen, model.clips[-1].seen_count) == ((1,), 2)


@pytest.mark.parametrize("mask_format", ["png", "polygon", "probability", "none"])
def test_mask_formats(client: TestClient, film: bytes, mask_format: str) -> None:
    answer = submit(client, film, mask_format=mask_format, wait=20).json()
    for frame in answer["segments"][0]["frames"]:
        mask = frame["mask"]
        assert (mask or {"format": "none"})["format"] == mask_format
        if mask_format in ("png", "probability"):
            picture = Image.open(io.BytesIO(base64.b64decode(mask["data"].partition(",")[2])))
            assert (picture.size, np.asarray(picture).sum()) == ((96, 64), 255 * 64 * 48)


def test_results_in_other_formats(client: TestClient, film: bytes) -> None:
    job = done(client, film)
    url = f"/jobs/{job}/result"
    lines = client.get(url, params={"format": "ndjson", "start": 2, "end": 5, "mask_format": "none"})
    assert lines.headers["content-type"] == "application/x-ndjson"
    frames = [json.loads(line) for line in lines.text.splitlines()]
    assert [frame["frame_index"] for frame in frames] == [2, 3, 4]
    assert all(segment["mask"] is None for frame in frames for segment in frame["segments"])
    assert len(client.get(url, params={"start": 4}).json()["segments"][0]["frames"]) == 2
    archive = zipfile.ZipFile(io.BytesIO(client.get(url, params={"format": "zip"}).content))
    assert archive.namelist() == [f"track0/{n:05d}.png" for n in range(COUNT)]
    assert Image.open(archive.open("track0/00003.png")).size == (96, 64)
    vis = client.get(url, params={"format": "youtube_vis"}).json()
    assert (vis["videos"][0]["length"], len(vis["annotations"][0]["segmentations"])) == (COUNT, COUNT)
    assert coco.decode(vis["annotations"][0]["segmentations"][0]).sum() == 64 * 48
    for name in ("overlay", "masks"):
        answer = client.get(url, params={"format": name})
        assert answer.headers["content-type"] == "video/mp4"
        with av.open(io.BytesIO(answer.content), "r") as container:
            shown = [frame.time for frame in container.decode(video=0)]
            assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
        assert shown == pytest.approx([0.1 * n for n in range(COUNT)], abs=2e-3)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"format": "avi"}, "format: one of json"),
        ({"mask_format": "tar"}, "mask_format: one of"),
        ({"mask_format": "probability"}, "kept only where"),
        ({"start": "-1"}, "start: a number"),
        ({"end": "x"}, "end: a number"),
    ],
)
def test_wrong_queries(client: TestClient, film: bytes, query: dict[str, str], words: str) -> None:
    answer = client.get(f"/jobs/{done(client, film)}/result", params=query)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


def test_events_tell_everything_once_and_go_on_where_a_reader_was(client: TestClient, film: bytes) -> None:
    job = done(client, film)
    told = told_by(client.get(f"/jobs/{job}/events"))
    names = [event.name for event in told if event.name != "state"]
    assert names == ["text", "reply", *["frame"] * COUNT, "done"]
    frames = [event for event in told if event.name == "frame"]
    assert [event.data["frame_index"] for event in frames] == list(range(COUNT))
    assert coco.decode(frames[0].data["segments"][0]["mask"]).sum() == 64 * 48
    ids = [line[4:] for line in client.get(f"/jobs/{job}/events").text.splitlines() if line.startswith("id: ")]
    assert ids == [f"1-{n}" for n in range(2 + COUNT)]
    again = told_by(client.get(f"/jobs/{job}/events", headers={"Last-Event-ID": ids[4]}))
    assert [event.data["frame_index"] for event in again if event.name == "frame"] == [3, 4, 5]
    for nonsense in ("x", "1-", "9-9", "1-99999999999999999999999999"):
        answer = client.get(f"/jobs/{job}/events", headers={"Last-Event-ID": nonsense})
        assert answer.text.count("event: frame") == COUNT


def test_jobs_wait_their_turn_and_are_watched_while_they_run(
    client: TestClient, film: bytes, model: FakePredictor
) -> None:
    model.frames_left = type(model.frames_left)(2)
    try:
        first, second, third = (submit(client, film).json()["id"] for _ in range(3))
        full = submit(client, film)
        assert (full.status_code, full.headers["retry-after"]) == (429, "10")
        while client.get(f"/jobs/{first}").json()["state"] != "running":
            time.sleep(0.01)
        assert client.get(f"/jobs/{second}").json()["queue_place"] == 1
        assert client.get(f"/jobs/{third}").json()["queue_place"] == 2
        early = client.get(f"/jobs/{first}/result")
        assert (early.status_code, early.json()["error"]) == (409, "the job is running")
        assert client.delete(f"/jobs/{third}").json()["state"] == "cancelled"
        assert client.delete(f"/jobs/{first}").status_code == 202
        assert ended(client, first)["state"] == "cancelled"
        model.frames_left.release(1000)
        assert ended(client, second)["state"] == "done"
        assert client.get(f"/jobs/{first}/result").json()["error"] == "the job is cancelled"
        last = told_by(client.get(f"/jobs/{first}/events"))[-1]
        assert last.name == "cancelled"
    finally:
        model.frames_left.release(10**6)


def test_a_job_that_has_ended_is_removed(client: TestClient, film: bytes, jobs_dir: Path) -> None:
    job = done(client, film)
    assert (jobs_dir / job).is_dir()
    assert client.delete(f"/jobs/{job}").status_code == 204
    assert not (jobs_dir / job).exists()
    assert client.get(f"/jobs/{job}").status_code == 404
    assert client.delete(f"/jobs/{job}").status_code == 404


def test_a_repeated_request_is_the_same_job(client: TestClient, film: bytes, jobs_dir: Path) -> None:
    key = {"Idempotency-Key": "abc"}
    first = submit(client, film, key).json()["id"]
    ended(client, first)
    folders = set(jobs_dir.iterdir())
    assert submit(client, film, key).json()["id"] == first
    assert set(jobs_dir.iterdir()) == folders
    other = submit(client, film, key, prompt="Something else.")
    assert (other.status_code, "Idempotency-Key" in other.json()["error"]) == (400, True)
    assert submit(client, film, {"Idempotency-Key": "a b"}).status_code == 400


def test_a_failure_is_said_where_the_result_would_be(client: TestClient, film: bytes, model: FakePredictor) -> None:
    model.failure = InferenceError("the model failed on this clip")
    try:
        job = submit(client, film).json()["id"]
        status = ended(client, job)
    finally:
        model.failure = None
    assert (status["state"], status["error"]) == ("failed", {"status": 500, "message": "the model failed on this clip"})
    assert client.get(f"/jobs/{job}/result").status_code == 500
    assert told_by(client.get(f"/jobs/{job}/events"))[-1].name == "error"


def test_a_damaged_video_fails_alone(client: TestClient, film: bytes) -> None:
    for data, status, words in (
        (b"nothing", 400, "not a video"),
        (b"\0\0\0\x18ftypisom" + bytes(50), 400, "damaged"),
        (b"FLV\x01" + bytes(50), 415, "Flash"),
    ):
        answer = submit(client, data, wait=20)
        assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text
    assert submit(client, film, wait=20).status_code == 200


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "  "}, "prompt: empty"),
        ({"prompts": ["a"]}, "not both"),
        ({"end_s": 1, "start_s": 2}, "end_s"),
        ({"every_nth": 0}, "every_nth"),
        ({"fps": 0}, "fps"),
        ({"fps": float("nan")}, "fps"),
        ({"frames_seen": []}, "frames_seen"),
        ({"frames_seen": "last"}, "frames_seen"),
        ({"frames_seen": list(range(40))}, "at most 16"),
        ({"frames_seen_count": 17}, "at most 16"),
        ({"mask_format": "tar"}, "mask_format"),
        ({"mask_threshold": 2}, "mask_threshold"),
        ({"history": [{"role": "user", "content": "x"}]}, "history"),
        ({"wait": -1}, "wait"),
    ],
)
def test_wrong_fields(client: TestClient, film: bytes, jobs_dir: Path, fields: dict[str, Any], words: str) -> None:
    before = set(jobs_dir.iterdir())
    answer = submit(client, film, **fields)
    assert (answer.status_code, words in answer.json()["error"]) == (400, True), answer.text
    assert set(jobs_dir.iterdir()) == before


def test_wrong_uploads(client: TestClient, film: bytes, jobs_dir: Path) -> None:
    before = set(jobs_dir.iterdir())
    post = client.post
    two = [("video", ("a", film)), ("video", ("b", film))]
    both = [("video", ("a", film)), ("frames", ("b", film))]
    assert post("/process_video", files={"image": ("a", film)}, data=SEGMENT).status_code == 400
    assert post("/process_video", files=two, data=SEGMENT).status_code == 400
    assert post("/process_video", files=both, data=SEGMENT).status_code == 400
    assert post("/process_video", json=SEGMENT).json()["error"].startswith("video: field required")
    assert post("/process_video", json={**SEGMENT, "video": "%%%"}).status_code == 400
    assert post("/process_video", json={**SEGMENT, "video": 5}).status_code == 400
    assert post("/process_video", json={**SEGMENT, "frames": [5]}).status_code == 400
    assert post("/process_video", json={**SEGMENT, "video": "http://127.0.0.1/a.mp4"}).status_code == 400
    assert post("/process_video", content=b"x", headers={"content-type": "video/mp4"}).status_code == 415
    head = {"content-type": "multipart/form-data; boundary=x"}
    assert post("/process_video", content=b"--x\r\nhm", headers=head).status_code == 400
    assert post("/process_video", content=b"", headers={"content-type": "multipart/form-data"}).status_code == 400
    large = submit(client, bytes(2 * 2**20))
    assert (large.status_code, "1 MiB" in large.json()["error"]) == (413, True)
    streamed = (b"--x\r\nContent-Disposition: form-data; name=video; filename=a\r\n\r\n", *[bytes(2**19)] * 5)
    assert post("/process_video", content=iter(streamed), headers=head).status_code == 413
    assert set(jobs_dir.iterdir()) == before


def test_keys_keep_jobs_apart(film: bytes) -> None:
    with client_of(FakePredictor(), SA2VA_API_KEYS="anna,ben") as client:
        anna, ben = {"X-API-Key": "anna"}, {"X-API-Key": "ben"}
        assert submit(client, film).status_code == 401
        job = submit(client, film, anna).json()["id"]
        assert ended(client, job, **anna)["state"] == "done"
        for path in ("", "/result", "/events"):
            assert client.get(f"/jobs/{job}{path}", headers=ben).status_code == 404
            assert client.get(f"/jobs/{job}{path}", headers=anna).status_code == 200
            assert client.get(f"/jobs/{job}{path}").status_code == 401
        assert client.delete(f"/jobs/{job}", headers=ben).status_code == 404
        assert client.delete(f"/jobs/{job}", headers=anna).status_code == 204


def test_the_room_for_jobs_is_bounded(film: bytes) -> None:
    with client_of(FakePredictor(), SA2VA_MAX_JOBS_MB="0.1") as client:
        answers = [submit(client, film, wait=20) for _ in range(40)]
        full = next(answer for answer in answers if answer.status_code != 200)
        assert (full.status_code, "room" in full.json()["error"]) == (507, True)
        assert client.get("/readyz").status_code == 200


def test_jobs_are_kept_for_a_while(film: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sa2va_bento.jobs.worker.SWEEP_S", 0.0)
    monkeypatch.setattr("sa2va_bento.jobs.worker.ABANDONED_S", 0.0)
    (tmp_path / "abandoned").mkdir()
    with client_of(FakePredictor(), SA2VA_JOBS_KEEP_S="0.3", SA2VA_JOBS_DIR=str(tmp_path)) as client:
        job = submit(client, film).json()["id"]
        deadline = time.monotonic() + 20
        while client.get(f"/jobs/{job}").status_code != 404 or (tmp_path / job).exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert not (tmp_path / "abandoned").exists()


def test_a_folder_that_can_not_be_written_stops_videos_only(film: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with client_of(FakePredictor(), SA2VA_JOBS_DIR=str(tmp_path / "file" / "jobs")) as client:
        answer = submit(client, film)
        assert (answer.status_code, "SA2VA_JOBS_DIR" in answer.json()["error"]) == (503, True)
        assert client.get("/readyz").status_code == 200


def test_what_was_accepted_outlives_the_process(film: bytes, tmp_path: Path) -> None:
    """A process that is stopped leaves its jobs to the next, which starts the unfinished one again and says so."""
    model = FakePredictor()
    model.frames_left = type(model.frames_left)(3)
    with client_of(model, SA2VA_JOBS_DIR=str(tmp_path)) as client:
        running, waiting = (submit(client, film).json()["id"] for _ in range(2))
        while len(read_lines(tmp_path / running / "frames.ndjson")) < 3:
            time.sleep(0.01)
    with client_of(FakePredictor(), SA2VA_JOBS_DIR=str(tmp_path)) as client:
        assert [ended(client, job)["state"] for job in (running, waiting)] == ["done", "done"]
        result = client.get(f"/jobs/{running}/result").json()
        assert (result["frames"], len(result["segments"][0]["frames"])) == (COUNT, COUNT)
        assert result["warnings"] == ["started again after an interruption (attempt 2)"]
        assert client.get(f"/jobs/{running}").json()["attempt"] == 2
        told = client.get(f"/jobs/{running}/events", headers={"Last-Event-ID": "1-4"}).text
        assert told.count("event: frame") == COUNT


def told_by(answer: Any) -> list[Event]:
    return [event for event in read_events(answer.text.splitlines()) if event.name]


def read_lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines() if path.exists() else []


@pytest.mark.slow
def test_an_upload_may_take_longer_than_a_request(film: bytes) -> None:
    """BentoML's own timer is 10 s above the deadline of a request; an upload is not its business."""
    with server_of(FakePredictor(), SA2VA_TIMEOUT_S="0.2") as url:
        timer_s, pieces, data = 10.2, 24, film + bytes(200_000)  # at the pace that a connection must keep
        head = b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nSegment it.\r\n'
        head += b'--x\r\nContent-Disposition: form-data; name="video"; filename="a"\r\n\r\n'
        end = b"\r\n--x--\r\n"

        def slowly() -> Iterator[bytes]:
            yield head
            for place in range(pieces):
                yield data[place * len(data) // pieces : (place + 1) * len(data) // pieces]
                time.sleep(timer_s / (pieces - 2))
            yield end

        headers = {"content-type": "multipart/form-data; boundary=x"}
        answer = httpx.post(f"{url}/process_video", content=slowly(), headers=headers, timeout=60)
        assert answer.status_code == 202, answer.text
