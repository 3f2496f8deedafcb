"""`optaic run artifact`: the file that the run wrote, or none."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest

from optaic.run.v1 import run_pb2, run_service_pb2
from support.command_line import ID, invoke
from support.fake_services import FakeServices, refuse

CONTENT = b"what the run wrote"


def _run(optaic: FakeServices, uri: str, *, has_manifest: bool = True) -> None:
    run = run_pb2.Run(run_id=ID, artifacts={"curve": uri})
    if has_manifest:
        entry = run.artifact_manifest.add(name="curve", uri=uri, size_bytes=len(CONTENT))
        entry.sha256 = hashlib.sha256(CONTENT).hexdigest()
    optaic.on("GetRun", run)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    place = tmp_path / "data" / "curve.parquet"
    place.parent.mkdir()
    place.write_bytes(CONTENT)
    return place


@pytest.fixture
def served() -> Iterator[str]:
    """Yield a URL that answers the content."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/signed"
        server.shutdown()


def test_a_file_is_written_under_its_name_and_none_is_written_over(optaic: FakeServices, file: Path) -> None:
    _run(optaic, file.as_uri())
    assert invoke("run", "artifact", ID, "curve").stdout == "curve.parquet\n"
    assert Path("curve.parquet").read_bytes() == CONTENT
    assert "say with --file" in invoke("run", "artifact", ID, "curve", status=2).output
    invoke("run", "artifact", ID, "curve", "--file", "curve.parquet")
    assert not optaic.calls("SignArtifactUrl")


def test_a_file_in_an_object_store_is_read_by_a_url(optaic: FakeServices, served: str) -> None:
    _run(optaic, "s3://bucket/default/curve.parquet")
    optaic.on("SignArtifactUrl", run_service_pb2.SignArtifactUrlResponse(url=served))
    invoke("run", "artifact", ID, "curve", "--file", "here")
    assert Path("here").read_bytes() == CONTENT


def test_a_file_that_is_not_the_one_of_the_run_is_not_written(optaic: FakeServices, file: Path) -> None:
    _run(optaic, file.as_uri())
    file.write_bytes(b"something else 123")
    assert "ARTIFACT_CORRUPT" in invoke("run", "artifact", ID, "curve", "-f", "here", status=1).output
    file.unlink()
    assert "cannot be read" in invoke("run", "artifact", ID, "curve", "-f", "here", status=1).output
    assert [each.name for each in Path.cwd().iterdir() if each.is_file()] == []


def test_a_url_is_printed(optaic: FakeServices) -> None:
    optaic.on("SignArtifactUrl", run_service_pb2.SignArtifactUrlResponse(url="https://s3/x?signature=y"))
    assert invoke("run", "artifact", ID, "curve", "--url").stdout == "https://s3/x?signature=y\n"
    optaic.on(
        "SignArtifactUrl",
        lambda _, context: refuse(
            context, grpc.StatusCode.FAILED_PRECONDITION, "ARTIFACT_NOT_SIGNABLE", "it lies in a folder"
        ),
    )
    assert "it lies in a folder" in invoke("run", "artifact", ID, "curve", "--url", status=1).output


def test_a_name_that_the_run_does_not_have_is_answered_with_those_that_it_has(
    optaic: FakeServices, file: Path
) -> None:
    _run(optaic, file.as_uri())
    assert "its files are curve" in invoke("run", "artifact", ID, "trades", status=3).output


def test_a_file_without_a_record_is_written_with_a_warning(optaic: FakeServices, file: Path) -> None:
    _run(optaic, file.as_uri(), has_manifest=False)
    assert "not checked" in invoke("run", "artifact", ID, "curve", "-f", "here").output
    assert Path("here").read_bytes() == CONTENT
