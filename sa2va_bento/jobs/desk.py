"""Where jobs are handed in and asked for: the store, the folders and the worker as one thing."""

import logging
import shutil

from sa2va_bento.errors import JobFailedError, NoRoomError, NotFinishedError, StartupError
from sa2va_bento.jobs.files import JobFiles, folder_bytes
from sa2va_bento.jobs.job import Job, JobRequest, State
from sa2va_bento.jobs.store import JobStore, new_id
from sa2va_bento.jobs.worker import ClipAnswerer, JobWorker
from sa2va_bento.settings import Settings

logger = logging.getLogger(__name__)

STORE = "jobs.sqlite3"
LEAST_FREE_BYTES = 64 * 2**20
"""That an upload leaves of the disk, for results."""


class JobDesk:
    """Blocking; from any thread but the event loop's.

    Raises:
        StartupError: the folder can't be made or written.
    """

    def __init__(self, predictor: ClipAnswerer, settings: Settings) -> None:
        self.settings, self.folder = settings, settings.jobs_dir
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.store = JobStore(self.folder / STORE)
        except Exception as error:
            raise StartupError(f"SA2VA_JOBS_DIR: video jobs can't be kept in {self.folder} ({error})") from None
        self._worker = JobWorker(self.store, self.folder, predictor, settings)

    def check_room(self, size: int) -> None:
        """Whether a job with an upload of `size` bytes would be taken.

        Raises:
            TooManyJobsError: too many wait or run.
            NoRoomError: there is no room for it on the disk, or in what jobs may take of it.
        """
        self.store.check_room(self.settings.max_jobs)
        if folder_bytes(self.folder) + size > self.settings.max_jobs_mb * 2**20:
            raise NoRoomError("video jobs take all the room there is for them; fetch and delete some")
        if shutil.disk_usage(self.folder).free < size + LEAST_FREE_BYTES:
            raise NoRoomError("there is no room on the disk for jobs")

    def new_files(self) -> tuple[str, JobFiles]:
        """An id, and a folder for the input of the job that is to have it. Raises NoRoomError."""
        job_id = new_id()
        files = JobFiles(self.folder / job_id)
        files.make()
        return job_id, files

    def submit(self, job_id: str, owner: str, request: JobRequest, digest: str, key: str | None) -> Job:
        """Accepts the job whose input is in its folder; or gives the one that came with the same key before, and
        forgets this one.

        Raises:
            TooManyJobsError: too many wait or run.
            BadRequestError: the key came with another request.
        """
        self.files(job_id).keep_input()
        job, is_new = self.store.add(job_id, owner, request, digest, key, self.settings.max_jobs)
        if not is_new:
            self.files(job_id).remove()
        self._worker.wake()
        return job

    def job(self, job_id: str, owner: str) -> Job:
        """Raises NoSuchJobError."""
        return self.store.get(job_id, owner)

    def files(self, job_id: str) -> JobFiles:
        return JobFiles(self.folder / job_id)

    def cancel(self, job: Job) -> Job | None:
        """Stops a job that waits or runs; of one that has ended everything is removed, and there is none any more."""
        if job.state.is_final:
            self.store.forget(job.id)
            self.files(job.id).remove()
            return None
        self.store.cancel(job.id)
        self._worker.cancel(job.id)
        return self.store.get(job.id, job.owner)

    def finished(self, job: Job) -> JobFiles:
        """The files of a job that is done.

        Raises:
            NotFinishedError: it is not, or it was cancelled.
            JobFailedError: it failed.
        """
        if job.state is State.FAILED and job.error:
            raise JobFailedError(job.error.status, job.error.message)
        if job.state is not State.DONE:
            raise NotFinishedError(f"the job is {job.state}")
        return self.files(job.id)

    def close(self, timeout_s: float = 5.0) -> None:
        """Interrupts what runs; it is started again by the next process."""
        self._worker.stop(timeout_s)
