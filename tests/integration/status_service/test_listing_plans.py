"""A page of statuses touches about as many rows as it has, whatever the filter, among 100,000 instances."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from devstack.postgres import Postgres
from servicekit.terms import label_term
from status_service.store.listing import Selection, counts_of, page_of
from status_service.store.past import past_page_of
from support.explain import Explain, rows_read
from support.postgres import service_database

_COUNT, _PAGE = 100_000, 100
# One instance of 1,000 is in ERROR, has a cause, belongs to bob, has the label, begins with rare, is a model with training,
# and has had its status for 10 days instead of a day or less.
_POPULATE = (
    """insert into instances (tenant_id, instance_id, revision, update_time, event_rank, name, project_id, kind, state, flow_kinds,
        status_priority, owner, is_deleted)
    select 'default', lpad(to_hex(n), 32, '0')::uuid, 1, now(), 0, case when n % 1000 = 0 then 'rare_' else 'often_' end || n,
        n % 10, case when n % 1000 = 0 then 'model' else 'dataset' end, 'active',
        cast(case when n % 1000 = 0 then '{training}' else '{refresh}' end as text[]), '{}', case when n % 1000 = 0 then 'bob' else 'ann' end, false
    from generate_series(1, :count) as n""",
    """insert into instance_statuses (tenant_id, instance_id, project_id, kind, status, revision, update_time, body, since_time,
        cause_kinds)
    select 'default', lpad(to_hex(n), 32, '0')::uuid, n % 10, case when n % 1000 = 0 then 'model' else 'dataset' end,
        case when n % 1000 = 0 then 'ERROR' else 'READY' end, n, now(), '',
        now() - case when n % 1000 = 0 then interval '10 days' else make_interval(secs => n * 7919 % 86400) end, cast(case when n % 1000 = 0 then '{overdue}' else '{}' end as text[])
    from generate_series(1, :count) as n""",
    """insert into instance_labels (tenant_id, instance_id, term)
    select 'default', lpad(to_hex(n), 32, '0')::uuid, cast(case when n % 1000 = 0 then :rare else :often end as uuid)
    from generate_series(1, :count) as n""",
    """insert into status_history (tenant_id, instance_id, revision, from_status, to_status, create_time, caused_by_run_id)
    select 'default', lpad(to_hex(n), 32, '0')::uuid, n * 10 + step, case step when 0 then '' else 'STALE' end,
        case step when 1 then 'READY' else 'STALE' end, now() - make_interval(days => 3 - step), ''
    from generate_series(1, :count) as n, generate_series(0, 2) as step""",
)


async def test_a_page_reads_little_more_than_it_shows(postgres_server: Postgres) -> None:
    del postgres_server
    terms = {"rare": label_term("desk", "rates"), "often": label_term("desk", "equity")}
    now = datetime.now(UTC)
    selections = {
        "all": Selection(),
        "status": Selection(statuses=["ERROR"]),
        "frequent status": Selection(statuses=["READY"]),
        "project": Selection(project_id="3"),
        "cause": Selection(cause_kinds=["overdue"]),
        "owner": Selection(owner="bob"),
        "frequent owner": Selection(owner="ann"),
        "label": Selection(label_terms=[terms["rare"]]),
        "frequent label": Selection(label_terms=[terms["often"]]),
        "name": Selection(name="rare_1000"),
        "prefix": Selection(name_prefix="rare_"),
        "label and status": Selection(label_terms=[terms["often"]], statuses=["ERROR"]),
        "kind": Selection(kinds=["model"]),
        "frequent kind": Selection(kinds=["dataset"]),
        "flow kind": Selection(flow_kinds=["training"]),
        "frequent flow kind": Selection(flow_kinds=["refresh"]),
        "old": Selection(unchanged_since=now - timedelta(days=5)),
        "frequent age": Selection(unchanged_since=now - timedelta(hours=1)),
        "new": Selection(changed_since=now - timedelta(seconds=30)),
        "frequent change": Selection(changed_since=now - timedelta(days=2)),
        "old and status": Selection(unchanged_since=now - timedelta(days=5), statuses=["ERROR"]),
        "owner and label": Selection(owner="bob", label_terms=[terms["rare"]]),
    }
    async with service_database("status", "status_service") as urls:
        owner = sa.create_engine(urls["database_owner_url"], poolclass=sa.NullPool)
        app = sa.create_engine(urls["database_url"], poolclass=sa.NullPool)
        with app.begin() as connection:
            _be_tenant(connection)
            for statement in _POPULATE:
                connection.execute(sa.text(statement), {"count": _COUNT, **terms})
        with owner.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("vacuum analyze"))
        read = {}
        with app.connect() as connection:
            _be_tenant(connection)
            for name, wanted in selections.items():
                (plan,) = connection.execute(Explain(page_of("default", wanted, _PAGE))).scalar_one()
                read[name] = rows_read(plan["Plan"])
            as_of = datetime.now(UTC) - timedelta(hours=36)
            (plan,) = connection.execute(
                Explain(past_page_of("default", as_of, Selection(), _PAGE))
            ).scalar_one()
            read["as of a time"] = rows_read(plan["Plan"])
            (plan,) = connection.execute(Explain(counts_of("default", Selection()))).scalar_one()
            counted = rows_read(plan["Plan"])
        for engine in (owner, app):
            engine.dispose()
    assert {name: rows for name, rows in read.items() if rows > 20 * _PAGE} == {}
    assert counted < 4 * _COUNT


def _be_tenant(connection: sa.Connection) -> None:
    connection.execute(sa.text("select set_config('optaic.tenant_id', 'default', false)"))


@pytest.mark.parametrize("text", ["", "x" * 1_000])
def test_a_term_has_the_same_size_for_every_text(text: str) -> None:
    term: Any = label_term(text, text)
    assert len(term) == 36
