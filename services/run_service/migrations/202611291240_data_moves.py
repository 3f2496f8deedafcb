"""Store where a tenant's data was moved to, and hold new runs while it is being moved; never edited once released."""

from alembic import op

from servicekit import schema
from servicekit.moved_roots import create_moved_roots

revision = "202611291240"
down_revision = "202611290830"
branch_labels = None
depends_on = None

_DATA_MOVES = """
create table data_moves (
    tenant_id text not null,
    from_root text not null,
    to_root text not null,
    is_switched boolean not null default false,
    begin_time timestamptz not null,
    actor text not null,
    -- Prevents two moves of one tenant at once.
    constraint pk_data_moves primary key (tenant_id)
)
"""
# A move takes the same lock alone: when it begins, no run is being inserted by a transaction that has not seen it.
_HOLD = """
create function hold_runs() returns trigger language plpgsql as $$
declare
    tenant text := current_setting('optaic.tenant_id');
begin
    perform pg_advisory_xact_lock_shared(hashtextextended('data move of ' || tenant, 0));
    if exists (select from data_moves where tenant_id = tenant) then
        raise exception 'the data of the tenant is being moved, so no run begins now; try again when the move has ended' using
            errcode = 'OPT01', detail = 'DATA_MOVING';
    end if;
    return null;
end $$
"""


def upgrade() -> None:
    create_moved_roots(op, "run")
    op.execute(_DATA_MOVES)
    schema.protect(op, "data_moves", "run")
    op.execute(_HOLD)
    op.execute(
        "create trigger tr_runs_hold before insert on runs for each statement execute function hold_runs()"
    )


def downgrade() -> None:
    op.execute("drop trigger tr_runs_hold on runs")
    op.execute("drop function hold_runs()")
    op.execute("drop table data_moves")
    op.execute("drop table moved_roots")
