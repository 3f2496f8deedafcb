"""Which ports a stack takes."""

import socket

import pytest

from devstack import ports


@pytest.fixture
def taken() -> int:
    return ports.find_free()


def occupy(port: int) -> socket.socket:
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((ports.HOST, port))
    server.listen()
    return server


def test_unconfigured_ports_are_free_and_differ() -> None:
    chosen = ports.assign(dict.fromkeys("abcdefgh", 0), {})
    assert len(set(chosen.values())) == 8
    assert all(ports.is_free(port) for port in chosen.values())


def test_remembered_ports_are_used_again() -> None:
    first = ports.assign({"a": 0, "b": 0}, {})
    assert ports.assign({"a": 0, "b": 0}, first) == first


def test_a_remembered_port_in_use_is_replaced(taken: int) -> None:
    with occupy(taken):
        chosen = ports.assign({"a": 0}, {"a": taken})
    assert chosen["a"] != taken


def test_a_configured_port_wins_over_a_remembered_one(taken: int) -> None:
    assert ports.assign({"a": taken}, {"a": ports.find_free()}) == {"a": taken}


def test_a_configured_port_in_use_is_an_error(taken: int) -> None:
    with occupy(taken), pytest.raises(ports.PortTakenError, match=f"port {taken}, configured for a"):
        ports.assign({"a": taken}, {})


def test_a_port_configured_twice_is_an_error(taken: int) -> None:
    with pytest.raises(ports.PortTakenError, match="configured for b"):
        ports.assign({"a": taken, "b": taken}, {})


def test_a_configured_port_replaces_a_remembered_one(taken: int) -> None:
    chosen = ports.assign({"a": 0, "b": taken}, {"a": taken})
    assert chosen["b"] == taken
    assert chosen["a"] != taken


def test_ports_lie_below_the_ephemeral_range() -> None:
    assert all(20_000 <= ports.find_free() < 32_768 for _ in range(20))
