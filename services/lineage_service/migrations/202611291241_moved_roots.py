"""Store where a tenant's data was moved to; never edited once released."""

from alembic import op

from servicekit.moved_roots import create_moved_roots

revision = "202611291241"
down_revision = "202611290310"


def upgrade() -> None:
    create_moved_roots(op, "lineage")


def downgrade() -> None:
    raise NotImplementedError("forward only")
