"""Makes the nano model: every stage in order, each resumed where it stopped, then export.

    python -m training.stages.run              # from nothing: some four hours on two CPU cores
    python -m training.stages.run --go-on      # from the embedded checkpoint: two and a half
    python -m training.stages.run --scale 0.1  # a quick pass over everything, to see that it works

The lanes of a step below run side by side, one thread each, the stages of a lane one after the other; minutes are of
processor time. The language model is trained twice in each of three rounds, on different data, and averaged.
"""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from training.arguments import parser_of


@dataclass(frozen=True)
class Stage:
    """A module of this folder with its minutes of training and its flags."""

    module: str
    minutes: float
    flags: tuple[str, ...] = ()

    def command(self, scale: float) -> list[str]:
        numbers = ("--minutes", str(self.minutes * scale), "--threads", "1")
        return [sys.executable, "-m", f"training.stages.{self.module}", *self.flags, *numbers]


Lane = tuple[Stage, ...]


def _language(number: int, minutes: float, *flags: str) -> tuple[Lane, Lane]:
    """The stages `round<number>a` and `round<number>b`: the same training on other data."""
    first, second = (
        Stage("train_language", minutes, ("--stage", f"round{number}{letter}", *flags, "--seed", str(seed)))
        for letter, seed in (("a", 2_000_003 * (number - 1)), ("b", 2_000_003 * (number - 1) + 1_000_003))
    )
    return (first,), (second,)


def _again(number: int, minutes: float) -> tuple[Lane, Lane]:
    """A round that goes on from the mean of the one before, at a lower rate, with what is seen left as it is."""
    before = f"round{number - 1}"
    frozen = ("--projector", before, "--freeze-projector", "--lr", "3e-4")
    return _language(number, minutes, "--start", before, *frozen)


START = ("--start", "edition")
FROM_NOTHING = (
    ((Stage("pretrain_vit", 95), Stage("train_projector", 5)), (Stage("pretrain_sam", 70), Stage("train_memory", 30))),
    _language(1, 60),
    _again(2, 30),
    _again(3, 24),
)
GOING_ON = (
    (
        (Stage("pretrain_vit", 48, (*START, "--lr", "8e-4")), Stage("train_projector", 5, START)),
        (Stage("pretrain_sam", 36, (*START, "--lr", "8e-4")), Stage("train_memory", 24)),
    ),
    _language(1, 28, *START),
    _again(2, 22),
    _again(3, 24),
)
MEANS = (
    (),
    ("round1a", "round1b", "--stage", "round1"),
    ("round2a", "round2b", "--stage", "round2"),
    ("round2a", "round2b", "round3a", "round3b", "--stage", "average"),
)
"""After each step, whose mean becomes what; the export takes `average`, where no round loses what another gained."""
SHARDS = ("data.picture_shards", "data.clip_shards")


def run_abreast(lanes: tuple[Lane, ...], scale: float) -> None:
    """Runs the lanes side by side and waits for all; a stage that fails ends everything once the others are done."""
    with ThreadPoolExecutor(len(lanes)) as pool:
        failed = [stage for stage in pool.map(lambda lane: run_lane(lane, scale), lanes) if stage]
    if failed:
        sys.exit(f"failed: {', '.join(stage.module for stage in failed)}")


def run_lane(lane: Lane, scale: float) -> Stage | None:
    """The stage that failed, if one did."""
    return next((stage for stage in lane if subprocess.run(stage.command(scale), check=False).returncode), None)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="share of each stage's minutes")
    parser.add_argument("--go-on", action="store_true", help="start from the embedded checkpoint's weights")
    parser.add_argument("--out", help="folder of the checkpoint; default sa2va_bento/nano")
    args = parser.parse_args()
    for module in (*SHARDS, "checkpoint.warm_start") if args.go_on else SHARDS:
        run_module(module)
    for lanes, mean in zip(GOING_ON if args.go_on else FROM_NOTHING, MEANS, strict=True):
        run_abreast(lanes, args.scale)
        if mean:
            run_module("checkpoint.average", *mean)
    run_module("checkpoint.export", *(["--out", args.out] if args.out else []))


def run_module(module: str, *flags: str) -> None:
    subprocess.run([sys.executable, "-m", f"training.{module}", *flags], check=True)


if __name__ == "__main__":
    main()
