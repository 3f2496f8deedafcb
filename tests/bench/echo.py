"""A bare gRPC server on uvloop that answers what it is asked: the ceiling that a service is compared with."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc
import uvloop

METHOD = "/bench.Echo/Echo"


async def main() -> None:
    """Serve until stdin is closed; the first line on stdout is the port."""

    async def echo(request: bytes, _: Any) -> bytes:
        return request

    server = grpc.aio.server()
    handlers = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(0)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
