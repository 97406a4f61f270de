"""The command lines of this package: what its parsers share."""

from argparse import ArgumentParser, RawDescriptionHelpFormatter


def parser_of(description: str | None) -> ArgumentParser:
    """A parser that shows a module's docstring as it is written."""
    return ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)


def stage_parser(
    description: str | None,
    stage: str,
    minutes: float,
    lr: float,
    start_help: str,
    start: str | None = None,
    batch: int | None = None,
) -> ArgumentParser:
    """The options of every stage, with its own defaults; `--batch` only where it has one. A stage adds its others."""
    parser = parser_of(description)
    parser.add_argument("--minutes", type=float, default=minutes)
    if batch is not None:
        parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--stage", default=stage)
    parser.add_argument("--lr", type=float, default=lr)
    parser.add_argument("--start", default=start, help=start_help)
    return parser


def shards_parser(description: str | None, shards: dict[str, int]) -> ArgumentParser:
    """How many shards of each kind to draw, by so many processes."""
    parser = parser_of(description)
    for kind, count in shards.items():
        parser.add_argument(f"--{kind}", type=int, default=count, metavar="SHARDS")
    parser.add_argument("--workers", type=int, default=2)
    return parser
