"""Make room for experiments, models and portfolio optimizers; never edited once released."""

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


def upgrade() -> None:
    for table, columns in _EXTENSIONS.items():
        op.execute(f"""
            create table {table} (
                tenant_id text, instance_id uuid, {columns},
                constraint pk_{table} primary key (tenant_id, instance_id),
                constraint fk_{table}_instance_id_instances
                    foreign key (tenant_id, instance_id) references instances on delete cascade
            )""")
        protect(op, table, _SERVICE)
