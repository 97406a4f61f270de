"""Settings, read once from the environment; the only reader of `os.environ` in the package."""

import re
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from sa2va_bento.errors import StartupError

_HOST = re.compile(r"([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?")
NANO_PATH = Path(__file__).parent / "nano"


class Settings(BaseSettings):
    """One frozen object. `MODEL_PATH` and the cache folders keep the names users know, all else is `SA2VA_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="SA2VA_", frozen=True, extra="ignore", protected_namespaces=())

    model_path: str | None = Field(
        default=None,
        validation_alias=AliasChoices("model_path", "MODEL_PATH"),
        description="Hub id, local directory in the published layout, or unset for the embedded nano model",
    )
    model_revision: str | None = Field(default=None, description="Hub revision (branch, tag or commit) of the model")
    cache_dir: Path | None = Field(
        default=None,
        validation_alias=AliasChoices("cache_dir", "TRANSFORMERS_CACHE"),
        description="Old name of the Hub cache folder; HF_HOME is honoured by huggingface-hub itself",
    )
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:N, or all: every CUDA device for one model")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="auto is bfloat16 on CUDA and float32 on the CPU"
    )
    quantization: Literal["none", "int8", "int4"] = Field(
        default="none", description="8-bit or 4-bit weights in the language model's layers, by bitsandbytes"
    )
    threads: int | None = Field(
        default=None, ge=1, description="CPU threads of the model; unset is half of the processors on a CPU"
    )
    max_new_tokens: int = Field(default=2048, ge=1, description="Most tokens of a reply, and the default of a request")
    max_tiles: int | None = Field(
        default=None, ge=1, description="Most tiles a picture is cut into; unset is the model's own"
    )
    max_prompt_tokens: int = Field(default=8192, ge=64, description="Most tokens of a prompt, picture included")
    max_body_mb: float = Field(default=32.0, gt=0, description="Largest request body in MiB")
    max_image_mpixels: float = Field(default=50.0, gt=0, description="Largest picture in millions of pixels")
    max_regions: int = Field(default=16, ge=0, description="Most visual prompts in a request")
    slots: int = Field(default=16, ge=1, le=512, description="Requests that the model works on at once")
    context: int = Field(default=8192, ge=128, description="Most tokens of a prompt and its reply together")
    max_prefill: int = Field(
        default=1024, ge=64, description="Prompt tokens read at once, between a few tokens of the running replies"
    )
    feature_cache_mb: float = Field(
        default=512.0, ge=0, description="Memory of the device for features of pictures seen before, MiB; 0 keeps none"
    )
    prefix_cache_mb: float = Field(
        default=512.0, ge=0, description="Memory of the device for what was read of pictures seen before, MiB"
    )
    max_queue: int = Field(default=64, ge=1, description="Most requests that wait for the model; beyond it 503")
    timeout_s: float = Field(default=60.0, gt=0, description="Deadline of a request in seconds; past it 504")
    max_queue_mb: float = Field(
        default=1024.0, gt=0, description="Memory for the bodies of requests that wait or are read, MiB; beyond it 503"
    )
    max_connections: int = Field(
        default=1000, ge=2, description="Most open connections; one address may have half of them"
    )
    head_timeout_s: float = Field(default=10.0, gt=0, description="Seconds in which a request's head must have come")
    write_timeout_s: float = Field(
        default=30.0, gt=0, description="Seconds after which a reader that does not read is cut off"
    )
    heartbeat_s: float = Field(default=5.0, gt=0, description="Silence in seconds after which a stream shows it lives")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    cors_origins: str = Field(default="*", description="Origins whose pages may call the service, separated by commas")

    api_keys: SecretStr | None = Field(
        default=None, description="Keys that requests must carry, separated by commas; unset asks for none"
    )
    rate_limit: int | None = Field(
        default=None, ge=1, description="Requests a minute of each key, or of each address where no keys are set"
    )

    image_url_hosts: str | None = Field(
        default=None,
        description="Hosts (host or host:port), separated by commas, from which pictures are fetched by URL",
    )
    image_url_timeout_s: float = Field(default=10.0, gt=0, description="Most seconds that fetching a picture may take")
    image_url_private: bool = Field(
        default=False, description="Whether the hosts for pictures may have private addresses"
    )

    @field_validator("image_url_hosts")
    @classmethod
    def _check_hosts(cls, hosts: str | None) -> str | None:
        for host in _split(hosts or ""):
            match = _HOST.fullmatch(host)
            if match is None or int((match[2] or ":0")[1:]) > 65_535:
                raise ValueError(f"{host!r} is not a host, nor host:port")
        return hosts

    @property
    def url_hosts(self) -> tuple[str, ...]:
        """Hosts from which pictures are fetched by URL; none means never."""
        return _split((self.image_url_hosts or "").lower())

    @field_validator("api_keys")
    @classmethod
    def _check_keys(cls, keys: SecretStr | None) -> SecretStr | None:
        """Only an empty value means no keys; one that looks like keys but holds none must not open the service."""
        if keys and not _split(keys.get_secret_value()):
            raise ValueError("no key in it")
        return keys

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys in force; none asks for none."""
        return _split(self.api_keys.get_secret_value()) if self.api_keys else ()

    @property
    def model_dir_or_id(self) -> str:
        """What to load: the setting, or the folder of the embedded nano model."""
        return self.model_path or str(NANO_PATH)

    @property
    def model_name(self) -> str:
        """How the model is called in answers: its Hub id, or the name of its folder."""
        if self.model_path is None:
            return "sa2va-nano"
        return Path(self.model_path).name if Path(self.model_path).is_dir() else self.model_path

    @property
    def max_body_bytes(self) -> int:
        return int(self.max_body_mb * 2**20)

    @property
    def feature_cache_bytes(self) -> int:
        return int(self.feature_cache_mb * 2**20)

    @property
    def prefix_cache_bytes(self) -> int:
        return int(self.prefix_cache_mb * 2**20)

    @property
    def max_image_pixels(self) -> int:
        return int(self.max_image_mpixels * 1e6)


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def load_settings() -> Settings:
    """Reads the environment.

    Raises:
        StartupError: a variable has a value that makes no sense; the message names it.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "?"
        variable = name if name.isupper() else f"SA2VA_{name.upper()}"
        given = "" if name == "api_keys" else f" (got {first['input']!r})"
        raise StartupError(f"setting {variable}: {first['msg']}{given}") from None
