"""Imports go one way: the core knows neither HTTP nor the edge, and only the settings read the environment."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "sa2va_bento"
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))
EDGE = ("sa2va_bento.schemas", "sa2va_bento.web")
HTTP = ("bentoml", "starlette", "fastapi", "uvicorn", "httpx")

FORBIDDEN = {
    "engine": (*EDGE, *HTTP, "sa2va_bento.media", "sa2va_bento.masks", "sa2va_bento.pipeline", "sa2va_bento.predictor"),
    "model": (*EDGE, *HTTP, "sa2va_bento.engine", "sa2va_bento.media", "sa2va_bento.masks", "sa2va_bento.pipeline"),
    "engine/sequence.py": ("torch", "transformers"),
    "engine/scheduler.py": ("torch", "transformers"),
    "engine/engine.py": ("torch", "transformers"),
    "media.py": (*EDGE, *HTTP),
    "masks.py": (*EDGE, *HTTP),
    "overlay.py": (*EDGE, *HTTP),
    "prompt.py": (*EDGE, *HTTP),
    "preprocess.py": (*EDGE, *HTTP),
    "pipeline.py": (*EDGE, *HTTP),
    "predictor.py": (*EDGE, *HTTP),
}


def imports_of(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("where", FORBIDDEN)
def test_imports_go_one_way(where: str) -> None:
    found = [path for path in MODULES if path.relative_to(PACKAGE).as_posix().startswith(where)]
    assert found
    prefixes = tuple(f"{name}." for name in FORBIDDEN[where])
    wrong = [(path.name, name) for path in found for name in imports_of(path) if f"{name}.".startswith(prefixes)]
    assert wrong == []


def test_only_settings_read_the_environment() -> None:
    readers = [path.name for path in MODULES if "environ" in path.read_text() or "getenv" in path.read_text()]
    assert set(readers) <= {"settings.py", "startup.py"}  # the latter hands a process id from parent to child


def test_no_remote_code_and_no_pickle() -> None:
    for path in MODULES:
        text = path.read_text()
        assert "trust_remote_code" not in text
        assert "torch.load(" not in text
        assert not {"pickle", "cloudpickle", "dill"} & imports_of(path)
