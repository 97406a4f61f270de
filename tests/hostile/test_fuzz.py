"""A short run of the fuzzer of requests; `python -m tests.hostile.fuzz` runs as long as one likes."""

import logging

import pytest

from tests.hostile import fuzz


def test_whatever_comes_is_answered_in_time(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    findings = fuzz.run(seconds=10, first=20_240_607, most=500)
    assert [what for what, _ in findings.wrong] == []
    assert {status for _, status in findings.counts} >= {200, 400}
    assert {path for path, _ in findings.counts} == set(fuzz.bodies)


def test_what_goes_wrong_is_found() -> None:
    findings = fuzz.Findings()
    request = ("/process", b"", {})
    for status, text, seconds in ((500, "{}", 0.1), (200, "{}", 3.0), (400, "no", 0.1), (400, '{"error": "why"}', 0.1)):
        findings.note(request, status, text, seconds)
    assert len(findings.wrong) == 3
