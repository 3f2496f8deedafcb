"""Have the reconciler's queue read in turns of the tenants: its index begins with the tenant."""

from alembic import op

revision = "202611281010"
down_revision = "202611280650"


def upgrade() -> None:
    op.execute("drop index ix_reconciliations_due_time")
    op.execute(
        "create index ix_reconciliations_due_time on reconciliations (tenant_id, due_time) where due_time is not null"
    )


def downgrade() -> None:
    op.execute("drop index ix_reconciliations_due_time")
    op.execute(
        "create index ix_reconciliations_due_time on reconciliations (due_time) where due_time is not null"
    )
