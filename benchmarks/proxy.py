"""The project's nginx configuration, in front of services on ports of their own."""

import contextlib
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.compare import ROOT, free_port

CONFIG = ROOT / "deploy/nginx/sa2va.conf"
SERVERS = re.compile(r"(    server 127\.0\.0\.1:\d+[^;]*;.*\n)+")


@contextlib.contextmanager
def nginx(ports: Sequence[int], retries: bool = True) -> Iterator[str]:
    """The URL of an nginx; without `retries`, it does not repeat a request that was sent. It stops with the block."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # for bodies that nginx's own user puts down here
        port = free_port()
        servers = "".join(f"    server 127.0.0.1:{replica} max_fails=0;\n" for replica in ports)
        text = SERVERS.sub(servers, CONFIG.read_text()).replace("listen 8080", f"listen 127.0.0.1:{port}")
        if not retries:
            text = text.replace(" non_idempotent", "")
        paths = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
        main = Path(folder) / "nginx.conf"
        main.write_text(
            f"pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
            f"http {{ access_log off; client_body_temp_path {folder}/body; {paths}\n{text}}}\n"
        )
        process = subprocess.Popen(["nginx", "-c", str(main), "-g", "daemon off;"])
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()
