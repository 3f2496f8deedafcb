"""Create the table of promotions: which model version became champion, and by whom; never edited once released."""

from alembic import op

from servicekit.schema import protect

revision = "202611211500"
down_revision = "202611211430"

_SERVICE = "instance"


def upgrade() -> None:
    op.execute("""
        create table model_promotions (
            tenant_id text, instance_id uuid, revision bigint, snapshot bytea not null,
            constraint pk_model_promotions primary key (tenant_id, instance_id, revision),
            constraint fk_model_promotions_instance_id_instance_revisions
                foreign key (tenant_id, instance_id, revision) references instance_revisions on delete cascade
        )""")
    protect(op, "model_promotions", _SERVICE)
