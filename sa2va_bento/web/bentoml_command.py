"""`bentoml sa2va`: the package's commands under BentoML's.

BentoML loads this module, as every extension of its command line, before it does anything; the service's own only after
it has made its home. So here is the place to say in one line that there can be none, where BentoML would end in a
traceback.
"""

import runpy
import sys

import click
from bentoml._internal.configuration.containers import BentoMLContainer


def check_home() -> None:
    """Ends the process where BentoML's home is not to be had."""
    try:
        BentoMLContainer.bentoml_home.get()
    except OSError as error:
        sys.exit(f"sa2va: BENTOML_HOME is no folder that can be made or written: {error}")


check_home()


@click.command("sa2va", context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> None:
    """What `python -m sa2va_bento` does."""
    sys.argv[1:] = arguments
    runpy.run_module("sa2va_bento", run_name="__main__")
