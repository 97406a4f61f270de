"""`serve`: BentoML's server on this package's service, with settings from the command line."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from sa2va_bento.errors import StartupError
from sa2va_bento.settings import VARIABLES, with_variables

SERVICE = Path(__file__).parent.parent.parent / "service.py"


def serve(port: int, host: str, settings: Mapping[str, str | None]) -> None:
    """Becomes the server's process.

    Raises:
        StartupError: a setting is wrong, or the service is not beside the package (in a wheel it is not).
    """
    if not SERVICE.is_file():
        raise StartupError(
            "serve needs the project's folder, where service.py is: run it from a clone, or `bentoml serve`"
        )
    variables = {variable: settings.get(name) for variable, name in VARIABLES.items()}
    given = {variable: value for variable, value in variables.items() if value is not None}
    everything = with_variables(given)
    command = [sys.executable, "-m", "bentoml", "serve", "service:Sa2VA", "--port", str(port), "--host", host]
    os.chdir(SERVICE.parent)
    os.execve(sys.executable, command, everything)
