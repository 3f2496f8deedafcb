"""Store the key that seals page tokens and the other texts that callers give back."""

from alembic import op

from servicekit.signing import create_signing_key

revision = "202611280545"
down_revision = "202611271955"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_signing_key(op, "run")


def downgrade() -> None:
    op.execute("drop table signing_key")
