"""`python -m sa2va_bento`: what is supported, whether a checkpoint fits, and fetching one.

python -m sa2va_bento models              the published checkpoints and what they need
python -m sa2va_bento check MODEL         family, shape, memory and tensors of a Hub id or folder, nothing loaded
python -m sa2va_bento download MODEL      fills the Hub's cache
"""

import argparse
import sys

from sa2va_bento.errors import StartupError
from sa2va_bento.settings import load_settings
from sa2va_bento.zoo import ZOO


def models() -> None:
    """Prints the table of published checkpoints."""
    print(f"{'model':<32}{'vision':<16}{'language model':<17}{'billions':>8}{'GiB bf16':>10}")
    for known in ZOO:
        size = f"{known.billions:>8.2f}{known.weights_gib:>10.1f}"
        print(f"{known.model:<32}{known.vision:<16}{known.language:<17}{size}")


def check(model: str) -> None:
    """Prints what a checkpoint is and needs; raises StartupError when it can't be served."""
    from sa2va_bento.model.checkpoint import choose_placement, inspect
    from sa2va_bento.model.hub import describe
    from sa2va_bento.model.memory import estimate, free_memory, parameter_counts
    from sa2va_bento.workload import limits_of, workload_of

    settings = load_settings()
    folder, headers = describe(model, settings.model_revision, settings.cache_dir)
    found = inspect(folder, headers)
    placement = choose_placement(settings.device, settings.dtype)
    workload = workload_of(settings, limits_of(settings, found.config))
    needed = estimate(found.config, placement.dtype.itemsize, workload, settings.quantization)
    print(f"folder    {folder}{'' if headers is None else ', the weights still on the Hub'}")
    print(f"family    {found.config.family}, template {found.config.template}")
    if found.config.sam2.has_tuned_decoder:
        print("          Sa2VA-i: a tuned mask decoder for prompts, the original one for following objects")
    for part, count in parameter_counts(found.config).items():
        print(f"          {part:<20}{count / 1e6:>10.1f} M parameters")
    print(f"tensors   {found.tensors} in {found.files} file(s), every one has its place")
    print(f"memory    {needed} in {str(placement.dtype).removeprefix('torch.')}")
    for device in (placement.device, *placement.others):
        print(f"device    {device}, {free_memory(device) / 2**30:.2f} GiB free")
    print("licence   that of the checkpoint's authors: see its page or the README beside it")


def download(model: str) -> None:
    """Fetches a checkpoint from the Hub and prints its folder."""
    from sa2va_bento.model.hub import resolve

    settings = load_settings()
    print(resolve(model, settings.model_revision, settings.cache_dir))


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0, or 1 after one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m sa2va_bento", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("models")
    for name in ("check", "download"):
        commands.add_parser(name).add_argument("model", help="Hub id or folder")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "models":
            models()
        else:
            {"check": check, "download": download}[chosen.command](chosen.model)
    except StartupError as error:
        print(f"sa2va: {error.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
