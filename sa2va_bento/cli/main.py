"""`sa2va` (also `python -m sa2va_bento`): ask about pictures and videos, label whole folders, serve, and look after
checkpoints."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sa2va_bento import __version__
from sa2va_bento.cli.options import setting_options
from sa2va_bento.errors import Sa2VAError

EXAMPLES = """
\b
Examples:
  sa2va ask photo.jpg "Please segment the dog."
  sa2va ask photo.jpg "Please segment the dog." --out found --format overlay --format coco
  sa2va ask clip.mp4 "Please segment the dog." --out found
  sa2va ask - "What is in the picture?" --json < photo.jpg
  sa2va ask photo.jpg "Please segment the dog." --url http://localhost:3303
  sa2va batch photos/ --prompt "Please segment the dog." --out labels --format yolo
  sa2va evaluate refcoco --data data/ref_seg --images data/train2014 --model ByteDance/Sa2VA-4B
  sa2va serve --port 3303 --model-path ByteDance/Sa2VA-4B
"""

DATASETS = ("refcoco", "refcoco+", "refcocog", "reasonseg", "mevis", "ref-youtube-vos", "ref-davis", "gcg")
FORMATS = ("json", "masks", "overlay", "instances", "coco", "yolo", "labelme", "label_studio", "cvat")


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXAMPLES)
@click.version_option(__version__, prog_name="sa2va")
def sa2va() -> None:
    """Sa2VA: text and masks for pictures and videos."""


def model_options(command: Callable[..., None]) -> Callable[..., None]:
    """Which model answers, or which service."""
    chosen = click.option(
        "--model", metavar="MODEL", help="Hub id or folder; MODEL_PATH, or the embedded one otherwise."
    )
    device = click.option("--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:N or all.")
    return chosen(device(command))


def answer_options(command: Callable[..., None]) -> Callable[..., None]:
    """How an answer is made."""
    threshold = click.option(
        "--threshold",
        type=click.FloatRange(0, 1),
        default=0.5,
        show_default=True,
        help="Probability of a mask's pixels.",
    )
    tokens = click.option("--max-new-tokens", type=click.IntRange(1), help="Most tokens of a reply.")
    adapter = click.option("--adapter", metavar="NAME", help="Which of SA2VA_ADAPTERS answers; the model otherwise.")
    return threshold(tokens(adapter(command)))


@sa2va.command()
@click.argument("picture")
@click.argument("prompt")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder to write to; made if need be.")
@click.option("--format", "formats", type=click.Choice(FORMATS), multiple=True, help="What to write; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole answer as JSON.")
@click.option("--url", metavar="URL", help="Ask a running service instead of loading a model.")
@click.option("--key", metavar="KEY", envvar="SA2VA_API_KEY", help="The service's key.")
@model_options
@answer_options
def ask(**chosen: Any) -> None:
    """Ask about PICTURE (a file, or - for standard input; a picture or a video) what PROMPT says.

    Prints the reply and what it points at. With --out writes files, by default json, masks and overlay.
    """
    from sa2va_bento.cli.ask import ask as run

    run(**chosen)


@sa2va.command()
@click.argument("source")
@click.option("--prompt", "prompts", multiple=True, help="What to ask about each picture; may be repeated.")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of the results.")
@click.option(
    "--format",
    "formats",
    type=click.Choice((*FORMATS, "parquet")),
    multiple=True,
    help="To write beside results.jsonl.",
)
@click.option("--quiet", is_flag=True, help="No progress bar.")
@click.option("--ray", metavar="ADDRESS", help="Spread it over a Ray cluster: its address, auto or local.")
@click.option("--actors", type=click.IntRange(1), help="With --ray, how many models; one for each GPU otherwise.")
@model_options
@answer_options
def batch(**chosen: Any) -> None:
    """Ask about every picture of SOURCE: a folder, a pattern, or a JSONL, CSV, Parquet or COCO file.

    All of these may lie in a store: s3://bucket/folder. A row of a file names a picture (image, file_name or path) and
    may have a prompt and an id of its own. Results go to OUT/results.jsonl in the order of the rows, what fails with
    its error. The same command goes on where it was stopped.
    """
    from sa2va_bento.cli.batch.run import batch as run

    run(**chosen)


@sa2va.command()
@click.argument("dataset", type=click.Choice(DATASETS))
@click.option(
    "--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="Its folder."
)
@click.option("--images", type=click.Path(exists=True, file_okay=False, path_type=Path), help="COCO's train2014.")
@click.option("--split", help="val, or valid_u of MeViS and valid of the other clips, where not given.")
@click.option("--out", default=Path("evaluation"), type=click.Path(path_type=Path), help="Folder of the results.")
@click.option(
    "--masks", type=click.Choice(("all", "first")), help="Of an answer; all of a picture, the first of a clip."
)
@click.option("--limit", type=click.IntRange(1), help="Only so many expressions.")
@click.option(
    "--bert", default="bert-base-uncased", show_default=True, help="What compares the phrases of gcg: Hub id or folder."
)
@click.option("--quiet", is_flag=True, help="No progress bar.")
@click.option("--url", metavar="URL", help="Ask a running service instead of loading a model.")
@click.option("--key", metavar="KEY", envvar="SA2VA_API_KEY", help="The service's key.")
@model_options
@answer_options
def evaluate(**chosen: Any) -> None:
    """Numbers of referring segmentation on DATASET, read from its published layout.

    cIoU and gIoU for pictures, J and F for clips, AP50, mIoU and recall for grounded captions (gcg); where a server
    keeps the annotations, the files that it takes. The same command goes on where it was stopped.
    """
    from sa2va_bento.cli.evaluate import evaluate as run

    run(**chosen)


@sa2va.command()
@click.option("--port", type=click.IntRange(1, 65_535), default=3303, show_default=True, help="Where to listen.")
@click.option("--host", default="127.0.0.1", show_default=True, help="On which address; 0.0.0.0 is every one.")
@setting_options
def serve(port: int, host: str, **settings: str | None) -> None:
    """Serve the model over HTTP. Each setting is an option; its variable counts where it is not given."""
    from sa2va_bento.cli.serve import serve as run

    run(port, host, settings)


@sa2va.command()
def models() -> None:
    """The published checkpoints and what they need."""
    from sa2va_bento.cli.models import models as run

    run()


@sa2va.command()
@click.argument("model")
@click.option("--revision", help="Branch, tag or commit; SA2VA_MODEL_REVISION where not given.")
def check(model: str, revision: str | None) -> None:
    """Family, shape, memory and tensors of MODEL (a Hub id or folder), nothing loaded."""
    from sa2va_bento.cli.check import check as run

    run(model, revision)


@sa2va.command()
@click.argument("model")
@click.option("--revision", help="Branch, tag or commit; SA2VA_MODEL_REVISION where not given.")
def download(model: str, revision: str | None) -> None:
    """Fill the Hub's cache with MODEL."""
    from sa2va_bento.cli.download import download as run

    run(model, revision)


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0; 1 after one line on stderr, 2 where the command line is wrong; 130 where the user stopped it,
    as shells have it."""
    try:
        return int(sa2va.main(arguments, prog_name="sa2va", standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except Sa2VAError as error:
        return _failed(error.message)
    except OSError as error:
        return _failed(f"{error.filename or 'a file'}: {error.strerror or error}")
    except (click.Abort, KeyboardInterrupt):
        print("sa2va: stopped; the same command goes on from here", file=sys.stderr)
        return 130


def _failed(message: str) -> int:
    click.secho(f"sa2va: {message}", err=True, fg="red")
    return 1


def run() -> None:
    """The script `sa2va`."""
    sys.exit(main())
