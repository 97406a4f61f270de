"""Settings as options of a command: one for each, under its own name."""

from collections.abc import Callable
from typing import Any

import click

from sa2va_bento.settings import VARIABLES, Settings


def setting_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds an option for every setting. Values stay text: they are checked where variables are."""
    for variable, name in reversed(list(VARIABLES.items())):
        field = Settings.model_fields[name]
        default = "" if field.default is None else f" [{field.default}]"
        about = f"{field.description}{default}"
        decorate: Any = click.option(f"--{name.replace('_', '-')}", name, metavar="VALUE", help=f"{about} ({variable})")
        command = decorate(command)
    return command
