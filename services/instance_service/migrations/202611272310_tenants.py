"""Create the table of tenants that had instances, so that comparison covers a tenant whose last instance is gone."""

from alembic import op

from servicekit import schema

revision = "202611272310"
down_revision = "202611272230"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The next change of an earlier tenant inserts it here; until then its instances show that it exists.
    op.execute("""
        create table tenants (
            tenant_id text not null,
            constraint pk_tenants primary key (tenant_id)
        )
    """)
    schema.protect_queue(op, "tenants", "instance")


def downgrade() -> None:
    op.execute("drop table tenants")
