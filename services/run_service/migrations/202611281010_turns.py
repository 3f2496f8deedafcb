"""Have the work queues read in turns of the tenants: their indexes begin with the tenant."""

from alembic import op

revision = "202611281010"
down_revision = "202611280650"
branch_labels = None
depends_on = None

_TIMES = {
    "dispatches": "due_time",
    "endings": "due_time",
    "leases": "expire_time",
    "retries": "due_time",
    "ticks": "due_time",
}


def upgrade() -> None:
    for table, time in _TIMES.items():
        op.execute(f"drop index ix_{table}_{time}")
        op.execute(f"create index ix_{table}_{time} on {table} (tenant_id, {time})")


def downgrade() -> None:
    for table, time in _TIMES.items():
        op.execute(f"drop index ix_{table}_{time}")
        op.execute(f"create index ix_{table}_{time} on {table} ({time})")
