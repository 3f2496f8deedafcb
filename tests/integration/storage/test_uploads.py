"""Uploads in parts, as servers answer that are not the one of the other tests: with encoded keys, with refusals, with nonsense."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from optaic import storage
from optaic.storage import uploads
from support.object_store import installed

ROOT = "s3://optaic/data/default"
BEGUN = datetime(2026, 1, 2, tzinfo=UTC)


class Server:
    """A server that gives one answer, and keeps the lines of the requests."""

    def __init__(self) -> None:
        self.status, self.body = 200, b""
        self.asked: list[str] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        served = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                served.asked.append(f"{self.command} {self.path}")
                if not served.status:
                    self.wfile.write(b"nonsense\r\n\r\n")
                    return
                self.send_response(served.status)
                self.send_header("Content-Length", str(len(served.body)))
                self.end_headers()
                self.wfile.write(served.body)

            do_GET = do_DELETE = _answer  # noqa: N815 - names of the library

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            with installed(
                storage.Access(
                    f"http://127.0.0.1:{server.server_port}",
                    "us-east-1",
                    access_key_id="key",
                    secret_access_key="secret",
                )
            ):
                yield
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    with made.running():
        yield made


def listing(*keys: str, encoding: str = "") -> bytes:
    told = f"<EncodingType>{encoding}</EncodingType>" if encoding else ""
    listed = "".join(
        f"<Upload><Key>{key}</Key><UploadId>u</UploadId><Initiated>2026-01-02T00:00:00Z</Initiated></Upload>"
        for key in keys
    )
    return f"<ListMultipartUploadsResult>{told}{listed}</ListMultipartUploadsResult>".encode()


@pytest.mark.parametrize(
    ("encoding", "key"), [("url", "data/default/a+b%2Bc%23%3F"), ("", "data/default/a b+c#?")]
)
def test_a_key_is_read_as_the_server_says_that_it_is_encoded(server: Server, encoding: str, key: str) -> None:
    server.body = listing(key, "data/defaulted/x", encoding=encoding)
    found = list(storage.list_uploads(ROOT))
    assert found == [storage.Upload(f"{ROOT}/a b+c#?", "u", BEGUN)]


def test_an_upload_to_a_key_with_any_sign_is_aborted_at_this_key(server: Server) -> None:
    server.status = 204
    storage.abort_upload(storage.Upload(f"{ROOT}/a#b?c", "u", BEGUN))
    assert server.asked == ["DELETE /optaic/data/default/a%23b%3Fc?uploadId=u"]


def test_an_upload_that_is_gone_needs_no_abort(server: Server) -> None:
    server.status = 404
    storage.abort_upload(storage.Upload(f"{ROOT}/x", "u", BEGUN))


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b"<Error/>"),
        (403, b"<Error/>"),
        (0, b""),
        (200, b"no xml"),
        (200, listing()[:-1]),
        (200, b"<html/>"),
        (200, listing("data/default/x").replace(b"2026-01-02", b"yesterday")),
        (200, listing("data/default/x").replace(b"<UploadId>u</UploadId>", b"")),
        (200, listing("")),
    ],
)
def test_an_answer_that_is_no_list_is_no_empty_list(server: Server, status: int, body: bytes) -> None:
    server.status, server.body = status, body
    with pytest.raises(storage.StorageUnavailableError):
        list(storage.list_uploads(ROOT))


def test_an_answer_that_is_longer_than_what_is_read_is_refused(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.body = listing()
    monkeypatch.setattr(uploads, "_LONGEST_ANSWER", len(server.body))
    assert list(storage.list_uploads(ROOT)) == []
    server.body += b" "
    with pytest.raises(storage.StorageUnavailableError, match="more than"):
        list(storage.list_uploads(ROOT))
