"""Resolve the host of a source and check its addresses; the address that was checked is the one that is connected."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from enum import Enum, auto
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from optaic.plugins import SourceNotAllowed, SourceUnavailable
from worker.sources.policy import SourcePolicy, matches_host

Resolve = Callable[[str, int], Sequence[str]]
Address = IPv4Address | IPv6Address

_CARRIER = ip_network("100.64.0.0/10")
# Clouds answer here with the credentials of the machine; two of the addresses look public.
_METADATA = frozenset(
    map(ip_address, ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"))
)
_EMBEDDING = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"), IPv6Network("::/96"))


class Reach(Enum):
    """The reach of an address."""

    PUBLIC = auto()
    PRIVATE = auto()  # this machine or this network; allowed by name only
    NEVER = auto()


def judge(address: Address) -> Reach:
    """Return what an address reaches: public machines, private ones, or what nobody may reach; the one that it embeds counts too."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return judge(address.ipv4_mapped)
        found = [judge(embedded) for embedded in _embedded(address)]
        if found:  # through a translator of this network
            return Reach.NEVER if Reach.NEVER in found or address.scope_id else Reach.PRIVATE
    is_strange = address.is_unspecified or address.is_multicast or address.is_link_local
    if is_strange or address in _METADATA or (address.is_reserved and not address.is_loopback):
        return Reach.NEVER
    is_inner = address.is_private or address.is_loopback or address in _CARRIER
    is_inner |= isinstance(address, IPv6Address) and address.is_site_local
    return Reach.PUBLIC if address.is_global and not is_inner else Reach.PRIVATE


def _embedded(address: IPv6Address) -> Iterator[Address]:
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if any(address in network for network in _EMBEDDING) and int(address) > 1:
        yield IPv4Address(int(address) & 0xFFFFFFFF)


def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host, as the machine's resolver gives them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def check_host(
    policy: SourcePolicy, host: str, port: int, *, field: str, shown: str, by: Resolve | None = None
) -> Sequence[str]:
    """Return the addresses of a host after checking all of them; connect to these, never to the name.

    Args:
        policy: of the tenant.
        host: normalized.
        port: that is connected.
        field: of the configuration.
        shown: the host, as an error may call it.
        by: how names are resolved; without one, as the machine does.

    Raises:
        SourceNotAllowed: the policy allows the host or one of its addresses not.
        SourceUnavailable: the name has no address.
    """
    is_private = matches_host(policy.private_hosts, host, port)
    if not is_private and not matches_host(policy.hosts, host, port):
        raise SourceNotAllowed(
            f"{field}: {shown} is not one of the hosts that the worker may read; add it to OPTAIC_SOURCE_HOSTS"
        )
    addresses = _resolve_in_time(by or resolve, host, port, policy.connect_seconds, shown)
    for text in addresses:
        reach = judge(ip_address(text))
        if reach is Reach.NEVER:
            raise SourceNotAllowed(
                f"{field}: {shown} has a link-local, multicast, reserved or metadata address; no setting allows these"
            )
        if reach is Reach.PRIVATE and not is_private:
            raise SourceNotAllowed(
                f"{field}: {shown} has an address of this machine or of a private network; if it is meant to be read, "
                f"add it to OPTAIC_SOURCE_PRIVATE_HOSTS as host or host:port"
            )
    return addresses


def _resolve_in_time(by: Resolve, host: str, port: int, seconds: float, shown: str) -> Sequence[str]:
    found: list[Sequence[str]] = []

    def look_up() -> None:
        try:
            found.append(by(host, port))
        except (OSError, UnicodeError):
            return

    thread = threading.Thread(target=look_up, name="resolve", daemon=True)  # the resolver knows no deadline
    thread.start()
    thread.join(seconds)
    if not found or not found[0]:
        raise SourceUnavailable(f"the name {shown} has no address")
    return found[0]


def dial(addresses: Sequence[str], port: int, seconds: float) -> socket.socket:
    """Connect to the first address that answers.

    Raises:
        OSError: none does.
    """
    fault: OSError | None = None
    for address in addresses:
        try:
            connection = socket.create_connection((address, port), timeout=seconds)
        except OSError as error:
            fault = error
            continue
        if ip_address(connection.getpeername()[0]) == ip_address(address):
            return connection
        connection.close()
    raise fault or OSError("the connection went elsewhere")
