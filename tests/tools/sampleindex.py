# SPDX-License-Identifier: Apache-2.0
"""A package index on this machine with small projects, for tests of what is done with a real one."""

from __future__ import annotations

import base64
import hashlib
import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PROJECT = "demo-core"
WHEEL = "demo_core-1.0-py3-none-any.whl"


def wheel(files: dict[str, str], project: str = PROJECT) -> bytes:
    """Return a wheel; that of ``PROJECT`` has a script ``demo`` that exits with what ``step_3`` returns."""
    metadata = f"{project.replace('-', '_')}-1.0.dist-info"
    files = files | {
        f"{metadata}/METADATA": f"Metadata-Version: 2.1\nName: {project}\nVersion: 1.0\n",
        f"{metadata}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if project == PROJECT:
        files[f"{metadata}/entry_points.txt"] = "[console_scripts]\ndemo = airflow.first:step_3\n"
    record = ""
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
        quoted = f'"{name}"' if "," in name else name
        record += f"{quoted},sha256={digest},{len(text.encode())}\n"
    files[f"{metadata}/RECORD"] = record + f"{metadata}/RECORD,,\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2025, 1, 2, 3, 4, 6)), text)
    return buffer.getvalue()


class Index:
    """
    Serves files of projects on a free port of the loopback interface.

    ``faults`` are used up one per download by the tool itself (not by uv): an HTTP status, or ``"cut"`` for
    half of the file. ``sent`` has what is sent in place of a file that the index lists. While ``gate`` is not
    set, downloads are started and not finished; ``asked`` is set when one has been started.
    """

    def __init__(self, files: dict[str, bytes]):
        self.files = files
        self.sent: dict[str, bytes] = {}
        self.faults: list[int | str] = []
        self.downloads = 0
        self.gate = threading.Event()
        self.gate.set()
        self.asked = threading.Event()
        self.credentials: str | None = None
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.answer(self)

            do_HEAD = do_GET

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        user = "user:secret@" if self.credentials else ""
        return f"http://{user}127.0.0.1:{self._server.server_port}/simple"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        if self.credentials and request.headers.get("Authorization") != self.credentials:
            self._send(request, 401, b"", "text/plain")
            return
        name = request.path.rstrip("/").rpartition("/")[2]
        files = {k: v for k, v in self.files.items() if k.startswith(f"{name.replace('-', '_')}-1.0-")}
        if files:
            hashes = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
            links = "".join(f'<a href="/files/{f}#sha256={h}">{f}</a>\n' for f, h in hashes.items())
            self._send(
                request, 200, f"<!DOCTYPE html><html><body>{links}</body></html>".encode(), "text/html"
            )
        elif name in self.files:
            self.asked.set()
            self.gate.wait(60)
            self.downloads += 1
            # uv reads the wheel's metadata first and has its own way of trying again.
            ours = not request.headers.get("User-Agent", "").startswith("uv/")
            fault = self.faults.pop(0) if self.faults and ours else None
            if isinstance(fault, int):
                self._send(request, fault, b"", "text/plain")
            else:
                content = self.sent.get(name, self.files[name])
                self._send(request, 200, content, "application/octet-stream", cut=fault == "cut")
        else:
            self._send(request, 404, b"", "text/plain")

    def _send(self, request, status: int, body: bytes, kind: str, cut: bool = False) -> None:
        try:
            request.send_response(status)
            request.send_header("Content-Type", kind)
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            if request.command == "GET":
                request.wfile.write(body[: len(body) // 2] if cut else body)
        except OSError:
            pass  # Who asked was killed; that is what some tests do.

    def close(self) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
