"""Where the client finds the gateway, and when it asks it for a file."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.certificates import write_development_certificates
from optaic import errors
from optaic.client.certificates import Certificates
from optaic.client.discovery import SERVICES, find_gateway
from optaic.client.gateway_files import fetch_artifact
from optaic.client.reading import is_out_of_reach

ADDRESSES = {service: f"127.0.0.1:{port}" for port, service in enumerate(SERVICES, 1)}
URL = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPTAIC_GATEWAY_URL", raising=False)
    monkeypatch.setenv("OPTAIC_STATE", str(tmp_path))
    (tmp_path / "stack.json").write_text(json.dumps({"endpoints": {**ADDRESSES, "gateway": URL}}))


def test_the_gateway_of_a_stack_serves_clients_of_this_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_gateway(ADDRESSES) == URL
    assert find_gateway({**ADDRESSES, "run": "10.0.0.1:1"}) == ""
    assert find_gateway({}) == ""
    monkeypatch.setenv("OPTAIC_GATEWAY_URL", "https://optaic.example.com")
    assert find_gateway({}) == "https://optaic.example.com"


def test_a_stack_without_a_gateway_has_none(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text(json.dumps({"endpoints": ADDRESSES}))
    assert find_gateway(ADDRESSES) == ""


def test_a_file_is_out_of_reach_if_its_folder_is(tmp_path: Path) -> None:
    assert not is_out_of_reach(str(tmp_path / "lost"))
    assert is_out_of_reach(str(tmp_path / "no folder" / "file"))
    assert is_out_of_reach((tmp_path / "no folder" / "file").as_uri())
    assert is_out_of_reach("s3://bucket/file")


class _PathAnswered(http.server.BaseHTTPRequestHandler):
    """Answers the path of each request."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.path.encode())

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def https(tmp_path: Path) -> Iterator[str]:
    """Yield the URL of a server with a certificate of the development CA, which asks for the client's."""
    write_development_certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tmp_path / "ca.pem")
    context.load_cert_chain(tmp_path / "gateway.pem", tmp_path / "gateway.key")
    context.verify_mode = ssl.CERT_REQUIRED
    with http.server.HTTPServer(("127.0.0.1", 0), _PathAnswered) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        serving.start()
        yield f"https://127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()


def test_the_gateway_is_reached_with_the_certificates_of_the_services(https: str, tmp_path: Path) -> None:
    own = Certificates(tmp_path / "ca.pem", tmp_path / "client.pem", tmp_path / "client.key")
    assert fetch_artifact(https, "", "r", "a", 20, own) == b"/runs/r/artifacts/a"
    for others in (Certificates(), Certificates(tmp_path / "ca.pem")):
        with pytest.raises(errors.UnavailableError):
            fetch_artifact(https, "", "r", "a", 20, others)
    with pytest.raises(errors.FailedPreconditionError) as unreadable:
        fetch_artifact(https, "", "r", "a", 20, Certificates(tmp_path / "none.pem"))
    assert unreadable.value.reason == "CERTIFICATE_UNREADABLE"


def test_the_path_of_the_gateway_is_kept(https: str, tmp_path: Path) -> None:
    own = Certificates(tmp_path / "ca.pem", tmp_path / "client.pem", tmp_path / "client.key")
    for base in ("/optaic/gateway", "/optaic/gateway/"):
        assert (
            fetch_artifact(https + base, "", "r", "a b", 20, own) == b"/optaic/gateway/runs/r/artifacts/a%20b"
        )
