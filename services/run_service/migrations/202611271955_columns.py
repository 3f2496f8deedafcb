"""Store with a run of a dataset or signal which columns its output gained, lost or changed in type."""

from alembic import op

revision = "202611271955"
down_revision = "202611271950"
branch_labels = None
depends_on = None

_COLUMNS = ("columns_added", "columns_removed", "columns_retyped")


def upgrade() -> None:
    for name in _COLUMNS:
        op.execute(f"alter table pipeline_runs add column {name} jsonb")


def downgrade() -> None:
    for name in _COLUMNS:
        op.execute(f"alter table pipeline_runs drop column {name}")
