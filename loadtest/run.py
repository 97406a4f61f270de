"""`make loadtest`: starts the service with the embedded model, lets Locust's users loose on it for half a minute, and
fails where more fails, or is slower, than two processors allow."""

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.compare import ROOT, free_port, running

USERS, SECONDS = 8, 30
BOUNDS = {"--max-fail-ratio": 0.0, "--max-p95-ms": 5000.0}
REPORT = ROOT / "build/loadtest.html"


def main() -> int:
    """Locust's exit status."""
    REPORT.parent.mkdir(exist_ok=True)
    port, tools = free_port(), Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as home:
        places = {"BENTOML_HOME": f"{home}/bentoml", "SA2VA_JOBS_DIR": f"{home}/jobs"}
        with running([str(tools / "bentoml"), "serve", "service:Sa2VA", "--port", str(port)], port, places) as url:
            load = ["-u", str(USERS), "-r", str(USERS), "-t", f"{SECONDS}s", "-H", url, "--html", str(REPORT)]
            bounds = [f"{name}={value}" for name, value in BOUNDS.items()]
            command = [str(tools / "locust"), "-f", "locustfile.py", "--headless", "--only-summary", *load, *bounds]
            return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
