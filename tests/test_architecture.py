"""Imports go one way, by folder: web, cli -> predictor -> processing -> engine -> model, and media beside them, all on
a ground floor of settings, errors, types and metrics that knows nobody. Only `web` knows HTTP."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "sa2va_bento"
MODULES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
GROUND = ("clips", "errors", "settings", "types", "metrics", "__init__")

ROOMS: dict[str, tuple[str, ...]] = {
    "errors.py": (),
    "types.py": (),
    "clips.py": ("types",),
    "settings.py": ("errors",),
    "metrics.py": ("types",),
    "__init__.py": ("local", "settings", "types", "errors"),
    "__main__.py": ("cli",),
    "predictor/": (*GROUND, "predictor", "processing", "engine", "model"),
    "processing/": (*GROUND, "processing", "engine.sequence", "engine.limits", "model"),
    "engine/": (*GROUND, "engine", "model"),
    "model/": (*GROUND, "model"),
    "media/": (*GROUND, "media"),
    "evaluation/": (*GROUND, "evaluation"),
    "cli/": (
        *GROUND,
        "cli",
        "local",
        "labels",
        "evaluation",
        "jobs",
        "predictor",
        "processing",
        "engine",
        "model",
        "media",
    ),
    "jobs/": (*GROUND, "jobs", "media", "predictor"),
    "labels/": (*GROUND, "labels", "media"),
    "local/": (*GROUND, "local", "labels", "media", "predictor"),
    "web/": (*GROUND, "web", "media", "predictor", "jobs"),
}
"""A file or a folder of the package, and what of the package it may import."""

HTTP = ("bentoml", "starlette", "fastapi", "uvicorn", "httpx", "httpcore")
TORCH = ("torch", "transformers", "accelerate", "safetensors")
FOREIGN: dict[str, tuple[str, ...]] = {
    **{room: HTTP for room in ROOMS if room != "web/"},
    "web/": TORCH,
    "media/": (*HTTP, *TORCH),
    "jobs/": TORCH,
    "evaluation/": (*HTTP, *TORCH),
    "cli/": tuple(name for name in HTTP if name != "httpx"),  # with which it asks a running service
    "types.py": (*HTTP, *TORCH),
    "clips.py": (*HTTP, *TORCH),
    "metrics.py": (*HTTP, *TORCH),
    "engine/sequence.py": (*HTTP, *TORCH),
    "engine/scheduler.py": (*HTTP, *TORCH),
    "engine/limits.py": (*HTTP, *TORCH),
    "engine/tracking.py": (*HTTP, *TORCH),
    "engine/engine.py": (*HTTP, *TORCH),
}
"""And the libraries that it does without."""


def imports_of(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def modules_in(place: str) -> list[tuple[str, Path]]:
    return [
        (name, path)
        for name, path in MODULES.items()
        if name == place or (place.endswith("/") and name.startswith(place))
    ]


def test_every_module_is_in_a_room() -> None:
    homeless = [name for name in MODULES if not any(name == room or name.startswith(room) for room in ROOMS)]
    assert homeless == []


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_one_way(room: str) -> None:
    allowed = (*(f"sa2va_bento.{name}." for name in ROOMS[room]), "sa2va_bento.__version__.")
    found = modules_in(room)
    assert found
    wrong = [
        (name, imported)
        for name, path in found
        for imported in imports_of(path)
        if imported.startswith("sa2va_bento") and not f"{imported}.".startswith(allowed)
    ]
    assert wrong == []


@pytest.mark.parametrize("place", FOREIGN)
def test_libraries_stay_in_their_rooms(place: str) -> None:
    prefixes = tuple(f"{name}." for name in FOREIGN[place])
    found = modules_in(place)
    assert found
    assert [(name, i) for name, path in found for i in imports_of(path) if f"{i}.".startswith(prefixes)] == []


def test_only_settings_read_the_environment() -> None:
    readers = {name for name, path in MODULES.items() if "environ" in path.read_text() or "getenv" in path.read_text()}
    assert readers <= {"settings.py", "web/startup.py", "web/workers.py"}  # what parent and child tell each other


def test_no_remote_code_and_no_pickle() -> None:
    for path in MODULES.values():
        text = path.read_text()
        assert "trust_remote_code" not in text
        assert "torch.load(" not in text
        assert not {"pickle", "cloudpickle", "dill"} & {name.partition(".")[0] for name in imports_of(path)}
