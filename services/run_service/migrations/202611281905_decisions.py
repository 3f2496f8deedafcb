"""Store with an optimization how many decisions its output holds."""

from alembic import op

revision = "202611281905"
down_revision = "202611281851"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("alter table portfolio_optimization_runs add column decision_count bigint")


def downgrade() -> None:
    op.execute("alter table portfolio_optimization_runs drop column decision_count")
