"""The signing key, as every service has it."""

from alembic import op

from servicekit.signing import create_signing_key

revision = "202601030000"
down_revision = "202601020000"


def upgrade() -> None:
    create_signing_key(op, "sample")


def downgrade() -> None:
    op.execute("drop table signing_key")
