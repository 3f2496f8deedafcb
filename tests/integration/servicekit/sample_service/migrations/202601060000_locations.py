"""The copy of the projects of instances, as the services have it that ask another for them."""

from alembic import op

from servicekit.locations import create_locations

revision = "202601060000"
down_revision = "202601050000"


def upgrade() -> None:
    create_locations(op, "sample")


def downgrade() -> None:
    op.execute("drop table locations")
