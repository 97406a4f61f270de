"""The detokenizer: text of a reply while its tokens come."""

from collections.abc import Sequence

from sa2va_bento.model.loading.tokenizers import PromptTokenizer


class Detokenizer:
    """Turns token ids into text that is certain, token by token: whole characters only, and nothing that may yet turn
    out to be a stop string or white space at an end of the reply."""

    def __init__(self, tokenizer: PromptTokenizer, stop: Sequence[str] = ()) -> None:
        self._step = tokenizer.stream()
        self._stop, self._held = tuple(stop), ""
        self._started = self._stopped = False

    def push(self, token: int) -> str:
        """What has become certain with this token."""
        if self._stopped:
            return ""
        self._held += self._step(token)
        if not self._started:
            self._held = self._held.lstrip()
        places = [place for stop in self._stop if (place := self._held.find(stop)) >= 0]
        if places:
            self._stopped = True
            return self._take(len(self._held[: min(places)].rstrip()))
        return self._take(len(self._held) - self._uncertain())

    def _take(self, length: int) -> str:
        certain, self._held = self._held[:length], self._held[length:]
        self._started = self._started or bool(certain)
        return certain

    def _uncertain(self) -> int:
        """Characters at the end that are white space or the beginning of a stop string."""
        text = self._held
        beginnings = (n for stop in self._stop for n in range(min(len(stop) - 1, len(text)), 0, -1))
        begun = max((n for n in beginnings if any(text.endswith(stop[:n]) for stop in self._stop)), default=0)
        kept = text[: len(text) - begun]
        return len(text) - len(kept.rstrip())
