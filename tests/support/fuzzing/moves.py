"""Move a tenant's data, as far as services see it: nothing is copied."""

from __future__ import annotations

from support.fuzzing.world import World


async def move_data(world: World, tenant: str, tag: str) -> None:
    """Move the data of a tenant to a place that a tag names."""
    await end_move(world, tenant)
    root = (await world.call("GetDataMove", {}, tenant=tenant)).data_root or "file:///x"
    move = {"fromRoot": root, "toRoot": f"s3://bucket/{tag}"}
    for name in ("BeginDataMove", "SwitchDataMove"):
        await world.call(name, move, tenant=tenant)
    await end_move(world, tenant)


async def end_move(world: World, tenant: str) -> None:
    """End the move that is under way, of which somebody else may have begun one."""
    move = await world.call("GetDataMove", {}, tenant=tenant)
    meant = {
        "fromRoot": move.from_root or "file:///x",
        "toRoot": move.to_root or "file:///y",
        "expectedState": move.state or 1,
    }
    await world.call("EndDataMove", meant, tenant=tenant)
