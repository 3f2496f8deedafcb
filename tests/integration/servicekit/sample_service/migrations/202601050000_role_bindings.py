"""The copy of role bindings, as every service has it."""

from alembic import op

from servicekit.bindings import create_role_bindings

revision = "202601050000"
down_revision = "202601040000"


def upgrade() -> None:
    create_role_bindings(op, "sample")


def downgrade() -> None:
    op.execute("drop table role_bindings")
