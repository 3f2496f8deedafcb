"""Index the flows that have an active run or whose last run failed, which admission looks for; never edited once released."""

from alembic import op

revision = "202611290310"
down_revision = "202611290210"


def upgrade() -> None:
    # Without `is_fresh`: a propagation changes it in very many rows, and must touch no index.
    op.execute("""
        create index ix_flows_unsettled on flows (tenant_id, flow_id)
        where run_number > ended_run_number or outcome = 'failed'
    """)


def downgrade() -> None:
    raise NotImplementedError("forward only")
