"""The queries on freshness policies: which flow has which, when each is judged next, and what its judgement says."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from lineage_service.domain.freshness import Frequency, Judgement, Policy
from servicekit.database import Connection

_DROP = sa.text("""
    delete from freshness_policies
    where tenant_id = :tenant_id and flow_id = any(:flow_ids) and flow_id <> all(:judged_ids)
""")
_PUT = sa.text("""
    insert into freshness_policies (tenant_id, flow_id, policy, judged_from, next_due_time)
    select :tenant_id, d.flow_id, d.policy, i.policy_unknown_since, :now
    from unnest(cast(:judged_ids as bigint[]), cast(:policies as jsonb[])) as d(flow_id, policy)
    join flows f on f.tenant_id = :tenant_id and f.flow_id = d.flow_id
    join instances i on i.tenant_id = :tenant_id and i.instance_id = f.instance_id
    on conflict (tenant_id, flow_id) do update
        set policy = excluded.policy, judged_from = null, next_due_time = excluded.next_due_time
        where freshness_policies.policy <> excluded.policy
""")
# Without a policy nothing is expected. With another one, what the last one said holds until it is judged, at once.
_MARK = sa.text("""
    update flows f set blocks_readers = p.flow_id is not null and p.policy @> '{"blocks_readers": true}',
        expected_data_date = case when p.flow_id is null then '' else f.expected_data_date end,
        late_since_time = case when p.flow_id is null then null else f.late_since_time end
    from flows g left join freshness_policies p on p.tenant_id = :tenant_id and p.flow_id = g.flow_id
    where g.tenant_id = :tenant_id and g.flow_id = any(:flow_ids)
      and f.tenant_id = :tenant_id and f.flow_id = g.flow_id
      and (p.flow_id is not null or f.expected_data_date <> '' or f.blocks_readers)
""")
_KNOW = sa.text("""
    update instances set policy_unknown_since = null
    where tenant_id = :tenant_id and instance_id = any(cast(:instance_ids as uuid[])) and policy_unknown_since is not null
""")
_JUDGE_AGAIN = sa.text("""
    update freshness_policies set next_due_time = :now where tenant_id = :tenant_id and flow_id = any(:flow_ids)
""")
_LIST_DUE_FLOWS = sa.text("""
    select tenant_id, flow_id from freshness_policies where next_due_time <= :now order by next_due_time limit :most
""")
_LIST_DUE = sa.text("""
    select p.flow_id, cast(p.policy as text), p.judged_from, f.last_data_date
    from freshness_policies p join flows f on f.tenant_id = :tenant_id and f.flow_id = p.flow_id
    where p.tenant_id = :tenant_id and p.flow_id = any(:flow_ids) and p.next_due_time <= :now
""")
# What was judged has changed meanwhile, or another replica was first: then it is judged again, or already was.
_SET = sa.text("""
    with due as (
        update freshness_policies p set next_due_time = d.next_due_time
        from unnest(cast(:flow_ids as bigint[]), cast(:policies as jsonb[]), cast(:last_data_dates as text[]),
                    cast(:expected_data_dates as text[]), cast(:late_since_times as timestamptz[]),
                    cast(:next_due_times as timestamptz[]))
                as d(flow_id, policy, last_data_date, expected_data_date, late_since_time, next_due_time)
        join flows f on f.tenant_id = :tenant_id and f.flow_id = d.flow_id and f.last_data_date = d.last_data_date
        where p.tenant_id = :tenant_id and p.flow_id = d.flow_id and p.policy = d.policy and p.next_due_time <= :now
        returning p.flow_id, d.expected_data_date, d.late_since_time
    )
    update flows f set expected_data_date = d.expected_data_date, late_since_time = d.late_since_time from due d
    where f.tenant_id = :tenant_id and f.flow_id = d.flow_id
      and (f.expected_data_date, f.late_since_time) is distinct from (d.expected_data_date, d.late_since_time)
    returning f.flow_id
""")


class Due(NamedTuple):
    """A flow whose policy is to be judged now."""

    flow_id: int
    policy_text: str
    judged_from: dt.datetime | None
    last_data_date: str

    @property
    def policy(self) -> Policy:
        """The policy."""
        return _policy(self.policy_text)


def _text(policy: Policy) -> str:
    values = {
        "frequency": policy.frequency,
        "calendar": policy.calendar,
        "grace_seconds": policy.grace.total_seconds(),
        "due_time": policy.due_time,
        "timezone": policy.timezone,
        "due_lag": policy.due_lag,
        "blocks_readers": policy.blocks_readers,
    }
    return json.dumps(values)


def _policy(text: str) -> Policy:
    stored = json.loads(text)
    return Policy(
        Frequency(stored["frequency"]),
        stored["calendar"],
        dt.timedelta(seconds=stored["grace_seconds"]),
        stored["due_time"],
        stored["timezone"],
        stored["due_lag"],
        stored["blocks_readers"],
    )


async def put_policies(
    connection: Connection,
    tenant_id: str,
    instance_ids: Collection[str],
    flow_ids: Collection[int],
    policies: Mapping[int, Policy],
    now: dt.datetime,
) -> None:
    """Store the policies of the flows of instances, and remove those of the flows that have none; a new one is due at once."""
    parameters = {
        "tenant_id": tenant_id,
        "flow_ids": list(flow_ids),
        "judged_ids": list(policies),
        "policies": [_text(policy) for policy in policies.values()],
        "now": now,
    }
    await connection.execute(_DROP, parameters)
    if policies:
        await connection.execute(_PUT, parameters)
    await connection.execute(_MARK, parameters)
    await connection.execute(_KNOW, {"tenant_id": tenant_id, "instance_ids": list(instance_ids)})


async def judge_again(
    connection: Connection, tenant_id: str, flow_ids: Collection[int], when: dt.datetime
) -> None:
    """Have the policies of flows judged at a time, whenever they would be due."""
    parameters = {"tenant_id": tenant_id, "flow_ids": list(flow_ids), "now": when}
    await connection.execute(_JUDGE_AGAIN, parameters)


async def list_due_flows(connection: Connection, now: dt.datetime, most: int) -> list[tuple[str, int]]:
    """Return the (tenant, flow) whose policies are due, longest due first; use the infra login."""
    return [(row[0], row[1]) for row in await connection.execute(_LIST_DUE_FLOWS, {"now": now, "most": most})]


async def list_due(
    connection: Connection, tenant_id: str, flow_ids: Collection[int], now: dt.datetime
) -> list[Due]:
    """Return those of the flows whose policies are due, with what is needed to judge them."""
    parameters = {"tenant_id": tenant_id, "flow_ids": list(flow_ids), "now": now}
    return [Due(*row) for row in await connection.execute(_LIST_DUE, parameters)]


async def set_judgements(
    connection: Connection, tenant_id: str, judged: Sequence[tuple[Due, Judgement]], now: dt.datetime
) -> list[int]:
    """Store judgements, each with a next due time, as far as they still hold; return the flows whose answer changed."""
    parameters = {
        "tenant_id": tenant_id,
        "now": now,
        "flow_ids": [due.flow_id for due, _ in judged],
        "policies": [due.policy_text for due, _ in judged],
        "last_data_dates": [due.last_data_date for due, _ in judged],
        "expected_data_dates": [judgement.expected_data_date for _, judgement in judged],
        "late_since_times": [judgement.late_since_time for _, judgement in judged],
        "next_due_times": [judgement.next_due_time for _, judgement in judged],
    }
    return list((await connection.execute(_SET, parameters)).scalars())
