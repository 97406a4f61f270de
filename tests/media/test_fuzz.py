"""A short run of the fuzzer, the same each time; `python -m tests.media.fuzz` runs as long as one likes."""

from sa2va_bento.media.images import FORMATS
from tests.media import fuzz


def test_damaged_files_are_pictures_or_refused_in_time() -> None:
    findings = fuzz.run(seconds=4, seed=20_240_607, most_files=3000)
    assert [what for what, _ in findings.wrong] == []
    assert findings.slowest_s < fuzz.LONGEST
    assert {name for name, outcome in findings.counts if outcome == "decoded"} >= set(FORMATS)


def test_what_goes_wrong_is_found() -> None:
    findings = fuzz.Findings()
    fuzz._try("PNG", b"", lambda: 1 / 0, findings)
    findings.add("PNG", b"", "decoded", 3.0)
    assert [what[:20] for what, _ in findings.wrong] == ["PNG: ZeroDivisionErr", "3.0 s for a PNG (dec"]
