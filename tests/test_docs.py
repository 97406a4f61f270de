"""The documentation: its links lead somewhere, and what it names exists."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from sa2va_bento.settings import VARIABLES
from tests.serving import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_OURS = {"SA2VA_SERVICE_HOST"}


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in link:
            assert link.startswith("https://")
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_what_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE)) <= targets
    settings = {name.rstrip("_") for name in re.findall(r"\bSA2VA_[A-Z_]+\b(?!\.)", text)}
    assert settings - NOT_OURS <= VARIABLES.keys() | {"SA2VA"}
    for path in re.findall(r"`((?:deploy|docs|tests|benchmarks|sa2va_bento)/[\w./-]*)`", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_can_be_read_by_a_shell(page: Path) -> None:
    for block in blocks(page, "bash"):
        done = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True)
        assert done.returncode == 0, f"{block}\n{done.stderr}"


def test_every_alert_is_explained() -> None:
    groups = yaml.safe_load((ROOT / "deploy/monitoring/alerts.yaml").read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"]}
    assert set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/operating.md").read_text(), re.MULTILINE)) == alerts


def test_errors_with_a_cure_are_errors_that_there_are() -> None:
    page = (ROOT / "docs/troubleshooting.md").read_text().partition("## It starts")[0]
    source = "".join(path.read_text() for path in (ROOT / "sa2va_bento").rglob("*.py"))
    cells = re.findall(r"^\| (`.*?) \| .*\|$", page, re.MULTILINE)
    assert len(cells) > 15
    for fragment in (fragment for cell in cells for fragment in re.findall(r"`(.*?)`", cell)):
        parts = [
            part.strip(" ,:'")
            for part in re.split(r"\.\.\.|SA2VA_\w*|'(?!t)|: no key|SIGKILL|cuda was|0 CUDA|, and", fragment)
        ]
        for part in filter(None, parts):
            assert part in source, f"{fragment}: {part!r}"


def test_every_page_is_found_from_the_readme() -> None:
    text = "".join(page.read_text() for page in PAGES)
    for page in PAGES[2:]:
        assert re.search(rf"\]\((docs/)?{re.escape(page.name)}", text), page.name
