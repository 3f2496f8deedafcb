"""Mark flows that are not fresh as changed, to publish their new causes; never edited once released."""

from alembic import op

revision = "202611272010"
down_revision = "202611271925"


def upgrade() -> None:
    # Row-level security binds the owner of the tables too, and the owner has no tenant.
    for table in ("flows", "lineage_revisions"):
        op.execute(f"alter table {table} no force row level security")
    op.execute("update lineage_revisions set revision = revision + 1")
    op.execute("""
        update flows f set revision = r.revision from lineage_revisions r
        where r.tenant_id = f.tenant_id and f.is_defined and not f.is_fresh and f.version > 0
    """)
    for table in ("flows", "lineage_revisions"):
        op.execute(f"alter table {table} force row level security")
