"""Store the profile of the output with a run of a dataset or signal."""

from alembic import op

revision = "202611211600"
down_revision = "202611211500"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("alter table pipeline_runs add column output_profile jsonb")


def downgrade() -> None:
    op.execute("alter table pipeline_runs drop column output_profile")
