"""A real browser, driven by Playwright: pages that keep what they were refused, and what they asked others for."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from playwright.async_api import ConsoleMessage, Page, Request, async_playwright

from support.live_page import find_browser

_OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
SECONDS = 60.0  # a page waits for what a test expects for as long as a test does


@dataclass
class Watched:
    """A page, the errors of its console, and the addresses elsewhere that it asked for."""

    page: Page
    errors: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)


@contextlib.asynccontextmanager
async def open_page(url: str, *, scheme: str = "light") -> AsyncIterator[Watched]:
    """Open a page of this server in a browser of its own; skip the test if no browser is installed.

    Args:
        url: The address of the server; addresses of the page may be given without it.
        scheme: `light` or `dark`.
    """
    program = find_browser()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=list(_OPTIONS))
        try:
            context = await browser.new_context(
                base_url=url, color_scheme="dark" if scheme == "dark" else "light"
            )
            context.set_default_timeout(SECONDS * 1000)
            page = await context.new_page()
            watched = Watched(page)

            def hear(message: ConsoleMessage) -> None:
                if message.type == "error":
                    watched.errors.append(message.text)

            def see(request: Request) -> None:
                if not request.url.startswith((url, "data:", "blob:")):
                    watched.elsewhere.append(request.url)

            page.on("console", hear)
            page.on("pageerror", lambda error: watched.errors.append(str(error)))
            page.on("request", see)
            yield watched
        finally:
            await browser.close()
