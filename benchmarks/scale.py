"""How many replicas a rate of requests needs: a simulation from measured speeds, beside a measured run.

    python -m benchmarks.scale [--seconds 40] [--cores 0.4] [--out docs/scale.png]

First one replica is measured with 1 to 16 users at once: its speed. Then, for one, two and three replicas behind
nginx, requests come at fixed rates (a Poisson process), and the simulation (`benchmarks/fleet.py`) is asked about the
same. Each replica may use so many `--cores`, by a control group of its own, so that three are three times one on a
small machine too. At last the simulation alone: replicas for higher rates, and a fleet that comes from zero. As root,
on Linux with control groups of version 1; needs `nginx`.
"""

import argparse
import asyncio
import contextlib
import json
import math
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import matplotlib.pyplot as plt

from benchmarks.fleet import Fleet, Scaling, Speed, replicas_needed
from benchmarks.pictures import questions
from benchmarks.proxy import nginx
from benchmarks.rolling import Replica

GROUPS = Path("/sys/fs/cgroup/cpu")
PERIOD_US = 20_000
USERS = (1, 2, 4, 8, 16)
SLOTS = 16
LOADS = (0.3, 0.6, 0.85)
"""Of what the replicas can do."""


@dataclass(frozen=True)
class Point:
    """Latencies in seconds at a rate, as they were measured and as the simulation has them."""

    replicas: int
    rate: float
    measured: dict[str, float]
    simulated: dict[str, float]
    answered: int
    failed: int


@contextlib.contextmanager
def group(name: str, cores: float | None) -> Iterator[Path]:
    """A control group whose processes are served first, but get no more than so many processors."""
    folder = GROUPS / f"sa2va-scale-{name}"
    folder.mkdir(exist_ok=True)
    (folder / "cpu.shares").write_text("50000")
    (folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
    (folder / "cpu.cfs_quota_us").write_text(str(int(cores * PERIOD_US)) if cores else "-1")
    try:
        yield folder
    finally:
        for process in (folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (GROUPS / "cgroup.procs").write_text(process)
        folder.rmdir()


def join(folder: Path, process: int) -> None:
    """Every thread of a process, and of those that it has started."""
    import psutil

    for member in [psutil.Process(process), *psutil.Process(process).children(recursive=True)]:
        (folder / "cgroup.procs").write_text(str(member.pid))


def bodies() -> list[dict[str, object]]:
    """Pictures and prompts, each sent many times: speeds are those of pictures seen before."""
    return [
        {"base64Image": question.base64_image, "prompt": question.prompt, "max_new_tokens": 32}
        for question in questions(8, 400, seed=1)
    ]


def closed(url: str, users: int, seconds: float) -> tuple[float, list[float]]:
    """Requests a second, and the seconds of each, of users that wait for their answers."""
    until, asked = time.monotonic() + seconds, bodies()

    def use(number: int) -> list[float]:
        numbers, taken = random.Random(number), []
        with httpx.Client(base_url=url, timeout=120) as client:
            while time.monotonic() < until:
                begun = time.monotonic()
                client.post("/process", json=numbers.choice(asked)).raise_for_status()
                taken.append(time.monotonic() - begun)
        return taken

    with ThreadPoolExecutor(users) as pool:
        taken = [second for found in pool.map(use, range(users)) for second in found]
    return len(taken) / seconds, taken


async def opened(url: str, rate: float, seconds: float) -> tuple[list[float], int]:
    """The seconds of requests that come at a rate, whatever becomes of those before; and how many failed."""
    numbers, asked, taken, failed = random.Random(5), bodies(), [], 0

    async def ask(client: httpx.AsyncClient) -> None:
        nonlocal failed
        begun = time.monotonic()
        try:
            (await client.post("/process", json=numbers.choice(asked))).raise_for_status()
            taken.append(time.monotonic() - begun)
        except httpx.HTTPError:
            failed += 1

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client, asyncio.TaskGroup() as tasks:
        begun, due = time.monotonic(), 0.0
        while (due := due + numbers.expovariate(rate)) < seconds:  # late ones do not make the others later
            await asyncio.sleep(begun + due - time.monotonic())
            tasks.create_task(ask(client))
    return taken, failed


def quantiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {f"p{percent}": ordered[int(percent / 100 * (len(ordered) - 1))] for percent in (50, 95)}


def measure_speed(url: str, seconds: float) -> tuple[Speed, list[float]]:
    """How fast a replica is with so many requests at once, and what single requests take, relative to their mean."""
    closed(url, 4, 5)  # everything once
    found = [closed(url, users, seconds) for users in USERS]
    for users, (rate, taken) in zip(USERS, found, strict=True):
        print(
            f"{users:3} at once: {rate:6.2f} requests a second, median {1e3 * statistics.median(taken):.0f} ms",
            flush=True,
        )
    alone = found[0][1]
    rates = tuple(max(rate for rate, _ in found[: place + 1]) for place in range(len(found)))  # never slower
    return Speed(USERS, rates), [second / statistics.mean(alone) for second in alone]


def compare(ports: list[int], speed: Speed, works: list[float], seconds: float) -> Iterator[Point]:
    """Each number of replicas at each load."""
    for count in range(1, len(ports) + 1):
        with nginx(ports[:count]) as url:
            for load in LOADS:
                rate = load * count * max(speed.per_second)
                taken, failed = asyncio.run(opened(url, rate, seconds))
                simulated = [
                    Fleet(speed, SLOTS, works, Scaling(count, count), seed).run(rate, seconds) for seed in range(10)
                ]
                all_of_them = [second for outcome in simulated for second in outcome.seconds]
                yield Point(count, rate, quantiles(taken), quantiles(all_of_them), len(taken), failed)


def draw(points: list[Point], speed: Speed, works: list[float], out: Path) -> None:
    """The 95th percentile by rate, simulated as lines and measured as dots; and a fleet from zero."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    for count in sorted({point.replicas for point in points}):
        most = count * max(speed.per_second)
        rates = [most * share / 100 for share in range(10, 97, 8)]
        lines = [Fleet(speed, SLOTS, works, Scaling(count, count), 2).run(rate, 200).quantile(0.95) for rate in rates]
        (line,) = left.plot(rates, lines, label=f"{count} replica{'s' if count > 1 else ''}")
        found = [point for point in points if point.replicas == count]
        left.scatter([p.rate for p in found], [p.measured["p95"] for p in found], color=line.get_color(), zorder=3)
    left.set(
        xlabel="requests a second",
        ylabel="95th percentile, s",
        title="simulated (lines), measured (dots)",
        ylim=(0, None),
    )
    left.legend(frameon=False)
    scaling = Scaling(0, 4, target=12, cold_start_s=60, calm_s=300)
    outcome = Fleet(speed, SLOTS, works, scaling, 3).run(1.5 * max(speed.per_second), 1200)
    right.step([at for at, _ in outcome.replicas], [count for _, count in outcome.replicas], where="post")
    right.set(xlabel="s", ylabel="replicas", title="from zero, at 1.5 times what one can do; 60 s of cold start")
    figure.tight_layout()
    figure.savefig(out, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--cores", type=float, default=0.4)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("docs/scale.png"))
    options = parser.parse_args()
    os.environ.update(SA2VA_THREADS="1", SA2VA_SLOTS=str(SLOTS), SA2VA_RATE_LIMIT="", SA2VA_MAX_QUEUE="512")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        join(stack.enter_context(group("client", None)), os.getpid())
        replicas = [Replica(Path(folder) / str(number)) for number in range(options.replicas)]
        try:
            for number, replica in enumerate(replicas):
                join(stack.enter_context(group(str(number), options.cores)), replica.process.pid)
            speed, works = measure_speed(f"http://127.0.0.1:{replicas[0].port}", options.seconds / 2)
            points: list[Point] = []
            for point in compare([replica.port for replica in replicas], speed, works, options.seconds):
                points.append(point)
                print(json.dumps({name: _rounded(value) for name, value in asdict(point).items()}), flush=True)
        finally:
            for replica in replicas:
                replica.stop()
    for rate in (0.5, 1, 2, 5):
        wanted = rate * max(speed.per_second)
        needed = replicas_needed(speed, SLOTS, works, wanted, 3 * statistics.mean(works) / speed.per_second[0])
        print(f"{wanted:.0f} requests a second, p95 within three times a lonely request: {needed} replicas", flush=True)
    draw(points, speed, works, options.out)


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    return round(value, 3) if isinstance(value, float) and math.isfinite(value) else value


if __name__ == "__main__":
    main()
