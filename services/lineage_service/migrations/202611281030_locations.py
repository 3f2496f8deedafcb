"""Store this service's copy of which project each instance belongs to."""

from alembic import op

from servicekit.locations import create_locations

revision = "202611281030"
down_revision = "202611280650"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_locations(op, "lineage")


def downgrade() -> None:
    op.execute("drop table locations")
