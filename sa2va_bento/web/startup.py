"""The processes of a service: how they start, what one knows of the other, and how a start that can't succeed ends.

`bentoml serve` is a supervisor and a worker process, both of which import the service. The supervisor (circus) starts
another worker for each that has died, for ever. So a worker that can't load its model tells the supervisor to leave,
and the supervisor leaves by itself when a worker dies that was never ready: one line on stderr, a non-zero exit.

They share a folder: the worker's metrics are in it, and how far each worker is.
"""

import atexit
import ctypes
import importlib.util
import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from _bentoml_sdk import Service  # pyright: ignore[reportMissingTypeStubs]
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.context import server_context

from sa2va_bento.errors import StartupError
from sa2va_bento.settings import Settings, load_settings, unknown_variables

logger = logging.getLogger(__name__)

SUPERVISOR = "_SA2VA_SUPERVISOR"
"""Environment variable through which a worker knows a supervisor that listens."""
METRICS = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable through which BentoML tells a worker the shared folder."""
IN_MEMORY = "/dev/shm"
LEAST_ROOM = 4 * 2**20
"""Bytes that must be free where the shared folder is made; it takes a few hundred thousand."""
QUIET_ENDS = (0, -signal.SIGTERM, -signal.SIGINT)
"""Exit statuses of a worker that was told to stop."""
PR_SET_PDEATHSIG = 1
PAUSE_S = 10.0
"""Until a worker that can't load, beside others that have, is tried again."""
STARTING, READY = "starting", "ready"
STOPPING = "stopping"
EXPORTERS: Mapping[tuple[str, str | None], str] = {
    ("zipkin", None): "opentelemetry.exporter.zipkin.json",
    ("jaeger", "thrift"): "opentelemetry.exporter.jaeger.thrift",
    ("jaeger", "grpc"): "opentelemetry.exporter.jaeger.proto.grpc",
    ("otlp", "grpc"): "opentelemetry.exporter.otlp.proto.grpc",
    ("otlp", "http"): "opentelemetry.exporter.otlp.proto.http",
}
"""What BentoML imports to send traces away, by `exporter_type` and `protocol`."""


def settings_or_exit() -> Settings:
    """The settings, or the end of the process with one line when the environment makes no sense."""
    try:
        return load_settings()
    except StartupError as error:
        sys.exit(f"sa2va: {error.message}")


def configure_logging(level: str) -> None:
    """Sets how much the package logs; BentoML's handlers write it."""
    logging.getLogger("sa2va_bento").setLevel(level)


def is_worker() -> bool:
    """Whether this process is one of those that answer requests."""
    return server_context.worker_index is not None


def settle_tracing(service: Service[Any]) -> None:
    """Spares requests the spans that BentoML makes of each of their messages even where nobody has configured tracing.
    To be called once the service is complete, whose own configuration is merged here, and before its app is made."""
    logging.disable(logging.INFO)  # BentoML tells each time which configuration it applies
    service.inject_config()
    logging.disable(logging.NOTSET)
    if not _tracing()["sample_rate"]:
        os.environ.setdefault("OTEL_SDK_DISABLED", "true")


def _tracing() -> dict[str, Any]:
    return BentoMLContainer.tracing.get()


def missing_exporter(tracing: Mapping[str, Any]) -> str | None:
    """The package that tracing as it is configured needs and lacks. BentoML asks for it when a worker starts, whose end
    in a traceback is not the operator's line."""
    kind = tracing["exporter_type"]
    options: dict[str, object] = tracing.get(kind) or {}
    protocol = options.get("protocol")
    module = EXPORTERS.get((kind, str(protocol) if protocol else None))
    if not tracing["sample_rate"] or module is None or not any(options.values()):
        return None
    with suppress(ModuleNotFoundError):
        if importlib.util.find_spec(module):
            return None
    return module.replace(".", "-")


def share_folder() -> None:
    """Chooses the folder that this service's processes share, before BentoML makes it. BentoML's own choice belongs to
    all services of a `BENTOML_HOME`, each of which empties it at its start. And it is on a disk: once that is full, a
    write to a mapped file, which each metric is, kills the process."""
    if is_worker():
        return
    try:
        places = (IN_MEMORY, tempfile.gettempdir())
    except OSError as error:
        sys.exit(f"sa2va: {error.strerror or error}")
    parent = next(filter(_has_room, places), None)
    if parent is None:
        sys.exit(f"sa2va: there is no room for the metrics, neither in {places[0]} nor in {places[1]}")
    name = f"sa2va-{os.getpid()}-{secrets.token_hex(4)}"
    BentoMLContainer.prometheus_multiproc_dir.set(os.path.join(parent, name))


def _has_room(folder: str) -> bool:
    if not os.access(folder, os.W_OK | os.X_OK):
        return False
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize >= LEAST_ROOM


def supervise() -> None:
    """In the supervisor, before its workers start: leaves when one of them can't, says when one has died, and removes
    the shared folder in the end."""
    folder = Path(BentoMLContainer.prometheus_multiproc_dir.get())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if package := missing_exporter(_tracing()):
        sys.exit(f"sa2va: tracing is configured, but {package} is not installed")
    _note_stop(folder)
    deaths = _Deaths(folder)
    signal.signal(signal.SIGUSR1, _leave)
    if hasattr(os, "waitid"):  # not in macOS
        signal.signal(signal.SIGCHLD, lambda _signal, _frame: deaths.look())
    os.environ[SUPERVISOR] = str(os.getpid())
    for name in unknown_variables(os.environ):
        logger.warning("%s is not a setting of this service: nothing reads it", name)


def _leave(_signal: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    sys.exit(1)


def _note_stop(folder: Path) -> None:
    """Has a note left where workers find it when the supervisor itself is told to stop: circus tells them the same when
    it only replaces them."""
    from circus.sighandler import SysHandler  # pyright: ignore[reportMissingTypeStubs] - workers do without

    silent = SysHandler.quit

    def noted(self: SysHandler) -> None:
        with suppress(OSError):
            (folder / STOPPING).touch()
        silent(self)

    SysHandler.quit = noted


class _Deaths:
    """Looks at workers that have died before circus does, which says nothing of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def look(self) -> None:
        """What a signal handler does."""
        if (self._folder / STOPPING).exists():
            return
        for note in self._folder.glob("worker_*"):
            process = int(note.name.removeprefix("worker_"))
            with suppress(ChildProcessError):
                if died := os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                    status = died.si_status if died.si_code == os.CLD_EXITED else -died.si_status
                    self._judge(process, status, self._bury(process))

    def _bury(self, process: int) -> bool:
        """Takes a worker out of the metrics' sums. Whether it ever was ready."""
        note = self._folder / f"worker_{process}"
        was_ready = note.read_text() == READY
        for left in (note, *self._folder.glob(f"gauge_live*_{process}.db")):
            left.unlink(missing_ok=True)
        return was_ready

    def _judge(self, process: int, status: int, was_ready: bool) -> None:
        """Says what a worker died of. Leaves if it was never ready, or if it was the last one and BentoML starts no
        other, which in a container it does not."""
        from bentoml.serving import running_inside_container

        was_told = status in QUIET_ENDS
        is_last = running_inside_container() and not any(self._folder.glob("worker_*"))
        ends_all = is_last or not (was_ready or was_told or _is_any_ready(self._folder))
        if ends_all or not was_told:
            state = "" if was_ready else " before it was ready"
            end = ": the service ends" if ends_all else ""
            line = f"sa2va: worker process {process} {_cause(status)}{state}{end}\n"
            os.write(2, line.encode())  # past the buffers, which the signal may have interrupted
        if ends_all:
            _leave(signal.SIGCHLD, None)


def _cause(status: int) -> str:
    if status in QUIET_ENDS:
        return "has stopped"
    if status > 0:
        return f"ended with status {status}"
    guess = ", perhaps for want of memory" if -status == signal.SIGKILL else ""
    return f"was killed by {signal.Signals(-status).name}{guess}"


def follow_supervisor() -> None:
    """In a worker, as early as can be: lets the supervisor know it, and is told to stop when the supervisor is no more,
    even if that was killed. Where a system does not tell, `is_orphan` does."""
    if not has_supervisor():
        return
    _note(STARTING)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if is_orphan():
        sys.exit("sa2va: the supervisor has gone")


def has_supervisor() -> bool:
    """Whether a supervisor started this process, and starts another when this one ends."""
    return is_worker() and SUPERVISOR in os.environ


def is_orphan() -> bool:
    """Whether the supervisor has gone, and this worker is alone."""
    return has_supervisor() and os.environ[SUPERVISOR] != str(os.getppid())


def is_service_stopping() -> bool:
    """In a worker: whether its supervisor stops, too, and no other worker takes its place."""
    return has_supervisor() and (Path(os.environ[METRICS]) / STOPPING).exists()


def is_another_ready() -> bool:
    """In a worker: whether one of the others answers requests."""
    return has_supervisor() and _is_any_ready(Path(os.environ[METRICS]))


def _is_any_ready(folder: Path) -> bool:
    for note in folder.glob("worker_*"):
        with suppress(OSError):
            if note.name != f"worker_{os.getpid()}" and note.read_text() == READY:
                return True
    return False


def note_ready() -> None:
    """In a worker: it answers requests."""
    if has_supervisor():
        _note(READY)


def _note(state: str) -> None:
    with suppress(OSError):
        (Path(os.environ[METRICS]) / f"worker_{os.getpid()}").write_text(state)


def tidy_up() -> None:
    """In an orphan, at its end: what the supervisor would do."""
    shutil.rmtree(os.environ[METRICS], ignore_errors=True)


def give_up(message: str) -> None:
    """In a worker: says why on stderr and ends the service; itself alone, after a pause, where others answer. Without a
    supervisor it only says so."""
    say(message)
    if is_another_ready():
        time.sleep(PAUSE_S)
        os._exit(1)
    if has_supervisor() and not is_orphan():
        os.kill(os.getppid(), signal.SIGUSR1)
        os._exit(1)


def stop_this_process(reason: str) -> None:
    """As if it had been told to stop, which it is not: says why."""
    with suppress(MemoryError, OSError):
        say(f"{reason}: worker process {os.getpid()} stops")
    os.kill(os.getpid(), signal.SIGTERM)


def end_this_process(within_s: float) -> NoReturn:
    """Ends it by force, unless it has ended by then."""
    time.sleep(within_s)
    os._exit(1)


def say(message: str) -> None:
    """One line for the operator."""
    print(f"sa2va: {message}", file=sys.stderr, flush=True)  # noqa: T201
