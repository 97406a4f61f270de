"""Makes the nano model from nothing: every stage in order, each resumed where it stopped, then export.

    python -m training.run            # about two and a half hours on two CPU cores
    python -m training.run --scale 0.1  # a quick pass over everything, to see that it works

The two pretrainings do not depend on each other and run side by side, one thread each.
"""

import argparse
import subprocess
import sys

MINUTES = {"pretrain_vit": 28.0, "pretrain_sam": 38.0, "train_language": 20.0, "train_joint": 45.0}
ABREAST = ("pretrain_vit", "pretrain_sam")


def command(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"training.{module}", *arguments]


def stage(module: str, scale: float, threads: int) -> list[str]:
    return command(module, "--minutes", str(MINUTES[module] * scale), "--threads", str(threads))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of each stage's minutes")
    parser.add_argument("--out", help="folder of the checkpoint; default sa2va_bento/nano")
    args = parser.parse_args()
    subprocess.run(command("pool"), check=True)
    running = [subprocess.Popen(stage(module, args.scale, 1)) for module in ABREAST]
    if max(process.wait() for process in running):
        sys.exit("a pretraining failed")
    for module in ("train_language", "train_joint"):
        subprocess.run(stage(module, args.scale, 2), check=True)
    subprocess.run(command("export", *(["--out", args.out] if args.out else [])), check=True)


if __name__ == "__main__":
    main()
