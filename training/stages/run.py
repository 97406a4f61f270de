"""Makes the nano model: every stage in order, each resumed where it stopped, then export.

    python -m training.stages.run              # from nothing: some five hours on two CPU cores
    python -m training.stages.run --go-on      # from the embedded checkpoint: half of that
    python -m training.stages.run --scale 0.1  # a quick pass over everything, to see that it works

The lanes of a step below run side by side, one thread each, the stages of a lane one after the other; minutes are of
processor time. The language model is trained twice in each of two rounds, on different data, and the two are averaged.
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

START = ("--start", "edition")
SECOND_SEED = ("--seed", "1000003")


def _language(name: str, minutes: float, *flags: str) -> tuple[Lane, Lane]:
    """The stages `<name>a` and `<name>b`, which see other data."""
    first, second = (
        Stage("train_language", minutes, ("--stage", f"{name}{letter}", *flags, *seed))
        for letter, seed in (("a", ()), ("b", SECOND_SEED))
    )
    return (first,), (second,)


SECOND_ROUND = ("--start", "round1", "--projector", "round1", "--freeze-projector", "--lr", "3e-4")
FROM_NOTHING = (
    ((Stage("pretrain_vit", 95), Stage("train_projector", 5)), (Stage("pretrain_sam", 70), Stage("train_memory", 30))),
    _language("round1", 60),
    _language("round2", 30, *SECOND_ROUND),
)
GOING_ON = (
    (
        (Stage("pretrain_vit", 48, (*START, "--lr", "8e-4")), Stage("train_projector", 5, START)),
        (Stage("pretrain_sam", 36, (*START, "--lr", "8e-4")), Stage("train_memory", 24)),
    ),
    _language("round1", 28, *START),
    _language("round2", 22, *SECOND_ROUND),
)
MEANS = (None, ("round1a", "round1b", "--stage", "round1"), ("round2a", "round2b"))
"""After each step, whose mean is taken."""
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
