"""Store the traceback of a failed run, and up to when its log goes."""

from alembic import op

from servicekit import schema

revision = "202611281851"
down_revision = "202611281850"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        alter table runs add column last_log_time timestamptz;
        create table run_tracebacks (
            tenant_id text not null,
            run_id uuid not null,
            traceback text not null,
            constraint pk_run_tracebacks primary key (tenant_id, run_id),
            constraint fk_run_tracebacks_tenant_id_run_id foreign key(tenant_id, run_id) references runs (tenant_id, run_id)
        );
    """)
    schema.protect(op, "run_tracebacks", "run")
    op.execute("revoke update on run_tracebacks from run_app")


def downgrade() -> None:
    op.execute("drop table run_tracebacks")
    op.execute("alter table runs drop column last_log_time")
