"""A chat about a short clip: the video comes in the message, and the answer is made while the client waits."""

import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from sa2va_bento.clips import ClipQuestion, ClipReply, ClipRequest, FrameSegments
from sa2va_bento.errors import OverloadedError
from sa2va_bento.jobs.files import room_needed
from sa2va_bento.jobs.job import VIDEO
from sa2va_bento.jobs.tracks import TrackSummary, is_present
from sa2va_bento.media.videos.video_file import VideoFile, VideoLimits
from sa2va_bento.settings import Settings
from sa2va_bento.types import RequestContext
from sa2va_bento.web.jobs.schemas import TrackFrame, TrackOut
from sa2va_bento.web.openai.messages import Conversation
from sa2va_bento.web.openai.request import adapter_of
from sa2va_bento.web.openai.schemas import ChatRequest
from sa2va_bento.web.rendering import to_segment
from sa2va_bento.web.runtime import Model
from sa2va_bento.web.schemas import MaskFormat

MOST_CLIPS = 2
"""That chats are about at once; jobs have a queue, chats wait for nobody."""
_free = threading.BoundedSemaphore(MOST_CLIPS)


def answer_clip(
    model: Model,
    data: bytes,
    conversation: Conversation,
    request: ChatRequest,
    settings: Settings,
    context: RequestContext,
    on_text: Callable[[str], None],
    is_cancelled: Callable[[], bool],
) -> tuple[ClipReply, list[TrackOut]]:
    """The reply to a conversation about a video, and what it names, followed through. Runs in the caller's thread.

    Raises:
        Sa2VAError: whatever is wrong with it; OverloadedError where other chats are about clips.
    """
    if not _free.acquire(blocking=False):
        raise OverloadedError("other chats are about videos now; try again later, or hand in a job", 5)
    try:
        with room_needed(), tempfile.TemporaryDirectory(prefix="sa2va-clip-") as folder:
            path = Path(folder) / VIDEO
            path.write_bytes(data)
            watcher = _Watcher(request.mask_format, on_text)
            clip = VideoFile(path, VideoLimits(settings.max_image_pixels, settings.max_video_frames))
            wanted = ClipRequest(
                clip,
                (ClipQuestion(conversation.prompt, conversation.history),),
                mask_threshold=request.mask_threshold,
                soft_masks=request.mask_format == "probability",
                max_new_tokens=request.max_completion_tokens or request.max_tokens,
                adapter=adapter_of(request, settings),
                is_cancelled=is_cancelled,
                context=context,
            )
            model.answer_clip(wanted, watcher)
            return watcher.replies[0], watcher.tracks()
    finally:
        _free.release()


class _Watcher:
    """Passes text on and keeps the rest."""

    def __init__(self, mask_format: MaskFormat, on_text: Callable[[str], None]) -> None:
        self._mask_format: MaskFormat = mask_format
        self._on_text = on_text
        self.replies: list[ClipReply] = []
        self._summaries: list[TrackSummary] = []
        self._frames: list[list[TrackFrame]] = []

    def on_text(self, question: int, text: str) -> None:
        self._on_text(text)

    def on_reply(self, reply: ClipReply) -> None:
        self.replies.append(reply)
        self._summaries = [TrackSummary(track) for track in reply.tracks]
        self._frames = [[] for _ in reply.tracks]

    def on_frame(self, frame: FrameSegments) -> None:
        for number, segment in enumerate(frame.segments):
            out = to_segment(number, segment, self._mask_format)
            present = is_present(segment, out.area)
            self._summaries[number].add(frame.index, present)
            self._frames[number].append(
                TrackFrame(
                    id=number,
                    bbox=out.bbox,
                    area=out.area,
                    score=out.score,
                    object_score=out.object_score,
                    present=present,
                    mask=out.mask,
                    frame_index=frame.index,
                    source_index=frame.source_index,
                    timestamp_s=frame.time_s,
                )
            )

    def tracks(self) -> list[TrackOut]:
        by_place = [sorted(frames, key=lambda frame: frame.frame_index) for frames in self._frames]
        pairs = zip(self._summaries, by_place, strict=True)
        return [TrackOut.model_validate({**summary.to_dict(), "frames": frames}) for summary, frames in pairs]
