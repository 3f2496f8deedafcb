"""Store the hash of the secret with which an executor started a run, and the instance of a flow run that must end."""

from alembic import op

revision = "202611280640"
down_revision = "202611280610"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("alter table runs add column start_secret_hash text not null default ''")
    op.execute("alter table endings add column instance_id uuid")


def downgrade() -> None:
    op.execute("alter table endings drop column instance_id")
    op.execute("alter table runs drop column start_secret_hash")
