"""What clients send and get about videos, as JSON."""

from typing import Annotated, Literal

from pydantic import Field

from sa2va_bento.jobs.job import State
from sa2va_bento.web.schemas import Count, HistoryTurn, MaskFormat, Model, Number, SegmentMask, Text, UsageOut, Whole

MOST_PROMPTS = 8
MOST_FRAME_FILES = 2000
MOST_TURNS = 64

MOST_SELECTED = 100
SamplingMode = Literal["uniform", "uniform_plus", "wrap_around", "wrap_around_plus", "q_frame"]
Seconds = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False, le=1e6)]


class VideoRequest(Model):
    """A video, one prompt or several, and how to answer. Fields that are not listed are ignored with a warning."""

    video: Text | None = Field(
        default=None,
        description="The video (MP4, MOV, WebM, MKV, AVI, or an animated GIF, WebP or PNG) as base64, as a data URL, "
        "or as an http(s) URL where the operator has listed its host. A form carries it as a file field `video`",
        examples=["data:video/mp4;base64,AAAA"],
    )
    frames: Annotated[list[Text], Field(fail_fast=True)] = Field(
        default=[],
        description="In place of a video: pictures of one size in order, as base64; in a form files named `frames`",
        max_length=MOST_FRAME_FILES,
        examples=[[]],
    )
    prompt: Text | None = Field(
        default=None, min_length=1, description="What to do or say", examples=["Please segment the red circle."]
    )
    prompts: Annotated[list[Text], Field(fail_fast=True)] = Field(
        default=[],
        max_length=MOST_PROMPTS,
        description="Several prompts about the same frames, in place of `prompt`",
        examples=[[]],
    )
    history: Annotated[list[HistoryTurn], Field(fail_fast=True)] = Field(
        default=[], max_length=MOST_TURNS, description="Earlier turns about the clip, oldest first", examples=[[]]
    )
    start_s: Seconds = Field(default=0.0, description="Where to begin, in seconds", examples=[0])
    end_s: Seconds | None = Field(default=None, description="Where to end, in seconds", examples=[10])
    every_nth: Count = Field(default=1, description="Look at every n-th frame", examples=[1])
    fps: Annotated[float, Field(strict=True, gt=0, le=1000)] | None = Field(
        default=None, description="Look at so many frames a second, at most", examples=[5]
    )
    max_frames: Count | None = Field(default=None, description="Look at the first so many of these", examples=[100])
    frames_seen: Literal["model", "first", "uniform"] | Annotated[list[Whole], Field(min_length=1, max_length=64)] = (
        Field(
            default="model",
            description="Which frames the language model sees, from which the masks are followed: the rule that the "
            "model was trained with, the first, evenly spread ones, or these (counted among those looked at)",
            examples=["model"],
        )
    )
    frames_seen_count: Count | None = Field(
        default=None, description="How many frames the language model sees, at most; unset is 5", examples=[5]
    )
    mode: SamplingMode | None = Field(
        default=None,
        description="How a SaSaSa2VA checkpoint samples the clip; unset is `uniform`. No other checkpoint takes it",
        examples=[None],
    )
    selected: Annotated[list[Whole], Field(fail_fast=True)] = Field(
        default=[],
        max_length=MOST_SELECTED,
        description="The hundred frames, in order, that mode `q_frame` shows to the model (counted among those looked "
        "at)",
        examples=[[]],
    )
    mask_format: MaskFormat = Field(default="rle", description="How masks are encoded", examples=["rle"])
    mask_threshold: Number = Field(
        default=0.5, ge=0, le=1, description="Probability above which a pixel belongs to a mask", examples=[0.5]
    )
    max_new_tokens: Count | None = Field(default=None, description="Most tokens of each reply", examples=[256])
    adapter: Text | None = Field(
        default=None,
        max_length=64,
        description="Name of the adapter that answers, of those that `GET /v1/models` lists; the model itself where "
        "there is none",
        examples=[None],
    )
    wait: Seconds = Field(
        default=0,
        description="Seconds to wait for the result, which is then the answer; as `Prefer: wait=N`",
        examples=[0],
    )


class JobQuestion(Model):
    """Which job is meant."""

    job_id: Text = Field(min_length=1, max_length=64, description="The job's id", examples=["Zk3v0bQ1r5o"])


class JobResultQuestion(JobQuestion):
    """Which part of a job's result is wanted, and how."""

    mask_format: MaskFormat | None = Field(
        default=None, description="How masks are encoded; unset as the job has it", examples=["rle"]
    )
    start: Whole = Field(default=0, description="First frame", examples=[0])
    end: Whole | None = Field(default=None, description="The frame after the last", examples=[100])


class JobErrorOut(Model):
    """Why a job failed."""

    status: int = Field(description="The HTTP status that says as much", examples=[400])
    message: str = Field(description="For a person to read", examples=["video: damaged"])


class JobStatus(Model):
    """Where a job stands."""

    id: str = Field(description="The job's id, which nobody can guess", examples=["Zk3v0bQ1r5o"])
    state: State = Field(
        description="Where it stands; `done`, `failed` and `cancelled` are final", examples=["running"]
    )
    queue_place: int | None = Field(description="Jobs before it, while it is queued", examples=[0])
    attempt: int = Field(
        description="Above 1 where the process was interrupted and the job started again from its first frame",
        examples=[1],
    )
    frames_done: int = Field(description="Frames whose masks are there", examples=[120])
    frames_total: int | None = Field(description="Frames to look at, as far as the file tells", examples=[900])
    frames_per_second: float | None = Field(description="How fast it goes", examples=[12.5])
    seconds_left: float | None = Field(description="At that speed", examples=[62.4])
    created_at: str = Field(description="When it was accepted, UTC", examples=["2025-01-22T23:41:56Z"])
    started_at: str | None = Field(description="When its present attempt began", examples=["2025-01-22T23:41:57Z"])
    finished_at: str | None = Field(description="When it ended", examples=[None])
    error: JobErrorOut | None = Field(description="Why it failed", examples=[None])
    links: dict[str, str] = Field(
        description="Where its result and events are", examples=[{"self": "/jobs/Zk3v0bQ1r5o"}]
    )


class VideoOut(Model):
    """What the file says of itself."""

    width: int = Field(description="Pixels across, as stored", examples=[640])
    height: int = Field(description="Pixels down, as stored", examples=[480])
    codec: str = Field(description="How its pictures are stored", examples=["h264"])
    frames: int | None = Field(description="How many it says to have", examples=[900])
    fps: float | None = Field(description="Frames a second, on average", examples=[30])
    duration_s: float | None = Field(description="Length in seconds", examples=[30])


class ReplyTrack(Model):
    """A `[SEG]` of a reply."""

    id: int = Field(description="The track's", examples=[0])
    phrase: str | None = Field(description="What the reply calls it", examples=["the man"])
    text_span: tuple[int, int] | None = Field(description="Where `phrase` stands in `text`", examples=[[0, 7]])


class ReplyOut(Model):
    """The reply to one of the prompts."""

    question: int = Field(description="Its place among the prompts", examples=[0])
    prompt: str = Field(description="What was asked", examples=["Please segment the red circle."])
    result: str = Field(description="The reply, markers kept", examples=["Sure, [SEG]."])
    text: str = Field(description="The prose without markers", examples=["Sure."])
    tracks: list[ReplyTrack] = Field(description="One for each `[SEG]`, in order", examples=[[]])
    usage: UsageOut = Field(description="Token counts")
    finish_reason: Literal["stop", "length"] = Field(description="Why the reply ended", examples=["stop"])


class FrameSegment(Model):
    """A track on a frame."""

    id: int = Field(description="The track's", examples=[0])
    bbox: tuple[int, int, int, int] = Field(
        description="[x, y, w, h] in pixels, all 0 without", examples=[[1, 2, 3, 4]]
    )
    area: int = Field(description="Pixels inside the mask", examples=[12345])
    score: float = Field(description="Predicted IoU of the mask, 0 to 1; not calibrated", examples=[0.93])
    object_score: float = Field(description="Probability that the object is visible at all", examples=[0.99])
    present: bool = Field(description="Whether it is: `object_score` above 0.5 and a mask", examples=[True])
    mask: SegmentMask | None = Field(description="The mask in the format asked for")


class FrameLine(Model):
    """A frame, as a line of the NDJSON result and as the `frame` event has it."""

    frame_index: int = Field(description="Its place among the frames that were looked at", examples=[0])
    source_index: int = Field(description="Its place in the file", examples=[0])
    timestamp_s: float | None = Field(description="When it is shown", examples=[0.04])
    segments: list[FrameSegment] = Field(description="One for each track, in order", examples=[[]])


class TrackFrame(FrameSegment):
    """A frame of a track."""

    frame_index: int = Field(description="Its place among the frames that were looked at", examples=[0])
    source_index: int = Field(description="Its place in the file", examples=[0])
    timestamp_s: float | None = Field(description="When it is shown", examples=[0.04])


class TrackOut(Model):
    """One `[SEG]` followed through the clip."""

    id: int = Field(description="Counts over all replies", examples=[0])
    question: int = Field(description="The prompt that asked for it", examples=[0])
    phrase: str | None = Field(description="What the reply calls it", examples=["the man"])
    text_span: tuple[int, int] | None = Field(
        description="Where `phrase` stands in the reply's `text`", examples=[None]
    )
    first_frame: int | None = Field(description="First frame that shows it", examples=[0])
    last_frame: int | None = Field(description="Last frame that shows it", examples=[899])
    frames_present: int = Field(description="How many frames show it", examples=[880])
    gaps: list[tuple[int, int]] = Field(description="[first, last] frame of each absence between", examples=[[[5, 9]]])
    frames: list[TrackFrame] = Field(description="The track on each frame", examples=[[]])


class VideoResult(Model):
    """The result of a job."""

    id: str = Field(description="The job's", examples=["Zk3v0bQ1r5o"])
    result: str = Field(description="The first reply, markers kept", examples=["Sure, [SEG]."])
    text: str = Field(description="Its prose without markers", examples=["Sure."])
    model: str = Field(description="The model that answered", examples=["ByteDance/Sa2VA-1B"])
    video: VideoOut = Field(description="What the file says of itself")
    replies: list[ReplyOut] = Field(description="The reply to each prompt", examples=[[]])
    segments: list[TrackOut] = Field(description="One for each `[SEG]` of all replies, in order", examples=[[]])
    frames: int = Field(description="Frames that were looked at; 0 where nothing is followed", examples=[900])
    frames_per_second: float | None = Field(description="How fast it went", examples=[12.5])
    usage: UsageOut = Field(description="Token counts of all replies")
    finish_reason: Literal["stop", "length"] = Field(description="Why the first reply ended", examples=["stop"])
    seconds: float = Field(description="How long it took", examples=[72.1])
    warnings: list[str] = Field(description="What was ignored or adjusted", examples=[[]])
