"""Makes the nano model: every stage in order, each resumed where it stopped, then export.

    python -m training.stages.run              # from nothing: some four hours on two CPU cores
    python -m training.stages.run --go-on      # from the embedded checkpoint: half of that
    python -m training.stages.run --scale 0.1  # a quick pass over everything, to see that it works

Stages that stand on one line below run side by side, one thread each; minutes are of processor time.
"""

import subprocess
import sys
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


START = ("--start", "edition")
FROM_NOTHING = (
    (Stage("pretrain_vit", 95), Stage("pretrain_sam", 75)),
    (Stage("train_projector", 4),),
    (Stage("train_language", 120), Stage("train_memory", 60)),
)
GOING_ON = (
    (Stage("pretrain_vit", 52, START), Stage("pretrain_sam", 25, START)),
    (Stage("train_projector", 4, START),),
    (Stage("train_language", 90, START), Stage("train_memory", 45)),
)
SHARDS = ("data.picture_shards", "data.clip_shards")


def run_abreast(stages: tuple[Stage, ...], scale: float) -> None:
    """Starts the stages together and waits for all; one that fails ends everything."""
    running = [subprocess.Popen(stage.command(scale)) for stage in stages]
    if max(process.wait() for process in running):
        sys.exit(f"failed: one of {', '.join(stage.module for stage in stages)}")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="share of each stage's minutes")
    parser.add_argument("--go-on", action="store_true", help="start from the embedded checkpoint's weights")
    parser.add_argument("--out", help="folder of the checkpoint; default sa2va_bento/nano")
    args = parser.parse_args()
    for module in (*SHARDS, "checkpoint.warm_start") if args.go_on else SHARDS:
        run_module(module)
    for stages in GOING_ON if args.go_on else FROM_NOTHING:
        run_abreast(stages, args.scale)
    run_module("checkpoint.export", *(["--out", args.out] if args.out else []))


def run_module(module: str, *flags: str) -> None:
    subprocess.run([sys.executable, "-m", f"training.{module}", *flags], check=True)


if __name__ == "__main__":
    main()
