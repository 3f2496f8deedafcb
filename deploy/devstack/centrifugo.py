"""The embedded Centrifugo, which carries live messages to browsers; its configuration is that of your own server, too."""

import functools
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from devstack import checks, ports
from devstack.processes import Program, StartError
from devstack.state import State, write_private
from optaic.rules.realtime import AUDIENCE, ISSUER, NAMESPACES

BINARY = "OPTAIC_CENTRIFUGO_BINARY"
_PROGRAM = "centrifugo"
_HEALTH = "/health"
# A subscriber that was away for less than this gets what it missed, unless a channel had more messages than are kept.
_HISTORY_TIME = "600s"
_HISTORY_SIZE = 100
# Between the end of a token and the end of what it permitted: the time to bring a new token.
_EXPIRED_DELAY = "5s"


def find_binary(named: str = "") -> Path | None:
    """Return the server's program: the one that is named, or the one on the PATH; None if there is none."""
    if named:
        path = Path(named).expanduser()
        return path.absolute() if path.is_file() and os.access(path, os.X_OK) else None
    found = shutil.which(_PROGRAM)
    return Path(found).absolute() if found else None


def require_binary(named: str = "") -> Path:
    """Return the server's program.

    Raises:
        StartError: There is none.
    """
    found = find_binary(named)
    if found is None:
        where = f"{BINARY}={named} is no program" if named else "no program `centrifugo` is on the PATH"
        raise StartError(
            f"{where}: install Centrifugo, version 6, and set {BINARY} to its file, or unset OPTAIC_CENTRIFUGO"
        )
    return found


def render_config(
    port: int, api_key: str, token_key: str, origins: Sequence[str], host: str = ports.HOST
) -> str:
    """Return the server's configuration file. A client may subscribe with a token for the channel only, and may publish nothing."""
    kept = {"history_size": _HISTORY_SIZE, "history_ttl": _HISTORY_TIME, "force_recovery": True}
    own: dict[str, Any] = {
        "http_server": {"address": host, "port": port},
        "http_api": {"key": api_key},
        "client": {
            "allowed_origins": list(origins),
            "token": {"hmac_secret_key": token_key, "audience": AUDIENCE, "issuer": ISSUER},
            "expired_close_delay": _EXPIRED_DELAY,
            "expired_sub_close_delay": _EXPIRED_DELAY,
        },
        "channel": {"namespaces": [{"name": name, **kept} for name in NAMESPACES]},
        "health": {"enabled": True},
        "usage_stats": {"disabled": True},
    }
    return json.dumps(own, indent=2) + "\n"


def make_program(
    state: State, binary: Path, port: int, secrets: Mapping[str, str], origins: Sequence[str]
) -> Program:
    """Write the configuration, and describe how to run the server."""
    config = state.root / "centrifugo.json"
    write_private(
        config, render_config(port, secrets["centrifugo_api"], secrets["centrifugo_token"], origins)
    )
    return Program(
        name=_PROGRAM,
        argv=(str(binary), "--config", str(config)),
        ready=functools.partial(checks.http_answers, f"{ports.HOST}:{port}", _HEALTH),
        find_problem=functools.partial(checks.find_http_problem, f"{ports.HOST}:{port}", _HEALTH),
    )
