"""`download`: fills the Hub's cache."""

from sa2va_bento.model.loading.hub import resolve
from sa2va_bento.settings import load_settings


def download(model: str, revision: str | None) -> None:
    """Fetches a checkpoint from the Hub and prints its folder; raises StartupError when it can't be had."""
    settings = load_settings()
    print(resolve(model, revision or settings.model_revision, settings.cache_dir))
