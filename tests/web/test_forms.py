"""Multipart forms as pages, scripts and mail programs write them (RFC 7578, RFC 2046)."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.fakes import FakePredictor
from tests.pictures import PICTURE, encode, quarters
from tests.serving import client_of

FILE = encode(quarters())
TYPE = {"Content-Type": "multipart/form-data; boundary=x"}


def part(disposition: str, value: bytes, *headers: str) -> bytes:
    lines = [f"Content-Disposition: form-data; {disposition}", *headers, "", ""]
    return b"--x\r\n" + "\r\n".join(lines).encode() + value + b"\r\n"


PROMPT = part('name="prompt"', b"Please segment it.")
IMAGE = part('name="image"; filename="a.png"', FILE)
END = b"--x--\r\n"

FORMS = {
    "plain": PROMPT + IMAGE + END,
    "a preamble": b"This is a message with multiple parts in MIME format.\r\n" + PROMPT + IMAGE + END,
    "a preamble of lines": b"one\r\ntwo\r\n\r\n-x-\r\n--\r\n" + PROMPT + IMAGE + END,
    "an empty line first": b"\r\n" + PROMPT + IMAGE + END,
    "an epilogue": PROMPT + IMAGE + END + b"This is the epilogue.\r\n--x\r\nmore",
    "no line break at the end": PROMPT + IMAGE + b"--x--",
    "filename*": PROMPT + part("name=\"image\"; filename*=UTF-8''na%C3%AFve%20%E2%82%AC.png", FILE) + END,
    "filename and filename*": PROMPT
    + part('name="image"; filename="a.png"; filename*=UTF-8\'\'%C3%A4.png', FILE)
    + END,
    "filename* first": PROMPT + part("filename*=UTF-8''%C3%A4.png; name=\"image\"", FILE) + END,
    "a name without quotes": PROMPT + part("name=image; filename=a.png", FILE) + END,
    "an empty filename": PROMPT + part('name="image"; filename=""', FILE) + END,
    "a filename in UTF-8": PROMPT + part('name="image"; filename="päck 汉.png"', FILE) + END,
    "a type": PROMPT + part('name="image"; filename="a.png"', FILE, "Content-Type: image/png") + END,
    "base64 in image": PROMPT + part('name="image"', PICTURE.encode()) + END,
    "a data URL in image": PROMPT + part('name="image"', f"data:image/png;base64,{PICTURE}".encode()) + END,
    "base64 in base64Image": PROMPT + part('name="base64Image"', PICTURE.encode()) + END,
    "empty optional fields": PROMPT
    + b"".join(part(f'name="{name}"', b"") for name in ("mask_format", "mask_threshold", "regions", "history"))
    + b"".join(part(f'name="{name}"', b"") for name in ("include_overlay", "max_new_tokens", "max_tiles"))
    + IMAGE
    + END,
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_of_every_kind_are_read(client: TestClient, name: str) -> None:
    answer = client.post("/process", content=FORMS[name], headers=TYPE)
    assert answer.status_code == 200, answer.json()
    assert answer.json()["segments"][0]["area"] == 768
    assert answer.json()["warnings"] == []


BOOLEANS = {"true": True, "True": True, "1": True, "on": True, "yes": True, " on ": True, "false": False}
BOOLEANS |= {"False": False, "0": False, "off": False, "OFF": False, "no": False}


@pytest.mark.parametrize("text", BOOLEANS)
def test_true_by_any_name(client: TestClient, text: str) -> None:
    form = PROMPT + part('name="include_overlay"', text.encode()) + IMAGE + END
    answer = client.post("/process", content=form, headers=TYPE)
    assert (answer.json()["overlay"] is not None) is BOOLEANS[text]


@pytest.mark.parametrize("text", ["maybe", "2", "[]", '"true"', "tru"])
def test_what_is_neither_true_nor_false(client: TestClient, text: str) -> None:
    form = PROMPT + part('name="include_overlay"', text.encode()) + IMAGE + END
    answer = client.post("/process", content=form, headers=TYPE)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("include_overlay: ")


BAD: dict[str, tuple[bytes, str]] = {
    "no boundary in it": (b"just a preamble", "can't be read"),
    "an empty form": (b"", "can't be read"),
    "nothing but its end": (END, "base64Image: field required"),
    "cut in a file": (PROMPT + IMAGE[:-30], "can't be read"),
    "no name": (PROMPT + part('filename="a.png"', FILE) + END, "can't be read"),
    "an empty file": (PROMPT + part('name="image"; filename="a.png"', b"") + END, "base64Image"),
    "an empty picture": (PROMPT + part('name="image"', b"") + END, "base64Image"),
    "an empty prompt": (part('name="prompt"', b"") + IMAGE + END, "prompt"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_with_a_form_is_named(client: TestClient, name: str) -> None:
    body, fragment = BAD[name]
    answer = client.post("/process", content=body, headers=TYPE)
    assert answer.status_code == 400
    assert fragment in answer.json()["error"]


@pytest.mark.parametrize("step", [1, 7, 64])
def test_a_form_may_come_in_pieces(client: TestClient, model: FakePredictor, step: int) -> None:
    form = FORMS["a preamble"]
    pieces: Any = (form[place : place + step] for place in range(0, len(form), step))
    assert client.post("/process", content=pieces, headers=TYPE).status_code == 200


def test_an_endless_preamble_is_not_waited_for(client: TestClient) -> None:
    pieces: Any = (b"a" * 1000 for _ in range(1000))
    answer = client.post("/process", content=pieces, headers=TYPE)
    assert answer.status_code == 400
    assert "no boundary at its beginning" in answer.json()["error"]


def test_no_room_for_temporary_files_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A form stays in memory, however large it is."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8))
    picture = encode(noise)
    assert len(picture) > 2_400_000
    with client_of(FakePredictor()) as client:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "full"))
        with pytest.raises(OSError, match="full"):
            tempfile.mkdtemp()
        form = PROMPT + part('name="image"; filename="a.png"', picture) + END
        answer = client.post("/process", content=form, headers=TYPE)
        monkeypatch.undo()
    assert answer.status_code == 200
    assert answer.json()["image"] == {"width": 900, "height": 900}
