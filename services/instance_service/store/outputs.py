"""The queries on the newest output of each refresh, as its run reported it."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import sqlalchemy as sa

from instance_service.store.tables import outputs
from servicekit.database import Connection

_PUT = sa.text("""
    insert into outputs (tenant_id, instance_id, flow_kind, run_number, compute_fingerprint, profile)
    select :tenant_id, given.instance_id, given.flow_kind, given.run_number, given.fingerprint, given.profile
    from unnest(cast(:instance_ids as uuid[]), cast(:flow_kinds as text[]), cast(:run_numbers as bigint[]),
                cast(:fingerprints as text[]), cast(:profiles as bytea[]))
        as given (instance_id, flow_kind, run_number, fingerprint, profile)
    where exists (select from instances
                  where instances.tenant_id = :tenant_id and instances.instance_id = given.instance_id)
    on conflict (tenant_id, instance_id, flow_kind) do update
        set run_number = excluded.run_number, compute_fingerprint = excluded.compute_fingerprint,
            profile = excluded.profile
        where excluded.run_number > outputs.run_number
""")


class Output(NamedTuple):
    """The output of a completed run; `profile` is a serialized OutputProfile, or None if the run reported none."""

    instance_id: str
    flow_kind: str
    run_number: int
    compute_fingerprint: str
    profile: bytes | None


async def put_outputs(connection: Connection, tenant_id: str, given: Collection[Output]) -> None:
    """Store the outputs of existing instances that are newer than the known ones; give at most one for each flow."""
    parameters = {
        "tenant_id": tenant_id,
        "instance_ids": [output.instance_id for output in given],
        "flow_kinds": [output.flow_kind for output in given],
        "run_numbers": [output.run_number for output in given],
        "fingerprints": [output.compute_fingerprint for output in given],
        "profiles": [output.profile for output in given],
    }
    await connection.execute(_PUT, parameters)


async def get_output(
    connection: Connection, tenant_id: str, instance_id: str, flow_kind: str
) -> Output | None:
    """Return the newest known output of a flow."""
    statement = sa.select(*(outputs.c[name] for name in Output._fields)).where(
        outputs.c.tenant_id == tenant_id,
        outputs.c.instance_id == instance_id,
        outputs.c.flow_kind == flow_kind,
    )
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else Output(*row)


async def list_outputs(
    connection: Connection, tenant_id: str, instance_ids: Collection[str], flow_kind: str
) -> list[Output]:
    """Return the newest known outputs of the instances' flows of one kind."""
    statement = sa.select(*(outputs.c[name] for name in Output._fields)).where(
        outputs.c.tenant_id == tenant_id,
        outputs.c.instance_id.in_(instance_ids),
        outputs.c.flow_kind == flow_kind,
    )
    return [Output(*row) for row in await connection.execute(statement)]
