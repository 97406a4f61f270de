"""A reply taken apart: prose, `[SEG]` markers, and the `<p>..</p>` phrases that they belong to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sa2va_bento.model.chat_template import MARKERS, PHRASE_END, PHRASE_START, SEG
from sa2va_bento.model.loading.tokenizers import PromptTokenizer


@dataclass(frozen=True)
class Phrase:
    """The words that a `[SEG]` belongs to, and where they stand in the reply's prose (start, end)."""

    text: str
    span: tuple[int, int]


@dataclass(frozen=True)
class Reply:
    """A reply taken apart: `result` keeps the markers, `text` is prose, `phrases` has one entry a `[SEG]`."""

    result: str
    text: str
    phrases: tuple[Phrase | None, ...]


def parse_reply(tokenizer: PromptTokenizer, ids: Sequence[int], stop: Sequence[str] = ()) -> Reply:
    """Takes a complete reply's token ids (without the stop token) apart, up to the first of the stop strings."""
    return ReplyParser(tokenizer, stop).finish(ids)


class ReplyParser:
    """Takes a reply apart while it grows: each token is read once.

    Markers are told by their ids, so that a model that quotes a user's plain `[SEG]` marks nothing.
    """

    def __init__(self, tokenizer: PromptTokenizer, stop: Sequence[str] = (), most: int | None = None) -> None:
        """`most` is how many `[SEG]`s count: the first."""
        self._tokenizer, self._stop, self._most = tokenizer, tuple(stop), most
        self._markers = {tokenizer.id_of(marker): marker for marker in MARKERS}
        self._prose = _Prose()
        self._seen = self._in_prose = 0

    def phrases(self, ids: Sequence[int]) -> tuple[Phrase | None, ...]:
        """One for each `[SEG]` of a reply that may still grow."""
        for marker, text in self._runs(ids):
            self._prose.add_text(text)
            self._prose.add_marker(marker)
        return tuple(self._prose.phrases[: self._most])

    def finish(self, ids: Sequence[int]) -> Reply:
        """The whole reply, up to the first of the stop strings."""
        result = self._tokenizer.decode(ids)
        end = min((place for text in self._stop if (place := result.find(text)) >= 0), default=len(result))
        if end < len(result):
            return self._cut(ids, result[:end])
        self.phrases(ids)
        self._prose.add_text(self._tokenizer.decode(ids[self._in_prose :]))
        return Reply(result.strip(), self._prose.finished(), tuple(self._prose.phrases[: self._most]))

    def _cut(self, ids: Sequence[int], result: str) -> Reply:
        """A reply that a stop string ends: what was read beyond it is not part of it."""
        fresh, left = ReplyParser(self._tokenizer), len(result)
        runs = list(fresh._runs(ids))
        for marker, text in [*runs, ("", self._tokenizer.decode(ids[fresh._in_prose :]))]:
            fresh._prose.add_text(text[: max(left, 0)])
            left -= len(text)
            if left > 0 and marker:
                fresh._prose.add_marker(marker)
            left -= len(marker)
        return Reply(result.strip(), fresh._prose.finished(), tuple(fresh._prose.phrases[: self._most]))

    def _runs(self, ids: Sequence[int]) -> Iterator[tuple[str, str]]:
        """The markers that were not seen yet, each with the text before it."""
        for place in range(self._seen, len(ids)):
            if (marker := self._markers.get(ids[place])) is not None:
                yield marker, self._tokenizer.decode(ids[self._in_prose : place])
                self._in_prose = place + 1
        self._seen = len(ids)


class _Prose:
    """Collects the words of a reply; what a removed marker leaves behind (", ." or two blanks) is tidied."""

    def __init__(self) -> None:
        self.phrases: list[Phrase | None] = []
        self._text = ""
        self._after_seg = False
        self._phrase_start: int | None = None
        self._phrase: Phrase | None = None

    def add_text(self, text: str) -> None:
        if not text:
            return
        if self._after_seg and text.lstrip()[:1] in tuple(".!?;:,"):
            self._text = self._text.rstrip().rstrip(",")
            text = text.lstrip()
        if not self._text or self._text[-1].isspace():
            text = text.lstrip()
        self._text += text
        self._after_seg = False

    def add_marker(self, marker: str) -> None:
        if marker == PHRASE_START:
            self._phrase_start, self._phrase = len(self._text), None
        elif marker == PHRASE_END and self._phrase_start is not None:
            self._phrase = self._closed(self._phrase_start)
            self._phrase_start = None
        elif marker == SEG:
            self.phrases.append(self._phrase)
            self._after_seg = True

    def finished(self) -> str:
        return self._text.rstrip().rstrip(",") if self._after_seg else self._text.rstrip()

    def _closed(self, start: int) -> Phrase | None:
        inside = self._text[start:]
        words = inside.strip()
        if not words:
            return None
        begin = start + len(inside) - len(inside.lstrip())
        return Phrase(words, (begin, begin + len(words)))
