"""Where the data of tenants was moved to, as the services have it that keep URIs."""

from alembic import op

from servicekit.moved_roots import create_moved_roots

revision = "202601070000"
down_revision = "202601060000"


def upgrade() -> None:
    create_moved_roots(op, "sample")


def downgrade() -> None:
    op.execute("drop table moved_roots")
