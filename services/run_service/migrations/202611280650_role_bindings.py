"""Store this service's copy of the bindings of roles."""

from alembic import op

from servicekit.bindings import create_role_bindings

revision = "202611280650"
down_revision = "202611280640"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_role_bindings(op, "run")


def downgrade() -> None:
    op.execute("drop table role_bindings")
