"""The console in a real browser over 10,000 instances, whose statuses SQL has filled: its first view, and a change of a status.

Beside the first view, in the same run: an empty page of the same gateway.
"""

from __future__ import annotations

import asyncio
import time

from playwright.async_api import Browser, Page, async_playwright, expect

from bench.report import Row
from bench.stack import BenchStack, at_rest, create_datasets, percentile, running_services
from bench.status_latency import Session
from bench.status_reads import fill_statuses
from devstack.config import SERVICES
from support.gateway import RunningGateway, gateway_of
from support.live_page import find_browser

_VIEWS = 20
_CHANGES = 40
_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
# Resolves when the text is in the table, with the moment at which the browser had it.
_SEEN = """
text => new Promise(resolve => {
    const look = () => {
        const row = [...document.querySelectorAll("tbody tr")].find(each => each.textContent.startsWith(text.name));
        if (row?.textContent.includes(text.status)) {
            watcher.disconnect();
            requestAnimationFrame(() => resolve((performance.timeOrigin + performance.now()) / 1000));
        }
    };
    const watcher = new MutationObserver(look);
    watcher.observe(document.body, {childList: true, subtree: true, characterData: true});
    look();
})
"""


async def measure() -> list[Row]:
    """First views and changes."""
    async with running_services() as stack:
        await fill_statuses(stack)
        instance_ids = await create_datasets(stack, _CHANGES)
        await at_rest(stack)
        addresses = {each: getattr(stack.endpoints, each) for each in SERVICES}
        async with gateway_of(addresses) as gateway, async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=find_browser(), args=_OPTIONS)
            try:
                views = [
                    await _view(browser, f"{gateway.url}/console/", "all instances") for _ in range(_VIEWS)
                ]
                lists = [
                    await _view(browser, f"{gateway.url}/console/instances", "prices_") for _ in range(_VIEWS)
                ]
                empty = [await _view(browser, f"{gateway.url}/healthz", "ok") for _ in range(_VIEWS)]
                changes = await _change(browser, gateway, stack, instance_ids)
            finally:
                await browser.close()
    bare = percentile(empty, 0.95)
    return [
        _beside("first view of the overview, p95 (peer: an empty page; target: at most 1,500)", views, bare),
        _beside("first view of the instances, p95 (peer: an empty page; target: at most 1,500)", lists, bare),
        Row("CompleteRun answered -> status changed on the page, p50", percentile(changes, 0.5), "ms"),
        Row("the same, p95 (target: at most 300)", percentile(changes, 0.95), "ms"),
    ]


def _beside(name: str, seconds: list[float], bare: float) -> Row:
    value = percentile(seconds, 0.95)
    return Row(name, value, "ms", bare, value / bare)


async def _view(browser: Browser, url: str, text: str) -> float:
    """Open a page in a browser that has nothing of it yet; return how long the text took."""
    context = await browser.new_context()
    try:
        page = await context.new_page()
        begun = time.perf_counter()
        await page.goto(url)
        await expect(page.get_by_text(text).first).to_be_visible(timeout=60_000)
        return time.perf_counter() - begun
    finally:
        await context.close()


async def _change(
    browser: Browser, gateway: RunningGateway, stack: BenchStack, instance_ids: list[str]
) -> list[float]:
    """Complete runs one after the other while a page shows their instances; return how long after each the page showed it."""
    page: Page = await browser.new_page()
    await page.goto(f"{gateway.url}/console/instances?name=dataset_")
    await expect(page.get_by_role("rowheader")).to_have_count(len(instance_ids), timeout=60_000)
    taken = []
    async with Session(stack) as session:
        for number, instance_id in enumerate(instance_ids):
            wanted = {"name": f"dataset_{number}dataset", "status": "ready"}
            seen = asyncio.create_task(page.evaluate(_SEEN, wanted))
            completion = await session.complete_one(instance_id)
            async with asyncio.timeout(20):
                taken.append(await seen - completion.answered)
    return taken
