"""Ports on the loopback address: configured ones, else free ones that a stack keeps for its whole life."""

import secrets
import socket
from collections.abc import Mapping

HOST = "127.0.0.1"
# Below every system's ephemeral range, so that no outgoing connection takes the port before the server has it.
_LOWEST, _HIGHEST = 20_000, 32_000
_ATTEMPTS = 1_000


class PortTakenError(RuntimeError):
    """Another program uses a configured port."""


def is_free(port: int) -> bool:
    """Return whether a server could listen on the port now; lingering connections of an old server do not count."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def find_free(taken: frozenset[int] = frozenset()) -> int:
    """Return a free port outside `taken`."""
    for _ in range(_ATTEMPTS):
        port = _LOWEST + secrets.randbelow(_HIGHEST - _LOWEST)
        if port not in taken and is_free(port):
            return port
    raise PortTakenError("no free port found")


def assign(configured: Mapping[str, int], remembered: Mapping[str, int]) -> dict[str, int]:
    """Return a port for every name: the configured one (0 means none), else the remembered one if still free, else a new one."""
    ports: dict[str, int] = {}
    for name, wanted in configured.items():
        if wanted and (wanted in ports.values() or not is_free(wanted)):
            raise PortTakenError(
                f"port {wanted}, configured for {name}, is in use; end the program that uses it, or configure another port"
            )
        if wanted:
            ports[name] = wanted
    for name in configured:
        port = ports.get(name) or remembered.get(name, 0)
        used = frozenset(value for key, value in ports.items() if key != name)
        ports[name] = (
            port if name in ports or (port and port not in used and is_free(port)) else find_free(used)
        )
    return ports
