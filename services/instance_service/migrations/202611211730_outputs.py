"""Create the table of the newest output of each refresh; never edited once released."""

from alembic import op

from servicekit.schema import protect

revision = "202611211730"
down_revision = "202611211700"

_SERVICE = "instance"


def upgrade() -> None:
    op.execute("""
        create table outputs (
            tenant_id text, instance_id uuid, flow_kind text,
            -- Prevents an older run from overruling a newer one.
            run_number bigint not null,
            compute_fingerprint text not null,
            profile bytea, -- null if the run reported none
            constraint pk_outputs primary key (tenant_id, instance_id, flow_kind),
            -- To the instance: a revision replaces the rows of its flows.
            constraint fk_outputs_instance_id_instances
                foreign key (tenant_id, instance_id) references instances on delete cascade
        )""")
    protect(op, "outputs", _SERVICE)
