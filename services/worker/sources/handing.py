"""Hand open files to a process that may open none: the guardian checks and opens them by the policy."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from optaic.plugins import InvalidConfig, PluginError, SourceNotAllowed, SourceNotFound, SourceUnavailable
from worker.sources import files
from worker.sources.files import OpenFile
from worker.sources.policy import SourcePolicy

_LONGEST = 48 * 1024  # bytes of a message
_ERRORS = {
    each.__name__: each for each in (InvalidConfig, SourceNotAllowed, SourceNotFound, SourceUnavailable)
}


def make_line() -> tuple[socket.socket, socket.socket]:
    """Return the guardian's end and the child's end; a message arrives whole or not at all."""
    ours, childs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(0)
    return ours, childs


def answer(line: socket.socket, policy: SourcePolicy) -> bool:
    """Answer one request for a file; False: the other side is gone, or sends what is no request."""
    try:
        asked = line.recv(2 * _LONGEST)
        if not asked:
            return False
        given = json.loads(asked)
        text, field, shown = (str(given[name]) for name in ("text", "field", "shown"))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return False
    try:
        if "file" not in policy.schemes and "sqlite" not in policy.dialects:
            raise SourceNotAllowed(f"{field}: the worker reads no local file; see OPTAIC_SOURCE_SCHEMES")
        with files.open_file(policy, text, field=field, shown=shown) as file:
            found = json.dumps({"path": file.path, "size": file.size}).encode()
            socket.send_fds(line, [found], [file.descriptor])
    except PluginError as error:
        problem = json.dumps({"type": type(error).__name__, "message": str(error)}).encode()
        with contextlib.suppress(OSError):
            line.send(problem[:_LONGEST])
    except OSError:
        return False
    return True


def ask_through(line: socket.socket) -> None:
    """Have this process ask for local files from now on, instead of opening them."""
    asking = threading.Lock()

    @contextmanager
    def ask(text: str, field: str, shown: str) -> Iterator[OpenFile]:
        request = json.dumps({"text": text, "field": field, "shown": shown}).encode()
        if len(request) > _LONGEST:
            raise InvalidConfig(f"{field}: is too long to be the path of a file; shorten it")
        try:
            with asking:
                line.send(request)
                found, descriptors, _, _ = socket.recv_fds(line, 2 * _LONGEST, 1)
            read = json.loads(found)
        except (OSError, ValueError) as error:
            raise SourceUnavailable(
                f"{shown} cannot be read: the worker does not hand it over ({error})"
            ) from None
        if not descriptors:
            raise _ERRORS.get(read["type"], SourceUnavailable)(read["message"])
        try:
            yield OpenFile(descriptors[0], read["path"], read["size"], is_handed=True)
        finally:
            os.close(descriptors[0])

    files.ask_for_files(ask)
