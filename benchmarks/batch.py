"""A data set through `sa2va batch`, beside a loop over `predict` and beside the engine alone.

    python -m benchmarks.batch [--rows 2000] [--rounds 3] [--memory-rows 20000] [--only speed,memory,kills]

The rows are drawn scenes of 640 x 480 as JPEG files, each asked for one mask. What is compared is interleaved: in each
round a part of the rows goes through all three. The engine alone gets sequences whose pictures are prepared already,
and nothing is made of its logits. Memory is what the process holds after 2,000 rows and after many. `kills` ends
`sa2va batch` by SIGKILL at ten random moments, starts it again each time, and compares what is there in the end with an
unbroken run.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import psutil
from tqdm import tqdm

from benchmarks.pictures import picture
from sa2va_bento.cli.batch.answers import Wanted, answer_rows
from sa2va_bento.cli.batch.results import Results
from sa2va_bento.cli.batch.rows import rows_of
from sa2va_bento.cli.batch.run import _record
from sa2va_bento.engine.engine import Engine, Outcome
from sa2va_bento.engine.scheduler import Scheduler
from sa2va_bento.engine.sequence import Generation, Sequence
from sa2va_bento.local.pictures import to_image
from sa2va_bento.local.predictor import Predictor
from sa2va_bento.types import PredictRequest

PROMPT = "Please segment the red circle."
RUNS = ("unbroken", "killed")
DRAWN = 500
"""Pictures that are drawn; more rows than that are asked about the same files under other names."""


def draw(folder: Path, rows: int) -> None:
    """Files for so many rows, each with bytes of its own: no cache answers for another."""
    for number in range(min(rows, DRAWN)):
        picture(number, (640, 480)).save(folder / f"{number:06}.jpg", quality=90)
    for number in range(DRAWN, rows):
        image = to_image(folder / f"{number % DRAWN:06}.jpg")
        image.putpixel((number % 640, number // 640), (number % 256, 0, 0))
        image.save(folder / f"{number:06}.jpg", quality=90)


def by_batch(predictor: Predictor, folder: Path, out: Path) -> float:
    """Seconds of all rows of a folder, files read and results written."""
    rows = list(rows_of(str(folder), [PROMPT]))
    start = time.perf_counter()
    with closing(Results(out)) as results:
        _record(answer_rows(predictor, rows, Wanted({}, out)), results, tqdm(disable=True))
    return time.perf_counter() - start


def by_loop(predictor: Predictor, folder: Path) -> float:
    start = time.perf_counter()
    for path in sorted(folder.glob("*.jpg")):
        predictor.predict(path, PROMPT)
    return time.perf_counter() - start


def by_engine(predictor: Predictor, folder: Path) -> float:
    """The steps of the engine, in this thread; the predictor's own has nothing to do meanwhile."""
    sequences: list[Sequence] = []
    for path in sorted(folder.glob("*.jpg")):
        sequences.append(predictor._processor.prepare(PredictRequest(PROMPT, to_image(path))))
        image = sequences[-1].picture
        assert image
        image.tiles()
        image.sam_pixels()
    outcomes: list[Outcome] = []
    engine = Engine(predictor._runner, lambda _, outcome: outcomes.append(outcome), Scheduler(predictor._runner.limits))
    start = time.perf_counter()
    for sequence in sequences:
        engine.add(sequence)
    while engine.has_work:
        engine.step()
    assert all(isinstance(outcome, Generation) for outcome in outcomes)
    return time.perf_counter() - start


def speed(rows: int, rounds: int) -> dict[str, float]:
    """Rows a second, medians over the rounds."""
    found: dict[str, list[float]] = {"batch": [], "loop": [], "engine": []}
    with tempfile.TemporaryDirectory() as place, Predictor.load(feature_cache_mb=0, prefix_cache_mb=0) as predictor:
        for number in range(rounds):
            folder = Path(place) / str(number)
            folder.mkdir()
            draw(folder, rows)
            part, few = rows, Path(place) / f"{number}-few"
            few.mkdir()
            for path in sorted(folder.glob("*.jpg"))[: rows // 5]:
                (few / path.name).symlink_to(path)
            found["loop"].append(rows // 5 / by_loop(predictor, few))
            found["batch"].append(part / by_batch(predictor, folder, Path(place) / f"out-{number}"))
            found["engine"].append(rows // 5 / by_engine(predictor, few))
    medians = {f"{name}, rows/s": statistics.median(values) for name, values in found.items()}
    batch, loop, engine = (medians[f"{name}, rows/s"] for name in ("batch", "loop", "engine"))
    return {**medians, "batch of the loop": batch / loop, "batch of the engine": batch / engine}


def memory(rows: int) -> dict[str, float]:
    """Megabytes of the process after each tenth of the rows."""
    found: dict[str, float] = {}
    process = psutil.Process()
    with tempfile.TemporaryDirectory() as place, Predictor.load(feature_cache_mb=0, prefix_cache_mb=0) as predictor:
        for part in range(10):
            folder = Path(place) / str(part)
            folder.mkdir()
            draw(folder, rows // 10)
            by_batch(predictor, folder, Path(place) / "out" / str(part))
            found[f"after {(part + 1) * rows // 10}, MB"] = process.memory_info().rss / 1e6
    return found


def kills(rows: int, times: int = 10) -> dict[str, float]:
    """How many runs were killed, the lines that they left, and whether those are an unbroken run's."""
    rng, killed = random.Random(0), 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "pictures"
        folder.mkdir()
        draw(folder, rows)

        def started(out: str) -> "subprocess.Popen[bytes]":
            command = ["-m", "sa2va_bento", "batch", str(folder), "--prompt", PROMPT, "--quiet", "--format", "masks"]
            return subprocess.Popen([sys.executable, *command, "--out", f"{place}/{out}"], stderr=subprocess.DEVNULL)

        def lines(out: str) -> list[str]:
            file = Path(place) / out / "results.jsonl"
            return file.read_text().splitlines() if file.is_file() else []

        assert started("unbroken").wait() == 0
        while killed < times:
            process, before = started("killed"), len(lines("killed"))
            while process.poll() is None and len(lines("killed")) == before:
                time.sleep(0.05)
            time.sleep(rng.uniform(0, rows / 30 / times))
            killed += process.poll() is None
            process.kill()
            if process.wait() == 0:
                break
        assert started("killed").wait() == 0
        masks = [{p.name: p.read_bytes() for p in sorted((Path(place) / out / "files").iterdir())} for out in RUNS]
        same = lines("killed") == lines("unbroken") and masks[0] == masks[1]
        return {"kills": killed, "lines": len(lines("killed")), "equal to an unbroken run": same}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-rows", type=int, default=20_000)
    parser.add_argument("--only", default="speed,memory")
    arguments = parser.parse_args()
    chosen = arguments.only.split(",")
    if "speed" in chosen:
        print("speed", json.dumps(speed(arguments.rows // arguments.rounds, arguments.rounds), indent=1))
    if "kills" in chosen:
        print("kills", json.dumps(kills(arguments.rows), indent=1))
    if "memory" in chosen:
        print("memory", json.dumps(memory(arguments.memory_rows), indent=1))


if __name__ == "__main__":
    main()
