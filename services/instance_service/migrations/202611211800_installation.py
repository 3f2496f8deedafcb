"""Store an id of the installation, because several may share outside systems; never edited once released."""

from alembic import op

revision = "202611211800"
down_revision = "202611211730"

_SERVICE = "instance"


def upgrade() -> None:
    # The first start inserts its one row, not this migration: copies of an empty database are different installations.
    op.execute("""
        create table installation (
            is_only boolean default true,
            installation_id uuid not null,
            constraint pk_installation primary key (is_only),
            -- Prevents a second row.
            constraint ck_installation_is_only check (is_only)
        )""")
    op.execute(f"grant select, insert on installation to {_SERVICE}_infra")
    op.execute("alter table installation enable row level security")
    op.execute("alter table installation force row level security")
    op.execute(
        f"create policy installation_infra on installation to {_SERVICE}_infra using (true) with check (true)"
    )
