"""Works on jobs, oldest first, as many at once as the settings allow, and sweeps away what is kept no longer.

A job whose process has ended is found by its lock, which went with the process, and is started again from the
beginning: its state says that it is the second attempt. What was finished is never touched.
"""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from sa2va_bento import metrics
from sa2va_bento.clips import ClipQuestion, ClipRequest, ClipWatcher, FramesSeen
from sa2va_bento.errors import DeviceLostError, InferenceError, NotReadyError, RequestCancelledError, Sa2VAError
from sa2va_bento.jobs.files import JobFiles
from sa2va_bento.jobs.job import VIDEO, Job, JobError, JobRequest, State
from sa2va_bento.jobs.recorder import Recorder
from sa2va_bento.jobs.store import JobStore
from sa2va_bento.media.videos.limits import VideoInfo
from sa2va_bento.media.videos.pictures import PictureSequence
from sa2va_bento.media.videos.video_file import VideoFile, VideoLimits
from sa2va_bento.settings import Settings
from sa2va_bento.types import RequestContext, Turn

logger = logging.getLogger(__name__)

SUSPICIOUS, MOST_ATTEMPTS = 3, 10
"""A job that was interrupted so often may be what interrupts: it comes after all others, and is given up in the end."""
LOOK_S = 1.0
"""Between two looks at the store, where nobody says that there is something."""
SWEEP_S = 60.0
"""Between two looks for what is kept no longer."""
ABANDONED_S = 3600.0
"""Age of a folder that no job has, in which an upload may still be under way."""
ASK_S = 0.5
"""Between two looks whether another process has cancelled a job."""


class ClipAnswerer(Protocol):
    """What answers: a predictor."""

    def answer_clip(self, request: ClipRequest, watcher: ClipWatcher) -> None: ...


class JobWorker:
    """Threads that take jobs from the store until they are stopped."""

    def __init__(self, store: JobStore, folder: Path, predictor: ClipAnswerer, settings: Settings) -> None:
        self._store, self._folder, self._predictor, self._settings = store, folder, predictor, settings
        self._wake, self._is_stopping = threading.Event(), False
        self._running: set[str] = set()
        self._cancelled: set[str] = set()
        self._swept_at = 0.0
        self._threads = [
            threading.Thread(target=self._run, name=f"sa2va-job-{number}", daemon=True)
            for number in range(settings.jobs_at_once)
        ]
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """There is a new job."""
        self._wake.set()

    def cancel(self, job_id: str) -> None:
        """Stops a job of this process within a frame; what other processes work on stops as the store says."""
        if job_id in self._running:
            self._cancelled.add(job_id)

    def stop(self, timeout_s: float) -> None:
        """Takes no more jobs and interrupts those that run: another process starts them again."""
        self._is_stopping = True
        self._wake.set()
        for thread in self._threads:
            thread.join(timeout_s)

    def _run(self) -> None:
        while not self._is_stopping:
            try:
                worked = self._work_on_one()
                self._sweep()
            except Exception:
                logger.exception("jobs: the store failed")
                worked = False
            if not worked and not self._is_stopping:
                self._wake.wait(LOOK_S)
                self._wake.clear()

    def _work_on_one(self) -> bool:
        for job in sorted(self._store.live(), key=lambda job: job.attempt >= SUSPICIOUS):
            files = JobFiles(self._folder / job.id)
            with files.claimed() as is_ours:
                if not is_ours or self._is_stopping:
                    continue
                fresh = self._store.start(job.id)
                if fresh is None:
                    if job.is_cancel_wanted:  # its process ended before it could stop it
                        self._store.finish(job.id, State.CANCELLED)
                    continue
                self._answer(fresh, files)
                return True
        return False

    def _answer(self, job: Job, files: JobFiles) -> None:
        self._running.add(job.id)
        try:
            if job.attempt > MOST_ATTEMPTS:
                raise InferenceError(f"the job was interrupted {MOST_ATTEMPTS} times")
            self._record(job, files)
        except RequestCancelledError:
            if self._is_stopping and job.id not in self._cancelled:
                return  # it stays as it is, for the next process
            self._store.finish(job.id, State.CANCELLED)
        except (NotReadyError, DeviceLostError):
            self._is_stopping = True  # the engine has: another process is needed
        except Sa2VAError as error:
            metrics.count_error(error.status, error.reason)
            self._store.finish(job.id, State.FAILED, JobError(error.status, error.message))
        except Exception:
            logger.exception("job %s failed", job.id)
            metrics.count_error(InferenceError.status, InferenceError.reason)
            self._store.finish(job.id, State.FAILED, JobError(InferenceError.status, "the job failed"))
        finally:
            self._running.discard(job.id)
            self._cancelled.discard(job.id)

    def _record(self, job: Job, files: JobFiles) -> None:
        clip = open_clip(files, job.request, self._settings)
        recorder = Recorder(
            files,
            job.request,
            lambda frames: self._store.progress(job.id, frames, frames_expected(clip.info, job.request)),
        )
        try:
            self._predictor.answer_clip(self._request(job, clip), recorder)
            total = recorder.frames or frames_expected(clip.info, job.request)
            self._store.progress(job.id, recorder.frames, total)
            video = clip.info.to_dict() if clip.info else {}
            answer = recorder.answer(job.request.adapter or self._settings.model_name, video, _warnings(job, clip))
        finally:
            recorder.close()
        files.complete({"id": job.id, **answer})
        self._store.finish(job.id, State.DONE)

    def _request(self, job: Job, clip: "VideoFile | PictureSequence") -> ClipRequest:
        asked = job.request
        seen = asked.frames_seen
        return ClipRequest(
            clip=clip,
            questions=tuple(
                ClipQuestion(prompt, tuple(Turn(role, content) for role, content in turns))  # type: ignore[arg-type]
                for prompt, turns in zip(asked.prompts, asked.histories, strict=True)
            ),
            seen=FramesSeen(seen) if isinstance(seen, str) else seen,
            seen_count=asked.frames_seen_count,
            mode=asked.mode,
            selected=asked.selected,
            mask_threshold=asked.mask_threshold,
            soft_masks=asked.mask_format == "probability",
            max_new_tokens=asked.max_new_tokens,
            adapter=asked.adapter,
            is_cancelled=self._is_cancelled(job.id),
            context=RequestContext(job.id),
        )

    def _is_cancelled(self, job_id: str) -> Callable[[], bool]:
        """Asked between any two frames, by several threads; the store is asked now and then only."""
        asked_at, found = time.monotonic(), False

        def is_cancelled() -> bool:
            nonlocal asked_at, found
            if found or self._is_stopping or job_id in self._cancelled:
                return True
            if threading.current_thread() in self._threads and time.monotonic() - asked_at > ASK_S:
                asked_at = time.monotonic()
                found = self._store.is_cancel_wanted(job_id)
            return found

        return is_cancelled

    def _sweep(self) -> None:
        """Removes jobs that have been kept long enough, and folders that no job has."""
        if time.monotonic() - self._swept_at < SWEEP_S:
            return
        self._swept_at = time.monotonic()
        for job_id in self._store.finished_before(time.time() - self._settings.jobs_keep_s):
            self._store.forget(job_id)
            JobFiles(self._folder / job_id).remove()
        known = self._store.ids()
        for folder in self._folder.iterdir():  # of uploads whose process ended, above all
            is_old = folder.is_dir() and folder.stat().st_mtime < time.time() - ABANDONED_S
            if is_old and folder.name not in known:
                JobFiles(folder).remove()


def open_clip(files: JobFiles, request: JobRequest, settings: Settings) -> "VideoFile | PictureSequence":
    """The job's input as a clip."""
    if request.files == (VIDEO,):
        limits = VideoLimits(settings.max_image_pixels, settings.max_video_frames)
        return VideoFile(files.input / VIDEO, limits, request.selection)
    paths = tuple(files.input / name for name in request.files)
    return PictureSequence(paths, settings.max_image_pixels, request.selection)


def frames_expected(info: VideoInfo | None, request: JobRequest) -> int | None:
    """How many frames will be looked at, as far as the file tells."""
    selection = request.selection
    if info is None or info.frames is None:
        return None
    frames: float = info.frames
    if info.fps and info.duration_s:
        start, end = selection.start_s, min(info.duration_s, selection.end_s or info.duration_s)
        seconds = max(0.0, end - start)
        frames = min(frames, seconds * min(info.fps, selection.fps or info.fps))
    expected = -(-round(frames) // selection.every_nth)
    return max(1, min(expected, selection.max_frames or expected))


def _warnings(job: Job, clip: "VideoFile | PictureSequence") -> list[str]:
    damaged = [f"video: {clip.damaged} damaged pieces were left out"] if clip.damaged else []
    again = [f"started again after an interruption (attempt {job.attempt})"] if job.attempt > 1 else []
    return [*job.request.warnings, *damaged, *again]
