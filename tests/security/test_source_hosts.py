"""The pipelines `file` and `sql` connect to hosts of the policy only: whatever a name resolves to, and wherever a server redirects."""

from __future__ import annotations

import datetime as dt
import gzip
import io
import lzma
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from ipaddress import IPv4Address, ip_address
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa

from optaic.plugins import InvalidConfig, PipelineContext, PluginError, SourceNotAllowed, SourceUnavailable
from support.sources import allowed
from support.web import Answer, Web, serving
from worker.builtin.file_source import FilePipeline
from worker.builtin.sql_source import SqlPipeline
from worker.sources import access, addresses, databases
from worker.sources.access import BoundSecrets, SourceAccess
from worker.sources.addresses import Reach, judge
from worker.sources.policy import Destination, SourcePolicy, is_bound, matches_host
from worker.sources.reading import read_source
from worker.sources.s3 import Credentials, sign

CSV = b"date,entity\n2024-01-02,a\n"

INNER = [
    "127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001", "127.0.0.2",
    "127.255.255.254", "localhost", "localhost.", "LOCALHOST", "[::1]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "0.0.0.0", "0", "[::]", "10.0.0.1",  # noqa: S104 - these are examples
    "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "[::ffff:a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]", "2852039166",
    "0xa9fea9fe", "0251.0376.0251.0376", "[fd00:ec2::254]", "[fe80::1]", "[fc00::1]", "[fec0::1]", "224.0.0.1", "[ff02::1]",
    "255.255.255.255", "240.0.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "192.0.2.1", "198.18.0.1",
    "\uff11\uff12\uff17.0.0.1", "127\u30020\u30020\u30021", "\u24dbocalhost",
]  # fmt: skip


NEVER = ["169.254.169.254", "fd00:ec2::254", str(IPv4Address(0)), "224.0.0.1", "fe80::1", "168.63.129.16"]


def _refuse(url: str, **config: object) -> PluginError:
    with pytest.raises(PluginError) as refused:
        FilePipeline().run(PipelineContext(config={"url": url, "format": "csv", **config}))
    return refused.value


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """All that is connected; nothing really is."""
    tried: list[object] = []

    def connect(place: object, **_: object) -> socket.socket:
        tried.append(place)
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket, "create_connection", connect)
    return tried


@pytest.mark.parametrize("host", INNER)
@pytest.mark.parametrize("scheme", ["https", "http"])
def test_no_inner_address_is_connected_however_it_is_written(
    host: str, scheme: str, connections: list[object]
) -> None:
    with allowed(schemes=["file", "https", "http", "s3"], http_hosts=["*"]):
        refused = _refuse(f"{scheme}://{host}/latest/meta-data")
    assert isinstance(refused, SourceNotAllowed | InvalidConfig | SourceUnavailable), refused
    assert connections == []


@pytest.mark.parametrize("host", INNER)
def test_no_database_at_an_inner_address_is_connected(
    host: str, connections: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sa, "create_engine", lambda *_, **__: connections.append(host))
    config = {"url": f"postgresql+psycopg://u@{host}/x", "table": "px"}
    with allowed(), pytest.raises(PluginError):
        SqlPipeline().run(PipelineContext(config=config))
    assert connections == []


@pytest.mark.parametrize("address", NEVER)
def test_some_addresses_are_allowed_by_no_name(address: str, connections: list[object]) -> None:
    policy = SourcePolicy(private_hosts=["meta.example"], http_hosts=["meta.example"])
    with pytest.raises(SourceNotAllowed, match="no setting allows"):
        read_source(SourceAccess(policy), "http://meta.example/x", {}, by=lambda *_: [address])
    assert connections == []


@pytest.mark.parametrize(
    ("address", "reach"),
    [
        ("8.8.8.8", Reach.PUBLIC),
        ("2606:4700::1111", Reach.PUBLIC),
        ("::ffff:8.8.8.8", Reach.PUBLIC),
        ("127.0.0.1", Reach.PRIVATE),
        ("100.127.255.255", Reach.PRIVATE),
        ("64:ff9b::808:808", Reach.PRIVATE),
        ("::ffff:169.254.169.254", Reach.NEVER),
        ("2002:a9fe:a9fe::", Reach.NEVER),
    ],
)
def test_addresses_are_judged_with_what_they_embed(address: str, reach: Reach) -> None:
    assert judge(ip_address(address)) is reach


def test_a_name_with_one_inner_address_among_public_ones_is_refused(connections: list[object]) -> None:
    found = SourceAccess(SourcePolicy())
    with pytest.raises(SourceNotAllowed, match="OPTAIC_SOURCE_PRIVATE_HOSTS"):
        read_source(found, "https://mixed.example/a", {}, by=lambda *_: ["8.8.8.8", "127.0.0.1"])
    assert connections == []


def test_the_address_that_was_checked_is_connected_although_the_name_means_another_one_now(
    connections: list[object],
) -> None:
    answers = iter([["8.8.8.8"], ["127.0.0.1"], ["127.0.0.1"]])
    with pytest.raises(SourceUnavailable):
        read_source(SourceAccess(), "https://rebinding.example/a", {}, by=lambda *_: next(answers))
    assert connections == [("8.8.8.8", 443)]
    assert next(answers) == ["127.0.0.1"], "it is asked once"


def test_a_database_is_connected_at_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    engines: list[dict[str, object]] = []

    def make(url: sa.URL, **options: object) -> sa.Engine:
        engines.append({"url": url, **options})
        raise sa.exc.ArgumentError

    monkeypatch.setattr(sa, "create_engine", make)
    for name in ("postgresql+psycopg", "mysql+pymysql"):
        url = sa.make_url(f"{name}://u@db.example/x")
        found = SourceAccess()
        with (
            pytest.raises(InvalidConfig),
            databases.connect(found, BoundSecrets(found), url, "db.example", by=lambda *_: ["8.8.8.8"]),
        ):
            pass
    postgres, mysql = engines
    assert isinstance(postgres["connect_args"], dict)
    assert postgres["connect_args"]["hostaddr"] == "8.8.8.8"
    assert isinstance(mysql["url"], sa.URL)
    assert mysql["url"].host == "8.8.8.8"
    assert isinstance(mysql["connect_args"], dict)
    assert mysql["connect_args"]["local_infile"] is False


@contextmanager
def _web(answer: Callable[[str], Answer], **policy: Any) -> Iterator[Web]:
    """Serve on this machine, at a port that is allowed by name."""
    with serving(answer) as server:
        place: dict[str, Any] = {"private_hosts": [server.host], "http_hosts": [server.host], **policy}
        with allowed(**place):
            yield server


def test_a_host_that_is_allowed_by_name_is_read() -> None:
    with _web(lambda _: Answer(CSV)) as server:
        found = FilePipeline().run(PipelineContext(config={"url": f"{server.url}/a.csv"}))
        assert found.height == 1
        assert len(server.asked) == 1


def test_other_ports_of_an_allowed_host_are_not_read() -> None:
    with serving(lambda _: Answer(CSV)) as other, _web(lambda _: Answer(CSV)):
        assert isinstance(_refuse(f"{other.url}/a.csv"), SourceNotAllowed)
        assert other.asked == []


@pytest.mark.parametrize(
    "location",
    [
        "http://{other}/a", "//{other}/a", "http://127.0.0.1:1/a", "http://localhost:{port}/a", "http://[::1]:{port}/a",
        "http://0.0.0.0:{port}/", "http://2130706433:{port}/", "https://169.254.169.254/latest", "file:///etc/passwd", "ftp://x/a",
        "gopher://127.0.0.1/_x", "data:text/csv,a", "http://u:p@{own}/a", "\\\\{other}\\a", "http:\\\\{other}/a", "http://{own}@{other}/a",
        "http://{other}#@{own}/", "jar:http://{other}!/", "simplecache::http://{other}/",
    ],
)  # fmt: skip
def test_a_redirect_is_checked_like_the_url(location: str) -> None:
    with serving(lambda _: Answer(CSV)) as other:
        place = location.replace("{other}", other.host).replace("{port}", str(other.port))

        def answer(path: str) -> Answer:
            if path == "/a.csv":
                return Answer(status=302, headers={"Location": place.replace("{own}", server.host)})
            return Answer(b"", 404)

        with _web(answer) as server:
            refused = _refuse(f"{server.url}/a.csv")
            assert refused.type in {"SourceNotAllowed", "SourceUnavailable", "SourceNotFound"}
            assert other.asked == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_an_allowed_place_is_followed_and_a_circle_ends(status: int) -> None:
    def answer(path: str) -> Answer:
        if path == "/b.csv":
            return Answer(CSV)
        return Answer(status=status, headers={"Location": "/b.csv" if path == "/a.csv" else path})

    with _web(answer) as server:
        assert FilePipeline().run(PipelineContext(config={"url": f"{server.url}/a.csv"})).height == 1
        assert "redirects" in str(_refuse(f"{server.url}/circle"))
        assert len(server.asked) < 12


@pytest.mark.parametrize("status", [201, 204, 206, 300, 304, 400, 401, 403, 404, 410, 418, 500, 503])
def test_an_answer_that_is_no_file_is_named_by_its_number_only(status: int) -> None:
    with _web(lambda _: Answer(b"k4n4rie", status)) as server:
        refused = _refuse(f"{server.url}/a.csv")
        assert refused.type in {"SourceNotFound", "SourceUnavailable"}
        assert "k4n4rie" not in str(refused)
        assert str(status) in str(refused)


def _bomb(compression: str) -> bytes:
    zeros = bytes(4_000_000)
    if compression == "gzip":
        return gzip.compress(zeros) * 3
    return lzma.compress(zeros) * 3


@pytest.mark.parametrize("compression", ["gzip", "xz"])
def test_a_file_that_unpacks_to_more_than_is_allowed_is_refused(compression: str) -> None:
    with _web(lambda _: Answer(_bomb(compression)), max_bytes=1_000_000) as server:
        refused = _refuse(f"{server.url}/a", storage_options={"compression": compression})
        assert "OPTAIC_SOURCE_MAX_BYTES" in str(refused)


@pytest.mark.parametrize("headers", [{}, {"Content-Encoding": "gzip"}, {"Content-Length": "99999999999"}])
def test_an_answer_of_more_bytes_than_are_allowed_is_refused(headers: dict[str, str]) -> None:
    body = _bomb("gzip") if "Content-Encoding" in headers else bytes(1_000_001)
    with _web(lambda _: Answer(body, headers=headers), max_bytes=1_000_000) as server:
        assert "OPTAIC_SOURCE_MAX_BYTES" in str(_refuse(f"{server.url}/a.csv"))


def test_a_parquet_file_whose_table_is_larger_than_is_allowed_is_refused() -> None:
    table = pl.DataFrame({"date": [dt.date(2024, 1, 2)]}).select(pl.all().repeat_by(2_000_000).explode())
    stream = io.BytesIO()
    table.write_parquet(stream)
    content = stream.getvalue()
    assert len(content) < 1_000_000
    with _web(lambda _: Answer(content), max_bytes=1_000_000) as server:
        refused = _refuse(f"{server.url}/a.parquet", format="parquet")
        assert "OPTAIC_SOURCE_MAX_BYTES" in str(refused)


@pytest.mark.parametrize("drip", ["status", "header", "body", "silence"])
def test_a_server_that_never_ends_takes_no_longer_than_is_allowed(drip: str) -> None:
    begin = {"status": b"HTTP/1", "header": b"HTTP/1.1 200 OK\r\nX: ", "silence": b""}.get(
        drip, b"HTTP/1.1 200 OK\r\n\r\n"
    )
    is_over = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with closing(connection):
            connection.sendall(begin)
            while drip != "silence" and not is_over.wait(0.05):
                try:
                    connection.sendall(b"x")
                except OSError:
                    return
            is_over.wait(5)

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        start = time.monotonic()
        with allowed(private_hosts=[host], http_hosts=[host], total_seconds=0.5):
            refused = _refuse(f"http://{host}/a.csv")
        is_over.set()
        thread.join()
    assert time.monotonic() - start < 4
    assert "OPTAIC_SOURCE_TOTAL_SECONDS" in str(refused) or "in time" in str(refused)


def test_a_name_that_is_never_resolved_ends_in_time() -> None:
    is_over = threading.Event()

    def never(*_: object) -> Sequence[str]:
        is_over.wait(10)
        return []

    with pytest.raises(SourceUnavailable):
        read_source(SourceAccess(SourcePolicy(connect_seconds=0.1)), "https://slow.example/a", {}, by=never)
    is_over.set()


@pytest.mark.parametrize(
    ("patterns", "host", "port", "expected"),
    [
        (["*"], "a.example", 443, True),
        (["*.example"], "a.example", 443, True),
        (["*.example"], "example", 443, False),
        (["*.example"], "evilexample", 443, False),
        (["a.example"], "a.example.evil", 443, False),
        (["a.example:8443"], "a.example", 8443, True),
        (["a.example:8443"], "a.example", 443, False),
        (["A.Example."], "a.example", 443, True),
        (["127.0.0.1"], "127.0.0.1", 80, True),
        (["::1"], "::1", 80, True),
        (["[::1]:80"], "::1", 80, True),
        ([], "a.example", 443, False),
    ],
)
def test_hosts_match_their_patterns(patterns: list[str], host: str, port: int, expected: bool) -> None:
    assert matches_host(patterns, host, port) is expected


@pytest.mark.parametrize(
    ("binding", "destination", "expected"),
    [
        ("https://a.example", Destination("https", "a.example"), True),
        ("https://a.example", Destination("https", "a.example", 8443), False),
        ("https://a.example:8443", Destination("https", "a.example", 8443), True),
        ("https://a.example", Destination("http", "a.example"), False),
        ("https://*.example", Destination("https", "b.example"), True),
        ("https://*.example", Destination("https", "example.evil"), False),
        ("postgresql://a.example", Destination("https", "a.example"), False),
        ("file://", Destination("file"), True),
        ("file://", Destination("sqlite"), False),
        ("definition:mine", Destination("definition", "mine"), False),
    ],
)
def test_a_secret_is_bound_to_scheme_host_and_port(
    binding: str,
    destination: Destination,
    expected: bool,
) -> None:
    assert is_bound([binding], destination) is expected


def test_a_host_that_is_not_listed_is_refused_with_the_setting(connections: list[object]) -> None:
    with allowed(hosts=["*.example"]):
        assert "OPTAIC_SOURCE_HOSTS" in str(_refuse("https://a.test/x"))
        assert "OPTAIC_SOURCE_HTTP_HOSTS" in str(_refuse("http://a.example/x"))
    assert connections == []
    assert access.current() is not None
    assert addresses.resolve("127.0.0.1", 80) == ["127.0.0.1"]


def test_an_object_of_s3_is_signed_as_aws_describes() -> None:
    """The example of the documentation of Signature Version 4 for S3, without its header Range."""
    credentials = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    place = Destination("https", "examplebucket.s3.amazonaws.com")
    signed = sign(place, "/test.txt", "us-east-1", credentials, dt.datetime(2013, 5, 24, tzinfo=dt.UTC))
    assert signed["x-amz-date"] == "20130524T000000Z"
    assert "SignedHeaders=host;x-amz-content-sha256;x-amz-date" in signed["Authorization"]
    assert credentials.secret not in str(signed)


def test_an_object_of_s3_is_read_at_an_endpoint_that_is_checked_like_a_host() -> None:
    options = {"key": "k", "secret": "s", "region": "eu-central-1"}
    with _web(lambda _: Answer(CSV)) as server:
        config = {"url": "s3://bucket/a/b c.csv", "storage_options": {**options, "endpoint_url": server.url}}
        assert FilePipeline().run(PipelineContext(config=config)).height == 1
        assert server.asked[0].startswith("GET /bucket/a/b%20c.csv HTTP/1.1")
        assert "AWS4-HMAC-SHA256 Credential=k/" in server.asked[0]
    for endpoint in ("http://127.0.0.1:9", "http://169.254.169.254", "file:///etc", "https://x/../y?z"):
        refused = _refuse("s3://bucket/a.csv", storage_options={**options, "endpoint_url": endpoint})
        assert refused.type in {"SourceNotAllowed", "InvalidConfig"}


def test_an_object_of_s3_is_not_read_with_credentials_of_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    assert "credentials of the worker" in str(_refuse("s3://bucket/a.csv"))
