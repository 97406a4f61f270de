"""`python -m sa2va_bento`: what is supported, whether a checkpoint fits, and fetching one.

python -m sa2va_bento models              the published checkpoints and what they need
python -m sa2va_bento check MODEL         family, shape, memory and tensors of a Hub id or folder, nothing loaded
python -m sa2va_bento download MODEL      fills the Hub's cache
check and download take --revision: a branch, tag or commit
"""

import argparse
import sys

from sa2va_bento.errors import StartupError


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0, or 1 after one line on stderr; 130 where the user stopped it, as shells have it."""
    chosen = _parser().parse_args(arguments)
    try:
        _run(chosen)
    except StartupError as error:
        print(f"sa2va: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("sa2va: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sa2va_bento", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("models")
    for name in ("check", "download"):
        command = commands.add_parser(name)
        command.add_argument("model", help="Hub id or folder")
        command.add_argument("--revision", help="branch, tag or commit; SA2VA_MODEL_REVISION where not given")
    return parser


def _run(chosen: argparse.Namespace) -> None:
    """Each command imports its own libraries: --help needs none of them."""
    match chosen.command:
        case "models":
            from sa2va_bento.cli.models import models

            models()
        case "check":
            from sa2va_bento.cli.check import check

            check(chosen.model, chosen.revision)
        case "download":
            from sa2va_bento.cli.download import download

            download(chosen.model, chosen.revision)
