"""Send messages between the processes of one run: a kind, a length, and bytes, which are not interpreted here."""

from __future__ import annotations

import asyncio
import socket
import struct
from enum import IntEnum, auto

_HEADER = struct.Struct("!BI")
_LONGEST = 64 * 1024 * 1024


class Kind(IntEnum):
    """The kind of a message."""

    START = auto()  # to the guardian: where the output goes
    TASK = auto()  # to the child: what it computes
    PROGRESS = auto()  # from the child
    RESULT = auto()  # from the child: what CompleteRun says
    FAILURE = auto()  # from the child: what user code raised
    REPORT = auto()  # from the guardian: how the child ended


Frame = tuple[int, bytes]


def pack(kind: Kind, payload: bytes) -> bytes:
    """Return a message as bytes.

    Raises:
        ValueError: it is too long.
    """
    if len(payload) > _LONGEST:
        raise ValueError(f"a message of {len(payload)} bytes; {_LONGEST} are allowed")
    return _HEADER.pack(kind, len(payload)) + payload


def receive(source: socket.socket) -> Frame | None:
    """Return the next message; None when the other side has closed."""
    header = _receive(source, _HEADER.size)
    if header is None:
        return None
    kind, length = _unpack(header)
    payload = _receive(source, length)
    return None if payload is None else (kind, payload)


async def read(source: asyncio.StreamReader) -> Frame | None:
    """Read the next message; None if the other side has closed or sent a malformed one."""
    try:
        kind, length = _unpack(await source.readexactly(_HEADER.size))
        return kind, await source.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError, ValueError):
        return None


def _unpack(header: bytes) -> tuple[int, int]:
    kind, length = _HEADER.unpack(header)
    if length > _LONGEST:
        raise ValueError(f"a message of {length} bytes")
    return kind, length


def _receive(source: socket.socket, length: int) -> bytes | None:
    received = bytearray()
    while len(received) < length:
        try:
            part = source.recv(length - len(received))
        except ConnectionError:
            return None
        if not part:
            return None
        received += part
    return bytes(received)
