"""The console in a real browser, before the four services: what it shows, and what is done by clicking."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect

from devstack.postgres import Postgres
from optaic.instance.v1.instance_pb2 import Instance
from support.broker import NatsAccounts
from support.browser import SECONDS, Watched, open_page
from support.contract import ROOT
from support.control_plane import ControlPlane, control_plane
from support.gateway import RunningGateway, gateway_before
from support.polling import eventually
from support.proxy import Proxy

pytestmark = pytest.mark.asyncio(loop_scope="module")
expect.set_options(timeout=SECONDS * 1000)
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>{{7*7}}\"'`javascript:alert(3)"


@dataclass
class World:
    """The services, the gateway before them, and instances: prices, a signal over them, and one that failed."""

    plane: ControlPlane
    gateway: RunningGateway
    prices: Instance
    signal: Instance
    failed: Instance
    failed_run_id: str


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(postgres_server: Postgres, nats_accounts: NatsAccounts) -> AsyncIterator[World]:
    del postgres_server
    async with control_plane(nats_accounts.take()) as plane, gateway_before(plane) as gateway:
        project = await plane.instance.project("desk")
        prices = await plane.instance.prices(project.project_id, "prices", description=HOSTILE, owner=HOSTILE)
        signal = await plane.instance.signal(project.project_id, "momentum", prices.instance_id)
        failed = await plane.instance.prices(project.project_id, "broken")
        await complete(plane, prices, "d1")
        await complete(plane, signal, "s1")
        run = await plane.run.submit(failed)
        started = await plane.run.start(run.run_id)
        await plane.run.fail(run.run_id, started.fencing_token, "SourceNotFound")
        await plane.rest()
        await eventually(lambda: is_connected(gateway))
        yield World(plane, gateway, prices, signal, failed, run.run_id)


async def is_connected(gateway: RunningGateway) -> bool:
    return (await gateway.client.get("/readyz")).status_code == 200


async def complete(plane: ControlPlane, instance: Instance, digest: str) -> str:
    """Run a refresh whose output has this digest."""
    run = await plane.run.submit(instance)
    started = await plane.run.start(run.run_id)
    await plane.run.complete(run.run_id, started.fencing_token, digest=digest)
    await plane.rest()
    return run.run_id


@pytest_asyncio.fixture(loop_scope="module")
async def watched(world: World) -> AsyncIterator[Watched]:
    async with open_page(world.gateway.url) as page:
        yield page
        assert page.errors == []
        assert page.elsewhere == []


async def test_every_number_of_the_overview_leads_to_its_list(watched: Watched) -> None:
    page = watched.page
    await page.goto("/")
    await expect(page).to_have_title("Overview - OptAIC")
    await expect(page).to_have_url("/console/")
    await expect(
        page.get_by_text("instance-service", exact=False).or_(page.get_by_text("instance:"))
    ).to_be_visible()
    await page.get_by_role("link", name="1 error").click()
    await expect(page).to_have_url("/console/instances?status=error")
    await expect(page.get_by_role("row")).to_have_count(2)
    await expect(page.get_by_role("rowheader")).to_have_text(["broken"])
    await expect(page.get_by_text("SourceNotFound: no")).to_be_visible()


async def test_the_address_bar_holds_the_filters(watched: Watched) -> None:
    page = watched.page
    await page.goto("/console/instances?kind=signal")
    await expect(page.get_by_role("rowheader")).to_have_text(["momentum"])
    await page.get_by_label("Kind").select_option("any")
    await expect(page.get_by_role("rowheader")).to_have_count(3)
    await expect(page).to_have_url("/console/instances")
    await page.get_by_label("Name begins with").fill("pri")
    await expect(page.get_by_role("rowheader")).to_have_text(["prices"])
    await expect(page).to_have_url("/console/instances?name=pri")
    await page.goto("/console/instances?status=nonsense")
    await expect(page.get_by_role("alert")).to_contain_text("nonsense")


async def test_a_change_is_seen_without_a_click_and_moves_no_row(world: World, watched: Watched) -> None:
    page = watched.page
    await page.goto("/console/instances")
    momentum = page.get_by_role("row", name="momentum")
    await expect(momentum.get_by_text("ready")).to_be_visible()
    names = await page.get_by_role("rowheader").all_text_contents()
    await complete(world.plane, world.prices, "d2")
    await expect(momentum.get_by_text("stale", exact=True)).to_be_visible()
    assert await page.get_by_role("rowheader").all_text_contents() == names
    await complete(world.plane, world.signal, "s2")
    await expect(momentum.get_by_text("ready")).to_be_visible()


async def test_a_stale_instance_says_why_and_is_refreshed_by_clicking(world: World, watched: Watched) -> None:
    page = watched.page
    await complete(world.plane, world.prices, "d3")
    await page.goto(f"/console/instances/{world.signal.instance_id}")
    await expect(page.locator(".why")).to_contain_text("prices → momentum")
    await page.get_by_role("button", name="Refresh with what is above").click()
    await expect(page.get_by_role("dialog")).to_contain_text("1 of 1 flows would run")
    await page.get_by_role("dialog").get_by_role("button", name="Refresh").click()
    await expect(page).to_have_title("Refresh - OptAIC")
    await expect(page.get_by_role("row", name="momentum")).to_contain_text("running")
    run_id = (await page.get_by_role("link", name="#").first.get_attribute("href") or "").rpartition("/")[2]
    started = await world.plane.run.start(run_id)
    await world.plane.run.complete(run_id, started.fencing_token, digest="s3")
    await expect(page.get_by_role("row", name="momentum")).to_contain_text("completed")
    await expect(page.get_by_role("main").get_by_role("status")).to_contain_text("completed")


async def test_an_instance_is_paused_and_resumed(world: World, watched: Watched) -> None:
    page = watched.page
    await page.goto(f"/console/instances/{world.failed.instance_id}")
    await page.get_by_role("button", name="Pause").click()
    await page.get_by_role("button", name="Resume").click()
    await expect(page.get_by_role("button", name="Pause")).to_be_visible()


async def test_a_failed_run_shows_its_error_and_can_be_retried_and_cancelled(
    world: World, watched: Watched
) -> None:
    page = watched.page
    await page.goto(f"/console/runs/{world.failed_run_id}")
    await expect(page.get_by_text("SourceNotFound: no")).to_be_visible()
    await page.get_by_role("button", name="Retry").click()
    await page.wait_for_url(lambda url: world.failed_run_id not in url)
    await page.get_by_role("button", name="Cancel").click()
    await expect(page.get_by_role("main").get_by_role("status").first).to_contain_text("cancelled")


async def test_the_lineage_is_drawn_and_has_a_table(world: World, watched: Watched) -> None:
    page = watched.page
    await page.goto(f"/console/lineage?flow={world.signal.instance_id}")
    await expect(page.locator(".flow")).to_have_count(2)
    await page.get_by_role("button", name="Show as a table").click()
    await expect(page.get_by_role("rowheader")).to_have_count(2)
    await page.get_by_role("rowheader").get_by_role("link", name="prices").click()
    await expect(page).to_have_title("prices - OptAIC")


async def test_runs_are_listed_with_the_names_of_their_instances(watched: Watched) -> None:
    page = watched.page
    await page.goto("/console/runs?status=failed")
    await expect(page.get_by_role("row").nth(1)).to_contain_text("broken")
    await expect(page.get_by_role("row").nth(1)).to_contain_text("SourceNotFound")


async def test_texts_of_users_are_shown_as_texts(world: World, watched: Watched) -> None:
    page = watched.page
    page.on("dialog", lambda _: watched.errors.append("a script of a text was run"))
    await page.goto(f"/console/instances/{world.prices.instance_id}")
    await expect(page.get_by_text(HOSTILE).first).to_be_visible()
    await page.goto("/console/instances")
    await expect(page.get_by_role("rowheader")).to_have_count(3)


@pytest.mark.parametrize("path", ["/console/nothing", "/console/instances/no-id", "/console/runs/no-id"])
async def test_an_address_of_nothing_says_so(world: World, path: str) -> None:
    async with open_page(world.gateway.url) as watched:
        await watched.page.goto(path)
        found = watched.page.get_by_text("There is no such page").or_(watched.page.get_by_role("alert"))
        await expect(found.first).to_be_visible()


async def test_a_lost_connection_is_said_and_made_again_without_a_gap(world: World) -> None:
    async with Proxy(world.gateway.url) as proxy, open_page(proxy.url) as watched:
        page = watched.page
        await page.goto("/console/instances?kind=signal")
        momentum = page.get_by_role("row", name="momentum")
        await expect(momentum.get_by_text("ready")).to_be_visible()
        await expect(page.get_by_text("No connection")).to_have_count(0)
        proxy.cut()
        await expect(page.get_by_text("No connection")).to_be_visible()
        await complete(world.plane, world.prices, "away")
        proxy.heal()
        await expect(momentum.get_by_text("stale", exact=True)).to_be_visible()
        await expect(page.get_by_text("No connection")).to_have_count(0)
        await complete(world.plane, world.signal, "back")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_everybody_can_use_each_screen_and_a_picture_of_it_is_kept(world: World, scheme: str) -> None:
    folder = ROOT / "build" / "console"
    screens = {
        "overview": "/console/",
        "instances": "/console/instances",
        "instance": f"/console/instances/{world.signal.instance_id}",
        "lineage": f"/console/lineage?flow={world.signal.instance_id}",
        "runs": "/console/runs",
        "run": f"/console/runs/{world.failed_run_id}",
    }
    async with open_page(world.gateway.url, scheme=scheme) as watched:
        for name, path in screens.items():
            await watched.page.goto(path)
            await expect(watched.page.get_by_role("heading", level=1)).to_be_visible()
            await expect(watched.page.get_by_text("Loading")).to_have_count(0)
            if name == "lineage":
                await expect(watched.page.locator(".flow")).to_have_count(2)
            found = await Axe().run(watched.page)
            grave = [
                (each["id"], [node["html"] for node in each["nodes"]])
                for each in found.response["violations"]
                if each["impact"] in {"serious", "critical"}
            ]
            assert grave == [], name
            await watched.page.screenshot(path=folder / f"{name}-{scheme}.png", full_page=True)
