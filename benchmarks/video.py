"""Videos: memory by length, cost by objects, speed beside the original's manner, and what pictures pay meanwhile.

    python -m benchmarks.video [--frames 900] [--rounds 3] [--only memory,objects,manner,pictures,j]

The service runs as a process of its own on the embedded model; films are H.264 of 640 x 480 with moving shapes. What is
compared is interleaved. J is measured on the clips of the model's card, over HTTP and at the model itself.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from pycocotools import mask as coco

from benchmarks.compare import free_port, running
from tests import films

SIZE = (640, 480)
RED = "Please segment the red circle."
POLL_S = 0.05


@contextmanager
def service() -> Iterator[str]:
    """The URL of a service on the embedded model."""
    with tempfile.TemporaryDirectory() as home:
        port = free_port()
        command = [sys.executable, "-m", "bentoml", "serve", "service:Sa2VA", "--port", str(port)]
        variables = {"BENTOML_HOME": home, "SA2VA_JOBS_DIR": f"{home}/jobs", "SA2VA_LOG_LEVEL": "WARNING"}
        with running(command, port, variables) as url:
            yield url


def film(folder: Path, count: int, objects: int = 2) -> bytes:
    return films.film(folder / f"{count}.mp4", films.frames(count, SIZE, objects), rate=30).read_bytes()


def job(url: str, video: bytes, prompts: list[str]) -> dict[str, Any]:
    """The status of a job that has ended, and how long it took from its start."""
    fields = {"prompts": json.dumps(prompts)}
    accepted = httpx.post(f"{url}/process_video", files={"video": video}, data=fields, timeout=60).json()
    while (status := httpx.get(f"{url}/jobs/{accepted['id']}").json())["state"] in ("queued", "running"):
        time.sleep(POLL_S)
    assert status["state"] == "done", status
    result = httpx.get(f"{url}/jobs/{accepted['id']}/result", params={"mask_format": "none", "end": 1}).json()
    httpx.delete(f"{url}/jobs/{accepted['id']}")
    return {**status, "seconds": result["seconds"], "tracks": len(result["segments"])}


def memory(url: str, folder: Path, frames: int) -> dict[str, float]:
    """Peak memory (MB) of all processes of the service while a clip of a tenth, then of all the frames, is followed."""
    peaks = {}
    job(url, film(folder, 30), [RED, "Please segment the blue square."])
    for count in (frames // 10, frames):
        with _peak() as peak:
            status = job(url, film(folder, count), [RED, "Please segment the blue square."])
        peaks[f"{count} frames, MB"] = round(peak() / 1e6)
        peaks[f"{count} frames, frames/s"] = round(status["frames_done"] / status["seconds"], 2)
    return peaks


@contextmanager
def _peak() -> Iterator[Callable[[], float]]:
    """The largest resident memory of this process's descendants while the block runs."""
    stop, most = threading.Event(), [0.0]

    def watch() -> None:
        while not stop.wait(0.05):
            most[0] = max(most[0], sum(map(_resident, _descendants(os.getpid()))))

    thread = threading.Thread(target=watch)
    thread.start()
    yield lambda: most[0]
    stop.set()
    thread.join()


def _descendants(root: int) -> list[int]:
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found: list[int] = []
    for process in parents:
        above = process
        while above in parents and above != root:
            above = parents[above]
        if above == root and process != root:
            found.append(process)
    return found


def _resident(process: int) -> float:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0.0


def objects(url: str, folder: Path, rounds: int) -> dict[str, float]:
    """Seconds that a clip of 60 frames takes with 1, 2, 4 and 8 objects, and as shares of the first."""
    video, seconds = film(folder, 60), {count: [] for count in (1, 2, 4, 8)}
    for _ in range(rounds):
        for count, times in seconds.items():
            status = job(url, video, [RED] * count)
            assert status["tracks"] == count
            times.append(status["seconds"])
    medians = {count: statistics.median(times) for count, times in seconds.items()}
    figures = {f"{count} objects, s": round(value, 2) for count, value in medians.items()}
    return figures | {f"{count} of 1": round(medians[count] / medians[1], 2) for count in (2, 4, 8)}


def manner(url: str, folder: Path, rounds: int) -> dict[str, float]:
    """Frames a second of the service and in the original's manner, for 1 and 4 objects, in turn."""
    frames, figures = 60, {}
    video = film(folder, frames)
    for count in (1, 4):
        ours, theirs = [], []
        for _ in range(rounds):
            ours.append(frames / job(url, video, [RED] * count)["seconds"])
            theirs.append(frames / _originals_seconds(folder / f"{frames}.mp4", count))
        figures[f"{count} objects, frames/s"] = round(statistics.median(ours), 2)
        figures[f"{count} objects, original's manner"] = round(statistics.median(theirs), 2)
        figures[f"{count} objects, times"] = round(statistics.median(ours) / statistics.median(theirs), 2)
    return figures


def _originals_seconds(path: Path, count: int) -> float:
    command = [sys.executable, "-m", "benchmarks.video_one_by_one", str(path), str(count)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def pictures(url: str, folder: Path, rounds: int) -> dict[str, float]:
    """p95 (ms) of four users who ask about pictures, without and with a clip that is followed meanwhile."""
    from benchmarks.compare import load

    without, beside = [], []
    for _ in range(rounds):
        without.append(load(url, 4, 10, 32)["p95_ms"])
        stop = threading.Event()
        thread = threading.Thread(target=_clips_until, args=(url, film(folder, 300), stop))
        thread.start()
        beside.append(load(url, 4, 10, 32)["p95_ms"])
        stop.set()
        thread.join()
    found = statistics.median(without), statistics.median(beside)
    return {"p95 without, ms": found[0], "p95 beside, ms": found[1], "times": round(found[1] / found[0], 2)}


def _clips_until(url: str, video: bytes, stop: threading.Event) -> None:
    while not stop.is_set():
        accepted = httpx.post(f"{url}/process_video", files={"video": video}, data={"prompt": RED}, timeout=60).json()
        while httpx.get(f"{url}/jobs/{accepted['id']}").json()["state"] in ("queued", "running"):
            if stop.wait(0.2):
                httpx.delete(f"{url}/jobs/{accepted['id']}")
                return


def j(url: str, folder: Path, rounds: int) -> dict[str, float]:
    """Mean J over the card's clips of 24 frames, over HTTP and at the model itself, on the same questions."""
    from itertools import islice

    from sa2va_bento.settings import Settings
    from training.evaluation import video as evaluation

    asked = list(islice(evaluation._questions(10_000), 8 * rounds))
    model = evaluation.Films(Settings())
    there, here = [], []
    for _, clip, number, prompt in asked:
        truth = clip.labels == number + 1
        _, masks = model.segment([clip], [prompt])[0]
        there.append(evaluation.j_mean(masks, truth))
        here.append(evaluation.j_mean(_over_http(url, clip.images, prompt), truth))
    means = {"J at the model": round(float(np.mean(there)), 4), "J over HTTP": round(float(np.mean(here)), 4)}
    return {"clips": len(asked), **means, "difference": round(means["J over HTTP"] - means["J at the model"], 4)}


def _over_http(url: str, images: tuple[Image.Image, ...], prompt: str) -> np.ndarray | None:
    files = [("frames", films.png(image)) for image in images]
    answer = httpx.post(f"{url}/process_video", files=files, data={"prompt": prompt, "wait": "60"}, timeout=120).json()
    tracks = answer["segments"]
    return np.stack([coco.decode(frame["mask"]).astype(bool) for frame in tracks[0]["frames"]]) if tracks else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=900)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="memory,objects,manner,pictures,j")
    args = parser.parse_args()
    with service() as url, tempfile.TemporaryDirectory() as name:
        folder, wanted = Path(name), args.only.split(",")
        parts: dict[str, Callable[[], dict[str, float]]] = {
            "memory": lambda: memory(url, folder, args.frames),
            "objects": lambda: objects(url, folder, args.rounds),
            "manner": lambda: manner(url, folder, args.rounds),
            "pictures": lambda: pictures(url, folder, args.rounds),
            "j": lambda: j(url, folder, args.rounds),
        }
        for part in wanted:
            print(part, json.dumps(parts[part](), indent=2), flush=True)


if __name__ == "__main__":
    main()
