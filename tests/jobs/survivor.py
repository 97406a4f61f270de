"""A service with a model that isn't one, in a process that a test kills: `python -m tests.jobs.survivor PORT_FILE`."""

import sys
import time
from pathlib import Path

from tests.fakes import FakePredictor
from tests.serving import server_of

FRAME_S = 0.02


class _Slow(FakePredictor):
    def _next_frame(self, request: object) -> None:
        time.sleep(FRAME_S)
        super()._next_frame(request)  # type: ignore[arg-type]


def main() -> None:
    port_file, jobs_dir = Path(sys.argv[1]), sys.argv[2]
    with server_of(_Slow(), SA2VA_JOBS_DIR=jobs_dir, SA2VA_MAX_JOBS="1000") as url:
        port_file.write_text(url)
        time.sleep(600)


if __name__ == "__main__":
    main()
