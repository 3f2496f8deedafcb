"""Store what a run still owes outside systems, and how far the model of a training knew."""

from alembic import op

revision = "202611281820"
down_revision = "202611281030"
branch_labels = None
depends_on = None

_OF_TRAININGS = ("train_end", "label_end", "model_version")


def upgrade() -> None:
    op.execute("alter table runs add column telemetry_pending text[] not null default '{}'")
    for name in _OF_TRAININGS:
        op.execute(f"alter table training_runs add column {name} text")


def downgrade() -> None:
    for name in _OF_TRAININGS:
        op.execute(f"alter table training_runs drop column {name}")
    op.execute("alter table runs drop column telemetry_pending")
