"""A short video in a conversation, by OpenAI's client."""

import base64
import threading
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pycocotools import mask as coco

from tests import films
from tests.chats import client_for
from tests.fakes import FakePredictor
from tests.serving import server_of

COUNT = 5


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    film = films.film(tmp_path_factory.mktemp("films") / "a.mp4", films.frames(COUNT)).read_bytes()
    return part(film)


def part(data: bytes) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{base64.b64encode(data).decode()}"}}


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with client_for(url) as client:
        yield client


def asked(video: dict[str, Any], text: str = "Segment the circle.") -> list[Any]:
    return [{"role": "user", "content": [video, {"type": "text", "text": text}]}]


def test_a_clip_is_answered_with_its_tracks(client: openai.OpenAI, video: dict[str, Any]) -> None:
    answer = client.chat.completions.create(model="sa2va", messages=asked(video))
    message: Any = answer.choices[0].message
    assert message.content == "Sure, [SEG]."
    (track,) = message.segments
    assert (track["first_frame"], track["last_frame"], len(track["frames"])) == (0, COUNT - 1, COUNT)
    assert coco.decode(track["frames"][2]["mask"]).sum() == 64 * 48
    assert answer.usage
    assert answer.usage.prompt_tokens == 10


def test_a_stream_ends_with_the_tracks(client: openai.OpenAI, video: dict[str, Any]) -> None:
    chunks: list[Any] = list(
        client.chat.completions.create(
            model="sa2va", messages=asked(video), stream=True, extra_body={"mask_format": "none"}
        )
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Sure, "
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert len(chunks[-1].choices[0].delta.segments[0]["frames"]) == COUNT


def test_a_later_turn_is_about_the_same_clip(
    client: openai.OpenAI, video: dict[str, Any], model: FakePredictor
) -> None:
    messages = [
        *asked(video),
        {"role": "assistant", "content": "Sure, [SEG]."},
        {"role": "user", "content": "What is it?"},
    ]
    answer = client.chat.completions.create(model="sa2va", messages=messages)
    assert answer.choices[0].message.content == "You asked: What is it?"
    assert len(model.clips[-1].questions[0].history) == 2


def test_the_word_alone_makes_no_video(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="sa2va", messages=[{"role": "user", "content": 'What does "video_url" mean?'}]
    )
    assert '"video_url"' in (answer.choices[0].message.content or "")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (part(b"nothing"), "not a video"),
        ({"type": "video_url", "video_url": {"url": "http://127.0.0.1/a.mp4"}}, "data URL"),
        ({"type": "video_url", "video_url": "file:///etc/passwd"}, "data URL"),
        ({"type": "video_url", "video_url": {"url": "data:video/mp4;base64,%%"}}, "base64"),
    ],
)
def test_wrong_videos(client: openai.OpenAI, content: Any, words: str) -> None:
    with pytest.raises(openai.BadRequestError, match=words):
        client.chat.completions.create(model="sa2va", messages=asked(content))


def test_one_video_and_no_picture_beside_it(client: openai.OpenAI, video: dict[str, Any]) -> None:
    picture = base64.b64encode(films.png(films.frames(2)[0])).decode()
    beside = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}
    other = part(b"\0\0\0\x18ftypisom")
    for extra in (beside, other):
        content = [video, extra, {"type": "text", "text": "Segment."}]
        with pytest.raises(openai.BadRequestError, match="one video"):
            client.chat.completions.create(model="sa2va", messages=[{"role": "user", "content": content}])  # type: ignore[list-item, misc]


def test_the_deadline_and_the_others_hold(video: dict[str, Any]) -> None:
    model = FakePredictor()
    model.frames_left = threading.Semaphore(1)
    with server_of(model, SA2VA_TIMEOUT_S="4") as url, client_for(url, max_retries=0) as client:
        failures: list[Exception] = []

        def ask() -> None:
            try:
                client.chat.completions.create(model="sa2va", messages=asked(video))
            except openai.APIStatusError as error:
                failures.append(error)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(error.status_code for error in failures) == [503, 504, 504]  # type: ignore[attr-defined]
        model.frames_left.release(1000)
        assert client.chat.completions.create(model="sa2va", messages=asked(video)).choices[0].message.content
