"""Store how often sources are probed, and what became of it."""

from alembic import op

from servicekit.schema import protect

revision = "202611282202"
down_revision = "202611281045"

_SERVICE = "instance"


def upgrade() -> None:
    op.execute("alter table datasets add column probe_seconds integer")  # null: never
    op.execute("create index ix_datasets_probed on datasets (tenant_id) where probe_seconds is not null")
    op.execute("""
        create table probes (
            tenant_id text, instance_id uuid,
            due_time timestamptz not null,
            probe_number bigint not null, -- of the newest report that had a token
            failures integer not null, -- since the last report that had a token
            constraint pk_probes primary key (tenant_id, instance_id),
            constraint fk_probes_instance_id_instances
                foreign key (tenant_id, instance_id) references instances on delete cascade
        )""")
    protect(op, "probes", _SERVICE)


def downgrade() -> None:
    op.execute("drop table probes")
    op.execute("alter table datasets drop column probe_seconds")
