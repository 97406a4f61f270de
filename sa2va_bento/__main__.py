"""`python -m sa2va_bento`: what is supported, whether a checkpoint fits, and fetching one.

python -m sa2va_bento models              the published checkpoints and what they need
python -m sa2va_bento check MODEL         family, shape, memory and tensors of a Hub id or folder, nothing loaded
python -m sa2va_bento download MODEL      fills the Hub's cache
check and download take --revision: a branch, tag or commit
"""

import argparse
import sys

from sa2va_bento.errors import StartupError
from sa2va_bento.settings import load_settings
from sa2va_bento.zoo import LAYOUTS, ZOO


def models() -> None:
    """Prints the table of published checkpoints, and what else is supported."""
    settings = load_settings()
    print(f"{'model':<32}{'vision':<16}{'language model':<17}{'billions':>8}{'weights':>9}{'cache':>8}")
    for known in ZOO:
        cache = known.cache_gib(settings.slots * settings.context)
        size = f"{known.billions:>8.2f}{known.weights_gib:>9.1f}{cache:>8.1f}"
        print(f"{known.model:<32}{known.vision:<16}{known.language:<17}{size}")
    print(f"\nGiB in bfloat16; the cache is for {settings.slots} requests (SA2VA_SLOTS) of {settings.context} tokens")
    print("(SA2VA_CONTEXT). check MODEL adds what pictures and kept features take. Any other checkpoint of these")
    print("layouts is served too:")
    for architecture, languages in LAYOUTS:
        print(f"  {architecture}: {', '.join(languages)}")


def check(model: str, revision: str | None) -> None:
    """Prints what a checkpoint is and needs; raises StartupError when it can't be served anywhere."""
    from sa2va_bento.report import lines

    for line in lines(model, revision, load_settings()):
        print(line)


def download(model: str, revision: str | None) -> None:
    """Fetches a checkpoint from the Hub and prints its folder."""
    from sa2va_bento.model.hub import resolve

    settings = load_settings()
    print(resolve(model, revision or settings.model_revision, settings.cache_dir))


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0, or 1 after one line on stderr; 130 where the user stopped it, as shells have it."""
    parser = argparse.ArgumentParser(prog="python -m sa2va_bento", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("models")
    for name in ("check", "download"):
        command = commands.add_parser(name)
        command.add_argument("model", help="Hub id or folder")
        command.add_argument("--revision", help="branch, tag or commit; SA2VA_MODEL_REVISION where not given")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "models":
            models()
        else:
            {"check": check, "download": download}[chosen.command](chosen.model, chosen.revision)
    except StartupError as error:
        print(f"sa2va: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("sa2va: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
