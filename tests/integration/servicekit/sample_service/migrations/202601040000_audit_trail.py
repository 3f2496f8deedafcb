"""The audit trail, as every service has it."""

from alembic import op

from servicekit.schema import create_audit_trail

revision = "202601040000"
down_revision = "202601030000"


def upgrade() -> None:
    create_audit_trail(op, "sample")


def downgrade() -> None:
    op.execute("drop table audit_seals, audit_records")
