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
NANO_PATH = Path(__file__).parent / "nano"
NO_KEYS = "none"
"""The value of `SA2VA_API_KEYS` that opens the service on purpose."""

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Mebibytes = Annotated[float, Field(le=2**20)]


class Settings(BaseModel):
    """One frozen object. In Python by keyword; `load_settings` reads them from the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    model_path: str | None = Field(
        default=None,
        description="Hub id, local directory in the published layout, or unset for the embedded nano model",
    )
    model_revision: str | None = Field(default=None, description="Hub revision (branch, tag or commit) of the model")
    cache_dir: Path | None = Field(
        default=None, description="Old name of the Hub cache folder; HF_HOME is honoured by huggingface-hub itself"
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
    max_body_mb: Mebibytes = Field(default=32.0, gt=0, description="Largest request body in MiB")
    max_image_mpixels: float = Field(default=50.0, gt=0, le=1e6, description="Largest picture in millions of pixels")
    max_regions: int = Field(default=16, ge=0, description="Most visual prompts in a request")
    slots: int = Field(default=16, ge=1, le=512, description="Requests that the model works on at once")
    context: int = Field(default=8192, ge=128, description="Most tokens of a prompt and its reply together")
    max_prefill: int = Field(
        default=1024, ge=64, description="Prompt tokens read at once, between a few tokens of the running replies"
    )
    feature_cache_mb: Mebibytes = Field(
        default=512.0, ge=0, description="Memory of the device for features of pictures seen before, MiB; 0 keeps none"
    )
    prefix_cache_mb: Mebibytes = Field(
        default=512.0, ge=0, description="Memory of the device for what was read of pictures seen before, MiB"
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
    cors_origins: str = Field(default="*", description="Origins whose pages may call the service, separated by commas")

    api_keys: SecretStr | None = Field(
        default=None, description="Keys that requests must carry, separated by commas; unset or `none` asks for none"
    )
    rate_limit: int | None = Field(
        default=None, ge=1, description="Requests a minute of each key, or of each address where no keys are set"
    )

    trusted_proxies: str | None = Field(
        default=None,
        description="Addresses or networks of proxies, separated by commas, that may say for whom they ask",
    )

    image_url_hosts: str | None = Field(
        default=None,
        description="Hosts (host or host:port), separated by commas, from which pictures are fetched by URL",
    )
    image_url_timeout_s: Seconds = Field(default=10.0, description="Most seconds that fetching a picture may take")
    image_url_private: bool = Field(
        default=False, description="Whether the hosts for pictures may have private addresses"
    )

    @field_validator("model_path", "cache_dir")
    @classmethod
    def _expand_home(cls, path: str | Path | None) -> str | Path | None:
        """`~`, which nothing expands where a compose file or a unit sets the variable."""
        if isinstance(path, Path):
            return path.expanduser()
        return os.path.expanduser(path) if path else path

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
    def shutdown_grace_s(self) -> float:
        """Seconds that running requests are given when the service stops."""
        return self.timeout_s if self.grace_s is None else self.grace_s

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


def _explained(error: ValidationError) -> str:
    """The first thing that is wrong, in one line."""
    first = error.errors()[0]
    setting = first["loc"][0]
    name = next(name for name, known in VARIABLES.items() if known == setting)
    given = "" if setting == "api_keys" else f" (got {first['input']!r})"
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
