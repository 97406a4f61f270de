import re
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sa2va_bento.errors import StartupError
from sa2va_bento.settings import NANO_PATH, OWN_NAMES, VARIABLES, Settings, load_settings, unknown_variables

PAGE = Path(__file__).parent.parent / "docs/settings.md"


def test_the_page_lists_every_setting_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `([A-Z0-9_]+)` \| `?([^|`]+?)`? \|", PAGE.read_text(), re.MULTILINE))
    for name, field in Settings.model_fields.items():
        variable = OWN_NAMES.get(name, f"SA2VA_{name.upper()}")
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


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES.keys() - {"SA2VA_API_KEYS"}:
        monkeypatch.setenv(variable, "")
    assert load_settings() == Settings()


@pytest.mark.parametrize(("given", "keys"), [("none", ()), (" None ", ()), ("a, b", ("a", "b"))])
def test_a_service_is_opened_on_purpose(monkeypatch: pytest.MonkeyPatch, given: str, keys: tuple[str, ...]) -> None:
    monkeypatch.setenv("SA2VA_API_KEYS", given)
    assert load_settings().keys == keys


@pytest.mark.parametrize("given", ["", " ", ",", "none,a", "a,NONE"])
def test_keys_that_got_lost_open_nothing(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("SA2VA_API_KEYS", given)
    with pytest.raises(StartupError, match=r"^setting SA2VA_API_KEYS: no") as caught:
        load_settings()
    assert "got" not in caught.value.message
    with pytest.raises(ValidationError):
        Settings(api_keys=given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mistyped", "meant"),
    [
        ("SA2VA_SLOT", "SA2VA_SLOTS"),
        ("SA2VA_MODEL_PATH", "MODEL_PATH"),
        ("SA2VA_MODEL", "MODEL_PATH"),
        ("SA2VA_API_KEY", "SA2VA_API_KEYS"),
        ("SA2VA_KEYS", "SA2VA_API_KEYS"),
        ("SA2VA_TIMEOUT", "SA2VA_TIMEOUT_S"),
        ("sa2va_slots", "SA2VA_SLOTS"),
    ],
)
def test_a_mistyped_name_is_told_the_right_one(monkeypatch: pytest.MonkeyPatch, mistyped: str, meant: str) -> None:
    monkeypatch.setenv(mistyped, "1")
    with pytest.raises(StartupError, match=f"{mistyped} is not a setting; did you mean {meant}\\?"):
        load_settings()


@pytest.mark.parametrize("name", ["SA2VA_VERSION", "SA2VA_IMAGE_TAG", "SA2VA_PORT", "SA2VA_TEST_STRICT"])
def test_a_name_like_none_of_ours_is_only_reported(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    assert load_settings() == Settings()
    assert unknown_variables({name: "1", "PATH": "/bin", "SA2VA_SLOTS": "2"}) == {name: None}


def test_neighbours_in_a_cluster_are_no_settings() -> None:
    links = {
        "SA2VA_SERVICE_HOST": "10.0.0.1",
        "SA2VA_SERVICE_PORT": "3303",
        "SA2VA_SERVICE_PORT_HTTP": "3303",
        "SA2VA_PORT": "tcp://10.0.0.1:3303",
        "SA2VA_PORT_3303_TCP": "tcp://10.0.0.1:3303",
        "SA2VA_PORT_3303_TCP_ADDR": "10.0.0.1",
        "SA2VA_CANARY_SERVICE_HOST": "10.0.0.2",
        "SA2VA_CANARY_PORT": "tcp://10.0.0.2:3303",
    }
    assert unknown_variables(links) == {}


@pytest.mark.parametrize("name", ["CACHE_DIR", "cache_dir", "model_path", "SA2VA_CACHE_DIR", "SLOTS"])
def test_only_documented_names_are_read(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    assert load_settings() == Settings()


def test_in_python_the_environment_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SA2VA_SLOTS", "3")
    assert Settings(context=1024).slots == "auto"
    with pytest.raises(ValidationError):
        Settings(slot=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("level", ["info", "Info", "INFO"])
def test_levels_are_read_in_any_case(monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    monkeypatch.setenv("SA2VA_LOG_LEVEL", level)
    assert load_settings().log_level == "INFO"


FLOATS = [name for name, field in Settings.model_fields.items() if "float" in str(field.annotation)]


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e300", "-1"])
@pytest.mark.parametrize("name", FLOATS)
def test_numbers_are_numbers(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"SA2VA_{name.upper()}", value)
    with pytest.raises(StartupError, match=f"setting SA2VA_{name.upper()}"):
        load_settings()


def test_a_home_folder_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("MODEL_PATH", "~/sa2va")
    monkeypatch.setenv("TRANSFORMERS_CACHE", "~/cache")
    settings = load_settings()
    assert (settings.model_path, str(settings.cache_dir)) == ("/home/somebody/sa2va", "/home/somebody/cache")


def test_proxies_are_addresses_or_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().proxy_networks == ()
    given = "127.0.0.1, 10.0.0.0/8,fd00::/8"
    assert Settings(trusted_proxies=given).proxy_networks == tuple(
        ip_network(text) for text in ("127.0.0.1/32", "10.0.0.0/8", "fd00::/8")
    )
    for wrong in ("proxy.example", "10.0.0.1/8", "*"):
        monkeypatch.setenv("SA2VA_TRUSTED_PROXIES", wrong)
        with pytest.raises(StartupError, match="setting SA2VA_TRUSTED_PROXIES: "):
            load_settings()


@pytest.mark.parametrize(("given", "grace_s"), [({}, 60), ({"timeout_s": 7}, 7), ({"timeout_s": 7, "grace_s": 90}, 90)])
def test_requests_that_run_have_their_deadline_as_grace(given: dict[str, Any], grace_s: float) -> None:
    assert Settings(**given).shutdown_grace_s == grace_s
