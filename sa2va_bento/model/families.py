"""The families that are supported: what reads a checkpoint's `config.json`, and which modules it asks for."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sa2va_bento.errors import CheckpointError
from sa2va_bento.model.config import CheckpointConfig, InternVLConfig
from sa2va_bento.model.family import Sa2VA
from sa2va_bento.model.internvl import InternVLSa2VA
from sa2va_bento.model.qwen_vl import QwenVLSa2VA
from sa2va_bento.model.qwen_vl_config import QwenVLConfig


@dataclass(frozen=True)
class Family:
    """`config` reads a `config.json`, `model` builds the modules without weights."""

    config: Callable[[Mapping[str, Any]], CheckpointConfig]
    model: Callable[[Any], Sa2VA]


FAMILIES: Mapping[str, Family] = {
    "Sa2VAChatModel": Family(InternVLConfig.from_dict, InternVLSa2VA),
    "Sa2VAChatModelQwen": Family(QwenVLConfig.from_dict, QwenVLSa2VA),
}
"""By published `architectures[0]`."""


def read_config(path: Path) -> CheckpointConfig:
    """Reads a `config.json`. Raises CheckpointError when it is missing, unreadable or unsupported."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"no config.json in {path.parent}") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not readable JSON: {error}") from None
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path} is not a JSON object")
    return parse_config(raw)


def parse_config(raw: Mapping[str, Any]) -> CheckpointConfig:
    """The configuration of a checkpoint. Raises CheckpointError naming what is unsupported or missing."""
    try:
        return FAMILIES[_architecture(raw)].config(raw)
    except KeyError as error:
        raise CheckpointError(f"config.json lacks the field {error}") from None
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"config.json does not describe a Sa2VA checkpoint: {error}") from None


def build_model(config: CheckpointConfig) -> Sa2VA:
    """The modules of a checkpoint, as torch fills them."""
    return FAMILIES[_architecture(config.raw)].model(config)


def _architecture(raw: Mapping[str, Any]) -> str:
    name = (raw.get("architectures") or ["none"])[0]
    if name not in FAMILIES:
        raise CheckpointError(f"architecture {name} is not supported (supported: {', '.join(FAMILIES)})")
    return name
