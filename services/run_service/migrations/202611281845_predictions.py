"""Store with an inference how long its models predicted, and which training it read."""

from alembic import op

revision = "202611281845"
down_revision = "202611281840"
branch_labels = None
depends_on = None

_COLUMNS = {"prediction_seconds": "double precision", "model_run_id": "text", "train_end": "text"}


def upgrade() -> None:
    for name, kind in _COLUMNS.items():
        op.execute(f"alter table inference_runs add column {name} {kind}")


def downgrade() -> None:
    for name in _COLUMNS:
        op.execute(f"alter table inference_runs drop column {name}")
