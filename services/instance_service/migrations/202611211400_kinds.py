"""Add columns and indexes for experiments, models and portfolio optimizers; never edited once released."""

from alembic import op

from servicekit.schema import protect

revision = "202611211400"
down_revision = "202611210900"

_SERVICE = "instance"
_EXTENSIONS = {
    "experiments": "preview jsonb not null",
    "models": """mlflow_experiment_id text not null, mlflow_registered_model_name text not null,
        evidently_project_id text not null""",
    "portfolio_optimizers": "constraints jsonb not null",
}
_FILTERS = (
    """alter table instances
        add column owner text collate "C" not null default '',
        add column definition_ids uuid[] not null default '{}'""",
    # Users list instances that no other instance owns, page by page in the order of names.
    *(
        f"""create index ix_instances_{column} on instances (tenant_id, {column}, name, instance_id)
            where owner_instance_id is null"""
        for column in ("project_id", "owner", "state")
    ),
    "create index ix_instances_top on instances (tenant_id, name, instance_id) where owner_instance_id is null",
    "create index ix_instances_labels on instances using gin (labels jsonb_path_ops)",
    "create index ix_instances_definition_ids on instances using gin (definition_ids)",
)


def upgrade() -> None:
    for statement in _FILTERS:
        op.execute(statement)
    for table, columns in _EXTENSIONS.items():
        op.execute(f"""
            create table {table} (
                tenant_id text, instance_id uuid, {columns},
                constraint pk_{table} primary key (tenant_id, instance_id),
                constraint fk_{table}_instance_id_instances
                    foreign key (tenant_id, instance_id) references instances on delete cascade
            )""")
        protect(op, table, _SERVICE)
