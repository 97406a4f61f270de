"""Every error this project raises on purpose, each with the HTTP status that the edge answers with.

Raised deep, mapped to a response once (`sa2va_bento.web.errors`). A message is written for the person who
sent the request: it names the field and the limit, never a path or a line of code.
"""


class Sa2VAError(Exception):
    """Base of the tree. `status` is the HTTP status, `reason` what the metrics call it, `retry_after_s` the value of a
    `Retry-After` header, `code` a name for programs where the status alone does not tell."""

    status = 500
    reason = "internal"
    code: str | None = None
    openai_status: int | None = None
    """Where OpenAI's API has another one."""
    retry_after_s: int | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class BadRequestError(Sa2VAError):
    """A missing or malformed field, undecodable base64 or image, an empty prompt."""

    status = 400
    reason = "bad_request"


class UnauthorizedError(Sa2VAError):
    """A missing or wrong key where keys are configured."""

    status = 401
    reason = "unauthorized"


class UnknownModelError(Sa2VAError):
    """A model that is not the one served."""

    status = 404
    reason = "unknown_model"
    code = "model_not_found"


class PayloadTooLargeError(Sa2VAError):
    """A body, an image (pixels) or a prompt (tokens) over its limit."""

    status = 413
    reason = "too_large"


class PromptTooLongError(PayloadTooLargeError):
    """A prompt with more tokens than the model or the service takes. OpenAI's clients know it by a status of 400."""

    code = "context_length_exceeded"
    openai_status = 400


class UnsupportedMediaError(Sa2VAError):
    """A content type or an image format that is not supported."""

    status = 415
    reason = "unsupported_media"


class RateLimitedError(Sa2VAError):
    """The caller has asked too often; `retry_after_s` says when it may again."""

    status = 429
    reason = "rate_limited"

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NoSuchJobError(Sa2VAError):
    """A job that there is not, or that is somebody else's."""

    status = 404
    reason = "no_such_job"


class NotFinishedError(Sa2VAError):
    """A job's result is asked for before there is one."""

    status = 409
    reason = "not_finished"
    retry_after_s = 1


class JobFailedError(Sa2VAError):
    """What a job failed with, said again to whom asks for its result."""

    reason = "job_failed"

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class TooManyJobsError(Sa2VAError):
    """As many jobs wait or run as are taken."""

    status = 429
    reason = "too_many_jobs"
    retry_after_s = 10


class NoRoomError(Sa2VAError):
    """The disk, or the part of it that jobs may take, is full."""

    status = 507
    reason = "no_room"


class OverloadedError(Sa2VAError):
    """The queue is full, or an answer would come too late; `retry_after_s` says when to try again."""

    status = 503
    reason = "overloaded"

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotReadyError(Sa2VAError):
    """The model is still loading or the engine has stopped."""

    status = 503
    reason = "not_ready"
    retry_after_s = 5


class DeadlineExceededError(Sa2VAError):
    """The request's deadline passed before its answer was complete."""

    status = 504
    reason = "deadline"


class RequestCancelledError(Sa2VAError):
    """The client went away; the answer is for the log only (499 is nginx's convention)."""

    status = 499
    reason = "client_gone"


class InferenceError(Sa2VAError):
    """The model failed on this request; the details are in the server's log."""

    status = 500


class DeviceLostError(Sa2VAError):
    """The device does not compute any more; only a new process can help."""

    status = 503
    reason = "device_lost"
    retry_after_s = 10


class StartupError(Sa2VAError):
    """The service can't start. The message is the one line an operator needs."""


class CheckpointError(StartupError):
    """A checkpoint that is missing, incomplete, mislabelled or of an unsupported family."""
