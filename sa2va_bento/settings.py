"""Settings: what they are and may be (`Settings`), and how the environment gives them (`load_settings`)."""

import difflib
import os
import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from sa2va_bento.errors import StartupError

_HOST = re.compile(r"([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?")
_ADAPTER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
ALIAS = "sa2va"
"""A name that every served model answers to."""
NANO_PATH = Path(__file__).parent / "nano"
EMBEDDED = "nano"
"""The value of `MODEL_PATH` that names the embedded model where another one is the default, as in a container."""
NO_KEYS = "none"
"""The value of `SA2VA_API_KEYS` that opens the service on purpose."""

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Mebibytes = Annotated[float, Field(le=2**20)]
Auto = Literal["auto"]


class Settings(BaseModel):
    """One frozen object. In Python by keyword; `load_settings` reads them from the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    model_path: str | None = Field(
        default=None,
        description="Hub id, local directory in the published layout, or `nano` (as unset) for the embedded model",
    )
    model_revision: str | None = Field(default=None, description="Hub revision (branch, tag or commit) of the model")
    adapter: str | None = Field(
        default=None,
        description="LoRA adapter (Hub id or folder, as peft saves it) that is merged into the model as it is loaded",
    )
    adapters: str | None = Field(
        default=None,
        description="LoRA adapters beside the model, each asked for by its name: NAME=FOLDER or NAME=HUB_ID, separated "
        "by commas",
    )
    cache_dir: Path | None = Field(
        default=None, description="Old name of the Hub cache folder; HF_HOME is honoured by huggingface-hub itself"
    )
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:N, or all: every CUDA device for one model")
    workers: Annotated[int, Field(ge=1, le=64)] | Auto = Field(
        default=1, description="Processes that answer, each with the model on a GPU of its own; auto: one for each GPU"
    )
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
    max_body_mb: Mebibytes = Field(default=32.0, gt=0, description="Largest request body in MiB")
    max_image_mpixels: float = Field(default=50.0, gt=0, le=1e6, description="Largest picture in millions of pixels")
    max_regions: int = Field(default=16, ge=0, description="Most visual prompts in a request")
    slots: Annotated[int, Field(ge=1, le=512)] | Auto = Field(
        default="auto", description="Requests that the model works on at once; `auto` is as many as memory serves"
    )
    context: Annotated[int, Field(ge=128)] | Auto = Field(
        default="auto", description="Most tokens of a prompt and its reply together; `auto` is what memory holds"
    )
    kv_tokens: Annotated[int, Field(ge=128)] | Auto = Field(
        default="auto", description="Tokens of all requests together in the KV cache; `auto` is what memory holds"
    )
    memory_share: float = Field(
        default=0.9, gt=0, le=1, description="Share of the device's memory that the model, its caches and work may take"
    )
    max_prefill: Annotated[int, Field(ge=64)] | Auto = Field(
        default="auto",
        description="Prompt tokens read at once, between a few tokens of the running replies; `auto` is 1024 on a CPU "
        "and up to 4096 on a GPU",
    )
    feature_cache_mb: Annotated[float, Field(ge=0, le=2**20)] | Auto = Field(
        default="auto", description="Memory of the device for features of pictures seen before, MiB; 0 keeps none"
    )
    prefix_cache_mb: Annotated[float, Field(ge=0, le=2**20)] | Auto = Field(
        default="auto", description="Memory of the device for what was read of pictures seen before, MiB; 0 keeps none"
    )
    max_queue: int = Field(default=64, ge=1, description="Most requests that wait for the model; beyond it 503")
    timeout_s: Seconds = Field(default=60.0, description="Deadline of a request in seconds; past it 504")
    max_queue_mb: Mebibytes = Field(
        default=1024.0, gt=0, description="Memory for the bodies of requests that wait or are read, MiB; beyond it 503"
    )
    max_connections: int = Field(
        default=1000, ge=2, description="Most open connections; one address may have half of them"
    )
    head_timeout_s: Seconds = Field(default=10.0, description="Seconds in which a request's head must have come")
    write_timeout_s: Seconds = Field(
        default=30.0, description="Seconds after which a reader that does not read is cut off"
    )
    grace_s: Seconds | None = Field(
        default=None,
        description="Seconds that running requests are given when the service stops; unset is their deadline",
    )
    heartbeat_s: Seconds = Field(default=5.0, description="Silence in seconds after which a stream shows it lives")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["text", "json"] = Field(
        default="text", description="A line of text or an object for each event"
    )
    ui: Literal["on", "off"] = Field(default="on", description="Whether the playground is served at `/ui`")
    cors_origins: str = Field(default="*", description="Origins whose pages may call the service, separated by commas")

    api_keys: SecretStr | None = Field(
        default=None, description="Keys that requests must carry, separated by commas; unset or `none` asks for none"
    )
    low_priority_keys: SecretStr | None = Field(
        default=None, description="Keys whose requests give way to others, separated by commas"
    )
    priority_header: bool = Field(
        default=False, description="Whether a request with the header `X-Priority: low` gives way to others"
    )
    rate_limit: int | None = Field(
        default=None, ge=1, description="Requests a minute of each key, or of each address where no keys are set"
    )

    trusted_proxies: str | None = Field(
        default=None,
        description="Addresses or networks of proxies, separated by commas, that may say for whom they ask",
    )

    jobs_dir: Path = Field(
        validate_default=True,
        default=Path("~/.local/state/sa2va/jobs"),
        description="Folder of the video jobs, which outlive the process; shared by all processes that serve them",
    )
    max_video_mb: Mebibytes = Field(default=512.0, gt=0, description="Largest video that is uploaded, MiB")
    max_video_frames: int = Field(
        default=3000, ge=1, le=1_000_000, description="Most frames of a video that are looked at"
    )
    max_frames_seen: int = Field(
        default=16, ge=1, le=64, description="Most frames of a video that the language model sees"
    )
    max_jobs: int = Field(default=32, ge=1, description="Most video jobs that wait or run; beyond it 429")
    jobs_at_once: int = Field(default=1, ge=1, le=16, description="Video jobs that a process works on at once")
    jobs_keep_s: Annotated[float, Field(gt=0, le=31_536_000)] = Field(
        default=86_400.0, description="Seconds that a finished video job is kept"
    )
    max_jobs_mb: Mebibytes = Field(
        default=10_240.0, gt=0, description="Disk that all video jobs may take, MiB; beyond it 507"
    )
    clip_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.3, description="Share of the model's time that videos may take while pictures are asked about"
    )

    image_url_hosts: str | None = Field(
        default=None,
        description="Hosts (host or host:port), separated by commas, from which pictures are fetched by URL",
    )
    image_url_timeout_s: Seconds = Field(default=10.0, description="Most seconds that fetching a picture may take")
    image_url_private: bool = Field(
        default=False, description="Whether the hosts for pictures may have private addresses"
    )

    @field_validator("model_path")
    @classmethod
    def _name_embedded(cls, path: str | None) -> str | None:
        return None if path == EMBEDDED else path

    @field_validator("model_path", "adapter", "cache_dir", "jobs_dir")
    @classmethod
    def _expand_home(cls, path: str | Path | None) -> str | Path | None:
        """`~`, which nothing expands where a compose file or a unit sets the variable."""
        if isinstance(path, Path):
            return path.expanduser()
        return os.path.expanduser(path) if path else path

    @field_validator("adapters")
    @classmethod
    def _check_adapters(cls, adapters: str | None) -> str | None:
        names: set[str] = set()
        for entry in _split(adapters or ""):
            name, _, source = entry.partition("=")
            if not _ADAPTER.fullmatch(name.strip()) or not source.strip():
                raise ValueError(f"{entry!r} is not NAME=FOLDER: a name is of letters, digits, '.', '_' and '-'")
            if name.strip().lower() in names:
                raise ValueError(f"{name.strip()!r} is named twice")
            names.add(name.strip().lower())
        return adapters

    @field_validator("log_level", mode="before")
    @classmethod
    def _any_case(cls, level: object) -> object:
        return level.upper() if isinstance(level, str) else level

    @field_validator("image_url_hosts")
    @classmethod
    def _check_hosts(cls, hosts: str | None) -> str | None:
        for host in _split(hosts or ""):
            match = _HOST.fullmatch(host)
            if match is None or int((match[2] or ":0")[1:]) > 65_535:
                raise ValueError(f"{host!r} is not a host, nor host:port")
        return hosts

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, proxies: str | None) -> str | None:
        for proxy in _split(proxies or ""):
            ip_network(proxy)
        return proxies

    @field_validator("api_keys")
    @classmethod
    def _check_keys(cls, keys: SecretStr | None) -> SecretStr | None:
        """A value without a key in it is a secret that has got lost: it must not open the service."""
        given = [NO_KEYS] if keys is None else [key.lower() for key in _split(keys.get_secret_value())]
        if not given:
            raise ValueError(f"no key in it; set keys, or {NO_KEYS} for a service that is open to everybody")
        if NO_KEYS in given and len(given) > 1:
            raise ValueError(f"{NO_KEYS} is not a key")
        return keys

    @property
    def named_adapters(self) -> dict[str, str]:
        """The adapters beside the model: a folder or a Hub id for each name."""
        pairs = (entry.partition("=") for entry in _split(self.adapters or ""))
        return {name.strip(): os.path.expanduser(source.strip()) for name, _, source in pairs}

    @property
    def url_hosts(self) -> tuple[str, ...]:
        """Hosts from which pictures are fetched by URL; none means never."""
        return _split((self.image_url_hosts or "").lower())

    @property
    def proxy_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """Where the proxies are that may say for whom they ask; none trusts nobody."""
        return tuple(ip_network(proxy) for proxy in _split(self.trusted_proxies or ""))

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys in force; none asks for none."""
        given = _split(self.api_keys.get_secret_value()) if self.api_keys else ()
        return () if [key.lower() for key in given] == [NO_KEYS] else given

    @property
    def low_priority(self) -> tuple[str, ...]:
        """The keys whose requests give way to others."""
        return _split(self.low_priority_keys.get_secret_value()) if self.low_priority_keys else ()

    @property
    def shutdown_grace_s(self) -> float:
        """Seconds that running requests are given when the service stops."""
        return self.timeout_s if self.grace_s is None else self.grace_s

    @property
    def wanted_context(self) -> int:
        """Tokens of a prompt and its reply that are worth having room for."""
        return self.max_prompt_tokens + self.max_new_tokens if self.context == "auto" else self.context

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

    def is_model(self, name: str) -> bool:
        """Whether a name is the model's: its own, the last part of that, or `sa2va`."""
        own = self.model_name.rstrip("/").lower()
        return name.rstrip("/").lower() in (own, own.rpartition("/")[2], ALIAS)

    def adapter_called(self, name: str) -> str | None:
        """The adapter of that name, in whatever case it is written."""
        return {known.lower(): known for known in self.named_adapters}.get(name.lower())

    @property
    def max_body_bytes(self) -> int:
        return int(self.max_body_mb * 2**20)

    @property
    def max_video_bytes(self) -> int:
        return int(self.max_video_mb * 2**20)

    @property
    def max_image_pixels(self) -> int:
        return int(self.max_image_mpixels * 1e6)


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


PREFIX = "SA2VA_"
OWN_NAMES = {"model_path": "MODEL_PATH", "cache_dir": "TRANSFORMERS_CACHE"}
"""Settings that keep a variable which users know from elsewhere."""
VARIABLES = {OWN_NAMES.get(name, f"{PREFIX}{name.upper()}"): name for name in Settings.model_fields}
"""Which variable gives which setting."""

NEAR = 0.65
"""How like a setting's name a variable must be to be a mistyped one; 1 is the same."""
_LINK = re.compile(r"SA2VA_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")
_LINKED = ("tcp://", "udp://", "sctp://")


def load_settings() -> Settings:
    """Reads the environment. An empty variable is an unset one: so do compose files spell it (`${X:-}`). Only an empty
    `SA2VA_API_KEYS` is refused, since a secret that has got lost must not open the service.

    Raises:
        StartupError: a variable has a value that makes no sense, or a name that is almost a setting's: what was meant
            to protect the service, or to name its model, must not be passed over. The message names it.
    """
    for name, meant in unknown_variables(os.environ).items():
        if meant:
            raise StartupError(f"{name} is not a setting; did you mean {meant}?")
    given = {setting: os.environ[name] for name, setting in VARIABLES.items() if name in os.environ}
    try:
        return Settings.model_validate({key: text for key, text in given.items() if text or key == "api_keys"})
    except ValidationError as error:
        raise StartupError(_explained(error)) from None


def with_variables(given: Mapping[str, str]) -> dict[str, str]:
    """The environment with some variables set anew, for a process to come.

    Raises:
        StartupError: one of them makes no sense.
    """
    try:
        Settings.model_validate({VARIABLES[name]: text for name, text in given.items() if text})
    except ValidationError as error:
        raise StartupError(_explained(error)) from None
    return {**os.environ, **given}


def _explained(error: ValidationError) -> str:
    """The first thing that is wrong, in one line."""
    first = error.errors()[0]
    setting = first["loc"][0]
    name = next(name for name, known in VARIABLES.items() if known == setting)
    given = "" if str(setting).endswith("_keys") else f" (got {first['input']!r})"
    return f"setting {name}: {first['msg'].removeprefix('Value error, ')}{given}"


def unknown_variables(environment: Mapping[str, str]) -> dict[str, str | None]:
    """Each variable that looks like a setting but is none, with the setting that was meant, where that is plain. What
    Kubernetes and Docker say of a neighbour that is called sa2va does not count."""
    return {
        name: _nearest(name)
        for name, value in environment.items()
        if name.upper().startswith(PREFIX) and name not in VARIABLES and not _is_link(name, value)
    }


def _is_link(name: str, value: str) -> bool:
    return _LINK.fullmatch(name) is not None or (name.endswith("_PORT") and value.startswith(_LINKED))


def _nearest(name: str) -> str | None:
    known = {variable.removeprefix(PREFIX): variable for variable in VARIABLES}
    found = difflib.get_close_matches(name.upper().removeprefix(PREFIX), known, n=1, cutoff=NEAR)
    return known[found[0]] if found else None
