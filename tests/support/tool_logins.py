"""How tests talk to the Prefect and the MLflow of a stack, and how they start such servers without a login."""

from __future__ import annotations

import sys

import httpx

from devstack.logins import split_login
from devstack.processes import Program
from support.stack import RunningStack
from support.tls_context import shared_context


def prefect_client(stack: RunningStack) -> httpx.AsyncClient:
    """Return a client of the API of the stack's Prefect."""
    endpoints = stack.endpoints
    return httpx.AsyncClient(
        base_url=endpoints.prefect_api, auth=split_login(endpoints.prefect_login), verify=shared_context()
    )


def serve_openly(program: Program) -> tuple[str, ...]:
    """Return the command of a tool's server without its login, for tests of adapters, which send none."""
    application, *options = program.argv[program.argv.index("-P") + 2 :]
    return (
        *(sys.executable, "-m", "uvicorn", application, *options[: options.index("--open-path")]),
        *("--log-level", "warning", "--timeout-keep-alive", "5", "--timeout-graceful-shutdown", "3"),
    )
