"""Let the infra login list the tenants, so that the freshness of all of them can be recomputed."""

from alembic import op

revision = "202611290230"
down_revision = "202611282203"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("grant select on lineage_revisions to lineage_infra")
    op.execute("""
        create policy lineage_revisions_infra on lineage_revisions for select to lineage_infra using (true)
    """)


def downgrade() -> None:
    op.execute("drop policy lineage_revisions_infra on lineage_revisions")
    op.execute("revoke select on lineage_revisions from lineage_infra")
