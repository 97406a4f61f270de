"""This service against the original's manner, side by side: both run all the time, Locust loads them in turn.

    python -m benchmarks.compare [--rounds 3] [--seconds 12] [--pictures 32] [--out FILE.json]

Only one of them is loaded at any moment; rounds are interleaved, so that a machine whose speed drifts drifts for both.
"""

import argparse
import contextlib
import csv
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
LEVELS = {"baseline": (1, 16), "service": (1, 16, 64)}
Figures = dict[str, float]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextlib.contextmanager
def running(command: list[str], port: int, variables: Mapping[str, str] | None = None) -> Iterator[str]:
    """A server of ours, until the block ends."""
    environment = {**os.environ, "BENTOML_DO_NOT_TRACK": "True", **(variables or {})}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]", timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{url}/readyz", timeout=2)
            return
        time.sleep(0.2)
    raise SystemExit(f"{process.args} did not become ready")


def load(url: str, users: int, seconds: int, pictures: int) -> Figures:
    """One Locust run: requests a second, latencies in ms, failures."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "locust", "-f", "benchmarks/load.py", "--headless", "--only-summary"]
        command += ["-u", str(users), "-r", str(users), "-t", f"{seconds}s", "-H", url, "--csv", f"{folder}/run"]
        environment = {**os.environ, "BENCH_PICTURES": str(pictures)}
        subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True)
        with open(f"{folder}/run_stats.csv") as file:
            total = next(row for row in csv.DictReader(file) if row["Name"] == "Aggregated")
    return {
        "requests": float(total["Request Count"]),
        "failures": float(total["Failure Count"]),
        "requests_per_s": float(total["Requests/s"]),
        "p50_ms": float(total["50%"]),
        "p95_ms": float(total["95%"]),
    }


def medians(runs: list[Figures]) -> Figures:
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def report(results: dict[str, Figures]) -> str:
    lines = ["| service | users | requests/s | p50 ms | p95 ms | failures |", "| --- | --- | --- | --- | --- | --- |"]
    for name, figures in results.items():
        service, users = name.split("/")
        row = (f"{figures[key]:.1f}" for key in ("requests_per_s", "p50_ms", "p95_ms"))
        lines.append(f"| {service} | {users} | {' | '.join(row)} | {figures['failures']:.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=12)
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    ports = {name: free_port() for name in LEVELS}
    bentoml = str(Path(sys.executable).parent / "bentoml")
    commands = {
        "baseline": [sys.executable, "-m", "benchmarks.baseline", str(ports["baseline"])],
        "service": [bentoml, "serve", "service:Sa2VA", "--port", str(ports["service"])],
    }
    runs: dict[str, list[Figures]] = {f"{name}/{users}": [] for name, levels in LEVELS.items() for users in levels}
    with contextlib.ExitStack() as stack:
        urls = {name: stack.enter_context(running(command, ports[name])) for name, command in commands.items()}
        for url in urls.values():
            load(url, 2, 3, arguments.pictures)  # warm-up, not counted
        for _ in range(arguments.rounds):
            for name in runs:
                service, users = name.split("/")
                runs[name].append(load(urls[service], int(users), arguments.seconds, arguments.pictures))
                print(name, runs[name][-1], flush=True)
    results = {name: medians(figures) for name, figures in runs.items()}
    print(f"\n{platform.processor() or platform.machine()}, {os.cpu_count()} cores\n{report(results)}")
    if arguments.out:
        arguments.out.write_text(json.dumps({"medians": results, "runs": runs}, indent=1))


if __name__ == "__main__":
    main()
