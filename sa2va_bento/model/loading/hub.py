"""Checkpoints on the Hugging Face Hub, through its own cache. Whatever goes wrong is one line that says what to do.

`HF_HOME`, `HF_TOKEN`, `HF_HUB_OFFLINE` and `HF_ENDPOINT` are huggingface-hub's and mean what they mean there; downloads
resume where they stopped and show their progress.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download, metadata_load, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    NotASafetensorsRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from sa2va_bento.errors import CheckpointError
from sa2va_bento.model.loading.weights import INDEX, WEIGHTS, Stored, weight_files

DESCRIPTION = ["*.json", "*.txt", "*.model"]
"""What says what a checkpoint is; with its weights, all that is fetched: no code, no pickle."""
FILES = [*DESCRIPTION, "*.safetensors"]
ADAPTER_FILES = ["adapter_config.json", "adapter_model.safetensors"]
TRAINED = ".pth"
"""What xtuner's training saves: pickles."""
HOW_TO_CONVERT = (
    "Sa2VA's own script writes safetensors, adapters merged: "
    "python tools/convert_to_hf.py CONFIG.py --pth-model CHECKPOINT.pth --save-path FOLDER"
)
NEEDED = ("config.json", "tokenizer_config.json")


def resolve(model: str, revision: str | None = None, cache_dir: Path | None = None) -> Path:
    """A local folder as it is; a Hub id through the Hub's cache, which is completed first.

    Raises:
        CheckpointError: neither a folder nor a repository that can be had whole.
    """
    if folder := local_folder(model):
        return folder
    with _one_line(model, revision):
        folder = Path(snapshot_download(model, revision=revision, cache_dir=cache_dir, allow_patterns=FILES))
    _check_complete(model, folder)
    return folder


def inspect_remote(model: str, revision: str | None, cache_dir: Path | None) -> tuple[Path, dict[str, Stored] | None]:
    """A folder that holds a checkpoint's description; and, unless its weights are in the folder too, what their headers
    on the Hub say. No weights are fetched.

    Raises:
        CheckpointError: as `resolve`.
    """
    folder = fetch_config(model, revision, cache_dir)
    if local_folder(model):
        return folder, None
    try:
        weight_files(folder)
        return folder, None
    except CheckpointError:
        return folder, _headers(model, folder.name)


def fetch_config(model: str, revision: str | None, cache_dir: Path | None) -> Path:
    """A folder that holds a checkpoint's description, and perhaps its weights.

    Raises:
        CheckpointError: as `resolve`.
    """
    if folder := local_folder(model):
        return folder
    with _one_line(model, revision):
        return Path(snapshot_download(model, revision=revision, cache_dir=cache_dir, allow_patterns=DESCRIPTION))


def resolve_adapter(adapter: str, cache_dir: Path | None, setting: str = "SA2VA_ADAPTER") -> Path:
    """The folder of an adapter: a local one as it is, or the Hub's, fetched through its cache.

    Raises:
        CheckpointError: neither a folder nor a repository that can be had.
    """
    if folder := local_folder(adapter, setting):
        return folder
    with _one_line(adapter, None):
        return Path(snapshot_download(adapter, cache_dir=cache_dir, allow_patterns=ADAPTER_FILES))


def licence(model: str, folder: Path, cache_dir: Path | None) -> str | None:
    """What the model card beside a checkpoint, or on the Hub, names as its licence, where there is one that does."""
    card = folder / "README.md"
    try:
        if not card.is_file() and local_folder(model) is None:
            HfApi().model_info(model, revision=folder.name)  # fails at once where a download tries for 20 s
            card = Path(hf_hub_download(model, card.name, revision=folder.name, cache_dir=cache_dir))
        said = metadata_load(card) or {}
    except Exception:  # a note for people: whatever keeps it away keeps nothing else away
        return None
    name = said.get("license_name") or said.get("license")
    return str(name) if name else None


def local_folder(model: str, setting: str = "MODEL_PATH") -> Path | None:
    """The folder that a model's name means, or None where it is a Hub id.

    Raises:
        CheckpointError: it is neither, or what xtuner saves while it trains.
    """
    folder = Path(model).expanduser()
    if folder.suffix == TRAINED or (folder.is_dir() and _holds_trained_only(folder)):
        raise CheckpointError(f"{model} is a pickled training checkpoint, which is never loaded; {HOW_TO_CONVERT}")
    if folder.is_dir():
        return folder
    if folder.is_absolute() or model.startswith(".") or model.count("/") != 1:
        raise CheckpointError(f"{setting} {model!r} is neither a folder nor a Hub id (owner/name)")
    return None


def _holds_trained_only(folder: Path) -> bool:
    """Whether a folder is one that xtuner trains in, not one that anything was exported to."""
    return any(folder.glob(f"*{TRAINED}")) and not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin"))


def _headers(model: str, commit: str) -> dict[str, Stored]:
    with _one_line(model, commit):
        found = HfApi().get_safetensors_metadata(model, revision=commit)
    return {
        name: Stored(Path(file), place, tuple(tensor.shape))
        for file, metadata in found.files_metadata.items()
        for place, (name, tensor) in enumerate(metadata.tensors.items())
    }


def _check_complete(model: str, folder: Path) -> None:
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if not missing and not (folder / INDEX).is_file() and not (folder / WEIGHTS).is_file():
        missing = ["its safetensors weights"]
    if missing:
        raise CheckpointError(f"model {model!r} lacks {', '.join(missing)} in {folder}{_how_to_complete(model)}")
    try:
        weight_files(folder)
    except CheckpointError as error:
        raise CheckpointError(f"model {model!r} is incomplete: {error.message}{_how_to_complete(model)}") from None


def _how_to_complete(model: str) -> str:
    return f"; python -m sa2va_bento download {model} completes a cache that was left half filled"


@contextmanager
def _one_line(model: str, revision: str | None) -> Iterator[None]:
    """Turns what huggingface-hub and the network raise into a CheckpointError."""
    try:
        yield
    except GatedRepoError:
        reason = f"is gated: accept its terms on its page (https://huggingface.co/{model}) and set HF_TOKEN"
    except RepositoryNotFoundError:
        reason = "does not exist on the Hub, or it is private (set HF_TOKEN)"
    except RevisionNotFoundError:
        reason = f"has no revision {revision!r} on the Hub (SA2VA_MODEL_REVISION)"
    except IncompleteSnapshotError as error:
        reason = f"is in the local cache in part, and the Hub {_unavailable(error)}: {_first_line(error)}"
    except LocalEntryNotFoundError as error:
        reason = f"is not in the local cache, and the Hub {_unavailable(error)}"
    except (NotASafetensorsRepoError, EntryNotFoundError):
        reason = "has no safetensors weights on the Hub; pickle is never loaded"
    except HfHubHTTPError as error:
        reason = f"could not be fetched from the Hub: {_status(error)}"
    except OSError as error:
        reason = f"could not be fetched from the Hub: {_first_line(error)}"
    except Exception as error:  # the network's own errors have no common parent with these
        reason = f"could not be fetched from the Hub: {type(error).__name__}: {_first_line(error)}"
    else:
        return
    raise CheckpointError(f"model {model!r} {reason}")


def _unavailable(error: Exception) -> str:
    """Why the cache had to do: huggingface-hub falls back on it when it is refused, too."""
    if isinstance(error.__cause__, HfHubHTTPError):
        return f"refuses: {_status(error.__cause__)}"
    return "can't be reached (no network, or HF_HUB_OFFLINE is set)"


def _status(error: HfHubHTTPError) -> str:
    """What a refused request came back with."""
    status = error.response.status_code
    hints = {401: "; HF_TOKEN is missing or wrong", 403: "; HF_TOKEN may not read it", 429: "; too many requests"}
    return f"HTTP {status}{hints.get(status, '')}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
