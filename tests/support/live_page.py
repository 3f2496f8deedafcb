"""The example page of live statuses: its files with their packages, a web server for it, Node, and a browser."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from support.contract import ROOT
from support.polling import eventually

EXAMPLE = ROOT / "examples" / "realtime"
_INSTALL_SECONDS = 300
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_BROWSER_OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server"),
)


def install(folder: Path) -> Path:
    """Copy the example into a folder and install its packages exactly as locked; skip the test without npm and Node."""
    if missing := [each for each in ("npm", "node") if shutil.which(each) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    copy = folder / "realtime"
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("node_modules"))
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(
        command, cwd=copy, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return copy


def find_browser() -> str:
    """Return a browser's program; skip the test if there is none."""
    found = next((path for each in _BROWSERS if (path := shutil.which(each))), None)
    if found is None:
        pytest.skip(f"no browser is installed: none of {', '.join(_BROWSERS)} is on the PATH")
    return found


@dataclass
class Page:
    """A web server with the example; `tokens` makes what its tokens.json has, each time that it is loaded."""

    folder: Path
    tokens: Callable[[], Awaitable[Mapping[str, Any]]]
    loads: int = 0
    url: str = ""

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[Page]:
        """Serve on a free port."""
        app = web.Application()
        app.add_routes([web.get("/tokens.json", self._tokens), web.static("/", self.folder)])
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _tokens(self, request: web.Request) -> web.Response:
        del request
        self.loads += 1
        return web.json_response(await self.tokens())


@contextlib.asynccontextmanager
async def following(page: Page) -> AsyncIterator[asyncio.StreamReader]:
    """Run the example in Node; yield what it prints."""
    process = await asyncio.create_subprocess_exec(
        *("node", "follow.js", f"{page.url}/tokens.json"), cwd=page.folder, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@dataclass
class Browser:
    """One page in a browser, over the protocol of its developer tools."""

    socket: aiohttp.ClientWebSocketResponse
    _number: int = 0

    async def evaluate(self, expression: str) -> Any:
        """Return the value of an expression in the page."""
        self._number += 1
        parameters = {"expression": expression, "returnByValue": True}
        await self.socket.send_json({"id": self._number, "method": "Runtime.evaluate", "params": parameters})
        while (answer := await self.socket.receive_json(timeout=30)).get("id") != self._number:
            pass
        assert "exceptionDetails" not in answer["result"], answer
        return answer["result"]["result"].get("value")


@contextlib.asynccontextmanager
async def browser(program: str, folder: Path, url: str) -> AsyncIterator[Browser]:
    """Open a page in a browser of its own, whose profile is in the folder; it and all its processes end with the block."""
    profile = folder / "profile"
    with (folder / "browser.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(program, *_BROWSER_OPTIONS, "--remote-debugging-port=0", f"--user-data-dir={profile}", url),
            stdout=log,
            stderr=log,
            env={**os.environ, "HOME": str(folder)},
        )
    try:
        port_file = profile / "DevToolsActivePort"
        await eventually(lambda: port_file.exists() and len(port_file.read_text().splitlines()) == 2, 120)
        base = f"http://127.0.0.1:{port_file.read_text().splitlines()[0]}"
        async with aiohttp.ClientSession() as session:

            async def target() -> str:
                async with session.get(f"{base}/json") as answer:
                    pages = json.loads(await answer.text())
                return next(
                    (each["webSocketDebuggerUrl"] for each in pages if each["url"].startswith(url)), ""
                )

            async with session.ws_connect(await eventually(target)) as socket:
                opened = Browser(socket)
                yield opened
                await socket.send_json({"id": 0, "method": "Browser.close"})
                await asyncio.wait_for(process.wait(), 30)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
