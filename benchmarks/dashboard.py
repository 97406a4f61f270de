"""A picture of the Grafana dashboard, drawn from a real run: the service under a mixed load, watched by Prometheus.

    python -m benchmarks.dashboard [--seconds 120] [--out docs/dashboard.png]

Each panel's own queries are asked, with its variables filled in; a panel whose query is wrong, or finds nothing that
the load must show, ends the run. Needs `prometheus`.
"""

import argparse
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib import dates
from matplotlib.axes import Axes
from PIL import Image, ImageDraw

from benchmarks.compare import free_port, running
from tests.pictures import b64, encode

DASHBOARD = Path(__file__).parent.parent / "deploy/monitoring/dashboard.json"
STEP_S = 2
MAY_BE_EMPTY = {"Refused, left, failed", "Memory of the device, KV cache"}
"""Panels with queries that a good day on a CPU has nothing for."""
UNITS = {"s": "s", "reqps": "1/s", "percentunit": "share", "short": ""}
PROMPTS = (
    "Please segment the circle.",
    "What color is the square?",
    "Please describe the image. Please respond with interleaved segmentation masks for the corresponding parts.",
)


@contextlib.contextmanager
def prometheus(target: str) -> Iterator[httpx.Client]:
    """Prometheus, which looks at a service every second, as long as the block lasts."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "prometheus.yml"
        scrape = {"job_name": "sa2va", "scrape_interval": "1s", "static_configs": [{"targets": [target]}]}
        config.write_text(json.dumps({"scrape_configs": [scrape]}))
        options = [f"--config.file={config}", f"--storage.tsdb.path={folder}", f"--web.listen-address=127.0.0.1:{port}"]
        process = subprocess.Popen(["prometheus", *options, "--log.level=warn"])
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
                _wait_until_ready(client)
                yield client
        finally:
            process.terminate()
            process.wait()


def _wait_until_ready(client: httpx.Client) -> None:
    for _ in range(200):
        with contextlib.suppress(httpx.ConnectError):
            if client.get("/-/ready").status_code == 200:
                return
        time.sleep(0.1)
    raise RuntimeError("Prometheus does not start")


def load(url: str, seconds: float) -> None:
    """Users that come, stay and leave: few, then more than there are slots, then few again."""
    ends = time.monotonic() + seconds
    crowd = [(0.0, 1.0)] * 3 + [(0.3, 0.7)] * 30
    users = [threading.Thread(target=_use, args=(url, ends, seconds, *when, n)) for n, when in enumerate(crowd)]
    for user in users:
        user.start()
    for user in users:
        user.join()


def _use(url: str, ends: float, seconds: float, begin: float, end: float, seed: int) -> None:
    numbers = random.Random(seed)
    time.sleep(begin * seconds)
    until = ends - (1 - end) * seconds
    pictures = [b64(encode(scene(numbers))) for _ in range(5)]
    with httpx.Client(base_url=url, timeout=60) as client:
        while time.monotonic() < until:
            body = {"base64Image": numbers.choice(pictures), "prompt": numbers.choice(PROMPTS), "max_new_tokens": 64}
            if numbers.random() < 0.05:
                body["mask_threshold"] = 7  # refused
            client.post(numbers.choice(("/process", "/process_stream")), json=body)
            time.sleep(numbers.random() * 0.4)


def scene(numbers: random.Random) -> Image.Image:
    """A circle and a square, somewhere on some colour."""
    image = Image.new("RGB", (numbers.randint(300, 600), numbers.randint(200, 400)), _color(numbers))
    x, y = numbers.randint(40, 200), numbers.randint(40, 150)
    ImageDraw.Draw(image).ellipse((x - 35, y - 35, x + 35, y + 35), fill=_color(numbers))
    ImageDraw.Draw(image).rectangle((x + 50, y - 30, x + 100, y + 20), fill=_color(numbers))
    return image


def _color(numbers: random.Random) -> tuple[int, int, int]:
    return (numbers.randint(0, 255), numbers.randint(0, 255), numbers.randint(0, 255))


def ask(client: httpx.Client, expression: str, begun: float, ended: float) -> list[dict[str, Any]]:
    """What a panel's query finds in the time of the run."""
    for name, value in {"$__rate_interval": "10s", "$job": ".*", "$instance": ".*"}.items():
        expression = expression.replace(name, value)
    window = {"query": expression, "start": begun, "end": ended, "step": STEP_S}
    answer = client.get("/api/v1/query_range", params=window).json()
    if answer["status"] != "success":
        raise SystemExit(f"{expression}: {answer['error']}")
    return answer["data"]["result"]


def draw(client: httpx.Client, begun: float, ended: float, out: Path) -> None:
    """Every panel in its place."""
    dashboard = json.loads(DASHBOARD.read_text())
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    mpl.rcParams.update({"font.size": 7, "axes.spines.top": False, "axes.spines.right": False})
    figure = plt.figure(figsize=(15, rows * 0.36))
    grid = figure.add_gridspec(rows, 24, hspace=0.1, wspace=0.1, left=0.02, right=0.98, top=0.98, bottom=0.02)
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        box = grid[place["y"] : place["y"] + place["h"], place["x"] : place["x"] + place["w"]]
        left, bottom, right, top = box.get_position(figure).extents
        if panel["type"] == "row":
            figure.text(left, bottom, panel["title"], weight="bold", size=10)
            continue
        axes = figure.add_axes((left + 0.015, bottom + 0.012, right - left - 0.03, top - bottom - 0.03))
        draw_panel(axes, panel, [(ask(client, t["expr"], begun, ended), t["legendFormat"]) for t in panel["targets"]])
    figure.savefig(out, dpi=80)


def draw_panel(axes: Axes, panel: dict[str, Any], found: list[tuple[list[dict[str, Any]], str]]) -> None:
    """Lines, or one number."""
    unit = UNITS[panel["fieldConfig"]["defaults"]["unit"]]
    axes.set_title(f"{panel['title']}{f' [{unit}]' if unit else ''}", size=8, loc="left")
    series = [(_named(legend, line["metric"]), line["values"]) for lines, legend in found for line in lines]
    if not all(lines for lines, _ in found) and panel["title"] not in MAY_BE_EMPTY:
        raise SystemExit(f"{panel['title']}: a query finds nothing")
    if panel["type"] == "stat":
        axes.axis("off")
        peak = max(float(value) for _, values in series for _, value in values if value != "NaN")
        axes.text(0.5, 0.4, f"{peak:.3g}", size=22, ha="center", va="center", transform=axes.transAxes)
        axes.text(0.5, 0.05, "highest of the run", size=6, ha="center", transform=axes.transAxes)
        return
    if not series:
        return
    for name, values in series:
        times = [datetime.fromtimestamp(float(at)) for at, _ in values]
        axes.plot(times, [float(value) for _, value in values], linewidth=1, label=name)  # type: ignore[arg-type]
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(dates.AutoDateLocator(maxticks=5))
    axes.xaxis.set_major_formatter(dates.DateFormatter("%H:%M:%S"))
    axes.legend(fontsize=6, frameon=False, loc="upper right", ncols=2)


def _named(legend: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        legend = legend.replace(f"{{{{{name}}}}}", value)
    return legend


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--out", type=Path, default=Path("docs/dashboard.png"))
    options = parser.parse_args()
    port = free_port()
    command = [str(Path(sys.executable).with_name("bentoml")), "serve", "service:Sa2VA", "--port", str(port)]
    with running(command, port) as url, prometheus(url.removeprefix("http://")) as client:
        begun = time.time()
        load(url, options.seconds)
        time.sleep(3)
        draw(client, begun, time.time(), options.out)


if __name__ == "__main__":
    main()
