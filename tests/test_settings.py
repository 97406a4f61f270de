import re
from pathlib import Path

import pytest

from sa2va_bento.errors import StartupError
from sa2va_bento.settings import NANO_PATH, Settings, load_settings

README = Path(__file__).parent.parent / "README.md"


def test_the_readme_lists_every_setting_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `([A-Z0-9_]+)` \| `?([^|`]+?)`? \|", README.read_text(), re.MULTILINE))
    own_names = {"model_path": "MODEL_PATH", "cache_dir": "TRANSFORMERS_CACHE"}
    for name, field in Settings.model_fields.items():
        variable = own_names.get(name, f"SA2VA_{name.upper()}")
        assert variable in rows
        if field.default is not None:
            assert rows[variable] == (f"{field.default:g}" if isinstance(field.default, float) else str(field.default))


def test_unset_the_embedded_model_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODEL_PATH", raising=False)
    assert (load_settings().model_name, load_settings().model_dir_or_id) == ("sa2va-nano", str(NANO_PATH))


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_PATH", "ByteDance/Sa2VA-1B")
    monkeypatch.setenv("SA2VA_MAX_BODY_MB", "1.5")
    settings = load_settings()
    assert settings.model_name == settings.model_dir_or_id == "ByteDance/Sa2VA-1B"
    assert settings.max_body_bytes == 3 * 2**19


@pytest.mark.parametrize(("name", "value"), [("SA2VA_TIMEOUT_S", "abc"), ("SA2VA_DTYPE", "int3"), ("SA2VA_SLOTS", "0")])
def test_a_value_that_makes_no_sense_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(StartupError, match=f"setting {name}: .*{value}") as caught:
        load_settings()
    assert "\n" not in caught.value.message
