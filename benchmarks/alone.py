"""How soon a service is ready, and what a single user waits for whom nobody else delays, on the embedded model.

    python -m benchmarks.alone --bentoml .venv/bin/bentoml  # that of an environment that `make install` made

Several starts; after each the kinds of question in turn, over one connection.
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx

from benchmarks.compare import free_port, running
from benchmarks.pictures import encoded, picture

ASKED = {
    "question": "What color is the square?",
    "one mask": "Please segment the red object.",
    "four masks": "Segment everything.",
}
WARM_UP = 2


def waits(url: str, rounds: int) -> dict[str, list[float]]:
    """Seconds from request to reply by kind, the kinds in turn; every picture is a new one."""
    taken: dict[str, list[float]] = {kind: [] for kind in ASKED}
    with httpx.Client(base_url=url, timeout=60) as client:
        for number in range(rounds + WARM_UP):
            for kind, prompt in ASKED.items():
                seed = number * len(ASKED) + list(ASKED).index(kind)
                seconds = wait(client, prompt, encoded(picture(seed)))
                if number >= WARM_UP:
                    taken[kind].append(seconds)
    return taken


def wait(client: httpx.Client, prompt: str, image: str) -> float:
    began = time.perf_counter()
    client.post("/process", json={"base64Image": image, "prompt": prompt}).raise_for_status()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bentoml", default=str(Path(sys.executable).parent / "bentoml"))
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    starts: list[float] = []
    taken: dict[str, list[float]] = {kind: [] for kind in ASKED}
    for _ in range(arguments.starts):
        port = free_port()
        command = [arguments.bentoml, "serve", "service:Sa2VA", "--port", str(port)]
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as home, running(command, port, {"BENTOML_HOME": home}) as url:
            starts.append(time.perf_counter() - began)
            for kind, seconds in waits(url, arguments.rounds).items():
                taken[kind] += seconds
    print(f"{platform.machine()}, {os.cpu_count()} cores; {len(starts)} starts, {len(taken['question'])} of each kind")
    print(f"ready: {min(starts):.2f} to {max(starts):.2f} s, median {statistics.median(starts):.2f}")
    for kind, seconds in taken.items():
        print(f"{kind}: median {statistics.median(seconds):.3f} s")


if __name__ == "__main__":
    main()
