"""Keep an audit record of each call that changes something, and the seals that show a later change of a record."""

from alembic import op

from servicekit.schema import create_audit_trail

revision = "202611280610"
down_revision = "202611280545"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_audit_trail(op, "lineage")


def downgrade() -> None:
    op.execute("drop table audit_seals")
    op.execute("drop table audit_records")
