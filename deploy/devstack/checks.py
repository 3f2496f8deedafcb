"""Check whether a server answers: each function returns a bool, or a text that is empty if all is well; none raises."""

import asyncio
import contextlib
import re
import ssl

import grpc
import psycopg
from grpc_health.v1 import health_pb2, health_pb2_grpc

from optaic.client.certificates import Certificates
from optaic.errors import OptaicError

_TIMEOUT_SECONDS = 2.0
_PATIENT_SECONDS = 10.0  # before a server counts as silent: the machine may be busy
_SILENT = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
_STATUS = re.compile(rb"HTTP/\d(?:\.\d)? (\d{3})(?: [^\r\n]*)?\r?\n")
_OK = b"200"
_LONGEST_LINE = 8 * 1024  # bytes
_LONGEST_ANSWER = 1000  # bytes, of what comes after the first line
_GRPC = (("grpc.enable_http_proxy", 0),)
_SHOWN = 60  # bytes of what is no HTTP


async def http_answers(host: str, path: str, tls: ssl.SSLContext | None = None) -> bool:
    """Return whether a GET request answers 200."""
    return not await find_http_problem(host, path, _TIMEOUT_SECONDS, tls)


async def find_http_problem(
    host: str, path: str, seconds: float = _PATIENT_SECONDS, tls: ssl.SSLContext | None = None
) -> str:
    """Return the answer to a GET if it is not 200; uses no client library, because importing one takes too long."""
    name, _, given = host.partition(":")
    port = int(given) if given else 443 if tls else 80
    line, content = b"", b""
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(name, port, limit=_LONGEST_LINE, ssl=tls)
            with contextlib.closing(writer):
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                try:
                    line = await reader.readuntil(b"\n")
                except asyncio.IncompleteReadError as error:
                    line = error.partial
                except asyncio.LimitOverrunError:
                    line = await reader.read(_SHOWN)
                status = _STATUS.fullmatch(line)
                if status is not None and status[1] == _OK:
                    return ""
                while (
                    status is not None
                    and len(content) < _LONGEST_ANSWER
                    and (piece := await reader.read(_LONGEST_ANSWER))
                ):
                    content += piece
    except (OSError, TimeoutError) as error:
        if not line:
            return f"{path}: {error!r}"  # after the first line, return what has arrived
    if _STATUS.fullmatch(line) is None:
        said = f"it sent {line[:_SHOWN]!r}" if line else "it closed the connection without a word"
        return f"{path}: what listens on {host} does not speak HTTP: {said}"
    body = (b"\r\n" + content[:_LONGEST_ANSWER]).partition(b"\r\n\r\n")[2]
    said = f"{line.decode(errors='replace').strip()} {body.decode(errors='replace').strip()}"
    return f"{path}: {said.strip()}"


async def find_grpc_problem(
    address: str, service_token: str = "", certificates: Certificates | None = None
) -> str:
    """Return why the standard health service does not answer, or an empty text; NOT_SERVING or being too busy is an answer."""
    try:
        opened = (certificates or Certificates()).open_channel(address, _GRPC)
    except OptaicError as error:
        return f"health: {error}"
    async with opened as channel:
        try:
            await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=_PATIENT_SECONDS, metadata=_identity(service_token)
            )
        except grpc.aio.AioRpcError as error:
            if error.code() in _SILENT:
                return f"health: {error.code().name} {error.details()}"
    return ""


async def grpc_serves(
    address: str, service_token: str = "", certificates: Certificates | None = None
) -> bool:
    """Return whether the standard health service says that all of this server is SERVING."""
    try:
        opened = (certificates or Certificates()).open_channel(address, _GRPC)
    except OptaicError:
        return False
    async with opened as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            request, identity = health_pb2.HealthCheckRequest(), _identity(service_token)
            answer = await stub.Check(request, timeout=_TIMEOUT_SECONDS, metadata=identity)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _identity(service_token: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a service; health says nothing about a tenant, and yet each service must name one."""
    token = (("authorization", f"Bearer {service_token}"),) if service_token else ()
    return (*token, ("optaic-tenant", "default"))


async def postgres_accepts(url: str) -> bool:
    """Return whether the server accepts a login."""
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            connection = await psycopg.AsyncConnection.connect(url, connect_timeout=2)
            await connection.close()
    except (psycopg.Error, OSError, TimeoutError):
        return False
    return True


async def find_postgres_problem(url: str) -> str:
    """Return why the server does not answer a login, or an empty text; recovering or having too many logins is an answer."""
    try:
        async with asyncio.timeout(_PATIENT_SECONDS):
            connection = await psycopg.AsyncConnection.connect(url, connect_timeout=int(_PATIENT_SECONDS))
            await connection.close()
    except (psycopg.Error, OSError, TimeoutError) as error:
        return "" if "FATAL:" in str(error) else f"login: {error!r}"
    return ""
