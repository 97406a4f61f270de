"""The load test notices what is wrong, says it in words that group, and its users get along with the service."""

import copy
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loadtest.checks import answer_problem, mask_problem, status_problem
from loadtest.pictures import Picture, film, photographs, scene
from tests.fakes import FakePredictor
from tests.serving import ROOT, server_of

PICTURE = scene(random.Random(1))
LOCUST = Path(sys.executable).with_name("locust")


def answer(picture: Picture) -> dict[str, Any]:
    import numpy as np
    from pycocotools import mask as coco

    width, height = picture.size
    mask = np.zeros((height, width), np.uint8, order="F")
    mask[:10, :20] = 1
    counts: Any = coco.encode(mask)["counts"]
    segment = {"mask": {"size": [height, width], "counts": counts.decode()}, "area": 200}
    return {"result": "Sure, [SEG].", "image": {"width": width, "height": height}, "segments": [segment]}


def test_a_good_answer_has_no_problem() -> None:
    assert answer_problem(answer(PICTURE), PICTURE) is None


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"result": None}, "no result"),
        ({"image": {"width": 1, "height": 1}}, "another size"),
        ({"segments": []}, "one segment for each"),
    ],
)
def test_a_bad_answer_has_one(change: dict[str, Any], problem: str) -> None:
    assert problem in (answer_problem({**answer(PICTURE), **change}, PICTURE) or "")


def test_a_wrong_mask_is_noticed() -> None:
    (segment,) = answer(PICTURE)["segments"]
    wrong = {**copy.deepcopy(segment), "area": 199}
    assert "area" in (mask_problem(wrong, PICTURE.size) or "")
    assert "size" in (mask_problem(segment, (PICTURE.size[0] + 1, PICTURE.size[1])) or "")


def test_masks_are_missed_where_they_were_asked_for() -> None:
    without = answer(PICTURE)
    without["segments"][0]["mask"] = None
    assert "no mask" in (answer_problem(without, PICTURE) or "")
    assert answer_problem(without, PICTURE, has_masks=False) is None


def test_failures_are_grouped_by_their_cause() -> None:
    one, other = ({"error": f"12.{n} s of waiting, of {n} s left", "request_id": f"id-{n}"} for n in (3, 44))
    assert (
        status_problem(503, one, None) == status_problem(503, other, None) == "status 503: N s of waiting, of N s left"
    )
    assert (
        status_problem(0, None, ConnectionRefusedError(111, "http://127.0.0.1:1"))
        == "no answer: ConnectionRefusedError"
    )
    assert status_problem(400, {"error": {"message": "no"}}, None) == "status 400: no"
    assert status_problem(502, None, None) == "status 502: no reason given"
    assert status_problem(202, None, None) is None


def test_each_user_shows_something_else_and_the_same_again() -> None:
    def shown(seed: int) -> list[str]:
        numbers = random.Random(seed)
        return [picture.base64 for picture in [*photographs(numbers), scene(numbers)]] + [film(numbers, 2)]

    assert shown(1) == shown(1)
    assert not set(shown(1)) & set(shown(2))


def locust(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [LOCUST, "-f", "locustfile.py", "--headless", "--only-summary", "-t", "2s", "-H", url, *options]
    return subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)


def test_it_runs_and_judges() -> None:
    with server_of(FakePredictor(), SA2VA_API_KEYS="a-key") as url:
        good = locust(url, "-u", "2", "--api-key", "a-key", "--max-fail-ratio", "0", "Questioner")
        assert good.returncode == 0, good.stdout
        assert "question" in good.stdout
        assert locust(url, "-u", "2", "--api-key", "a-key", "--max-p95-ms", "0.01", "Questioner").returncode == 1
        refused = locust(url, "-u", "2", "--max-fail-ratio", "0", "Questioner")
        assert refused.returncode == 1
        assert "status 401" in refused.stdout
