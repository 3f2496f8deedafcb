"""`optaic doctor`: what a command finds on this machine and reaches from it."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import typer

import optaic
from optaic.cli.exits import Exit
from optaic.cli.output import Format, OutputOption, is_data, print_data, print_line
from optaic.client import AsyncClient
from optaic.client.certificates import Certificates
from optaic.client.connection import Connection
from optaic.client.discovery import (
    SERVICES,
    find_addresses,
    find_certificates,
    find_data_root,
    find_gateway,
    find_source,
    find_state,
    find_token,
    no_address,
)
from optaic.client.gateway_files import fetch_readiness
from optaic.errors import OptaicError
from redaction import redact

_OK, _WARN, _FAIL = "ok", "warn", "fail"
_SECONDS = 5.0  # for one question
_CLOCK_SECONDS = 5.0  # more than that is worth knowing; the gateway tells its time in whole seconds
_START = "start the stack (`optaic dev up`)"


class Finding(NamedTuple):
    """The result of one check; `advice` says what to do where it is not ok."""

    check: str
    result: str
    text: str
    advice: str = ""


def doctor(output: OutputOption = Format.TABLE) -> None:
    """Check what the command needs: addresses, token, services, gateway, data. The exit status is 7 if something fails."""
    found = [_package(), _stack(), *asyncio.run(_examine())]
    findings = [each._replace(text=redact(each.text), advice=redact(each.advice)) for each in found]
    if is_data(output):
        print_data([each._asdict() for each in findings], output)
    else:
        for each in findings:
            print_line(f"{each.result:<4}", f"{each.check:<16}", *filter(None, (each.text, each.advice)))
    if any(each.result == _FAIL for each in findings):
        raise typer.Exit(Exit.UNAVAILABLE)


async def _examine() -> list[Finding]:
    addresses, token = find_addresses({}), find_token(None)
    gateway = find_gateway(addresses).rstrip("/")
    identity = _identity(addresses, token)
    if identity.result == _FAIL:
        return [identity]
    certificates = Certificates.find(addresses)
    connection = Connection(addresses, token, _SECONDS, certificates=certificates)
    async with AsyncClient(connection) as client:
        services = [_service(connection, each, addresses.get(each, "")) for each in SERVICES]
        of_services, access, of_gateway = await asyncio.gather(
            asyncio.gather(*services), _access(client), asyncio.to_thread(_gateway, gateway, certificates)
        )
    return [identity, *of_services, access, *of_gateway, _data(find_data_root(addresses), gateway)]


def _package() -> Finding:
    text = f"optaic {optaic.__version__}, Python {platform.python_version()} ({sys.executable})"
    return Finding("package", _OK, text)


def _stack() -> Finding:
    state = find_state()
    if state is None:
        return Finding("stack", _OK, "none was started in this folder or a parent folder")
    try:
        import devstack  # noqa: PLC0415 - an extra, and only here of use
    except ImportError:
        return Finding("stack", _OK, f"{state}; whether it runs is not known: devstack is not installed")
    try:
        phase = str(devstack.status(devstack.Settings(state=state))["phase"])
    except ValueError as error:
        return Finding("stack", _WARN, f"{state}: {error}", "correct the environment")
    if phase == "ready":
        return Finding("stack", _OK, f"{state}: ready")
    return Finding("stack", _WARN, f"{state}: {phase}", f"if it is yours, {_START}")


def _identity(addresses: Mapping[str, str], token: str) -> Finding:
    files = {name: file for name, file in find_certificates(addresses).items() if file}
    lost = [file for file in files.values() if not os.access(file, os.R_OK)]
    if lost:
        return Finding("identity", _FAIL, f"cannot be read: {', '.join(lost)}", "correct OPTAIC_TLS_*")
    if token:
        return Finding("identity", _OK, "the token of OPTAIC_TOKEN")
    if "certificate" in files:
        return Finding("identity", _OK, f"the certificate {files['certificate']}")
    return Finding(
        "identity", _OK, "none; the stack on this machine asks for none unless OPTAIC_AUTH says so"
    )


async def _service(connection: Connection, service: str, address: str) -> Finding:
    check = f"{service}-service"
    if not address:
        return Finding(check, _FAIL, str(no_address(service)))
    where = f"{address} ({find_source(service)})"
    try:
        if await connection.is_serving(service):
            return Finding(check, _OK, f"{where} answers")
    except OptaicError as error:
        return Finding(check, _FAIL, where, str(error))
    advice = "see its log for what it waits for: database, broker or an outside system"
    return Finding(check, _FAIL, f"{where} answers, and is not ready", advice)


async def _access(client: AsyncClient) -> Finding:
    """Return whether a call is accepted: health may be shown to everybody."""
    try:
        found = await client.projects.list()
    except OptaicError as error:
        return Finding("access", _FAIL, "instance-service did not list the projects", str(error))
    return Finding("access", _OK, f"projects you may see: {len(found)}")


def _gateway(url: str, certificates: Certificates) -> list[Finding]:
    """Return whether the gateway answers and reaches the services, and how its clock differs. It blocks."""
    if not url:
        advice = "set OPTAIC_GATEWAY_URL for the console, and for files that this machine cannot read"
        return [Finding("gateway", _WARN, "its address is not known", advice)]
    try:
        reached, time = fetch_readiness(url, _SECONDS, certificates)
    except OptaicError as error:
        return [Finding("gateway", _FAIL, url, str(error))]
    lacks = ", ".join(sorted(name for name, is_reached in reached.items() if not is_reached))
    found = (
        Finding("gateway", _FAIL, f"{url} answers, and does not reach: {lacks}", "see its log")
        if lacks
        else Finding("gateway", _OK, f"{url} answers, and reaches all services")
    )
    return [found] if time is None else [found, _clock(time, datetime.now(UTC))]


def _clock(theirs: datetime, ours: datetime) -> Finding:
    seconds = (ours - theirs).total_seconds()
    if abs(seconds) <= _CLOCK_SECONDS:
        return Finding("clock", _OK, "as the gateway's")
    which = "ahead of" if seconds > 0 else "behind"
    advice = "set the clocks: times in lists and --as-of would mislead"
    return Finding("clock", _WARN, f"{abs(seconds):.0f} s {which} the gateway's", advice)


def _data(root: str, gateway: str) -> Finding:
    if root and "://" not in root and os.access(root, os.R_OK | os.X_OK) and Path(root).is_dir():
        return Finding("data", _OK, f"{root} can be read")
    if gateway:
        return Finding("data", _OK, "files of runs are read from the gateway")
    return Finding(
        "data",
        _WARN,
        f"{root} cannot be read from here" if root else "no folder of data and no gateway is known",
        "`optaic data read` works only where the data can be read; set OPTAIC_GATEWAY_URL for files of runs",
    )
