"""Have the database refuse a transition that a run cannot make, and any change of a run that has ended."""

from alembic import op

revision = "202611281850"
down_revision = "202611281845"
branch_labels = None
depends_on = None

# Result table -> what is still filled in after the run has ended: what an outside system answers to late telemetry.
_RESULTS = {
    "pipeline_runs": (),
    "experiment_runs": (),
    "backtest_runs": (),
    "portfolio_optimization_runs": (),
    "training_runs": ("mlflow_run_id", "model_version"),
    "inference_runs": (),
    "monitoring_runs": (),
}
_CHECK_RUN = """
create function check_run_change() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        if new.status = 'pending' or (new.status = 'cancelled' and new.run_number = 0) then
            return new;
        end if;
        raise exception 'a run does not begin as %', new.status using
            errcode = 'check_violation', constraint = 'ck_runs_transition', table = 'runs',
            detail = format('run %s: a new run is pending; one that admission refused is cancelled and has the number 0', new.run_id);
    end if;
    if old.status in ('completed', 'failed', 'cancelled') then
        if to_jsonb(new) - array['telemetry_pending', 'revision'] = to_jsonb(old) - array['telemetry_pending', 'revision']
            and (new.revision = old.revision or new.telemetry_pending <> old.telemetry_pending) then
            return new;
        end if;
        raise exception 'a run that has ended does not change' using
            errcode = 'check_violation', constraint = 'ck_runs_transition', table = 'runs',
            detail = format('run %s is %s; only telemetry_pending may change, and revision with it', old.run_id, old.status);
    end if;
    if new.status = old.status
        or (old.status = 'pending' and new.status in ('running', 'failed', 'cancelled'))
        or (old.status = 'running' and new.status in ('completed', 'failed', 'cancelled')) then
        return new;
    end if;
    raise exception 'a run does not go from % to %', old.status, new.status using
        errcode = 'check_violation', constraint = 'ck_runs_transition', table = 'runs',
        detail = format('run %s', old.run_id);
end $$
"""
_CHECK_RESULT = """
create function check_result_change() returns trigger language plpgsql as $$
declare
    late text[] := coalesce(tg_argv, '{}');
begin
    if to_jsonb(new) - late = to_jsonb(old) - late or exists (
        select from runs r where r.tenant_id = old.tenant_id and r.run_id = old.run_id and r.status in ('pending', 'running')
    ) then
        return new;
    end if;
    raise exception 'the result of a run that has ended does not change' using
        errcode = 'check_violation', constraint = 'ck_' || tg_table_name || '_transition', table = tg_table_name,
        detail = format('run %s', old.run_id);
end $$
"""


def upgrade() -> None:
    op.execute(_CHECK_RUN)
    op.execute(_CHECK_RESULT)
    op.execute("""
        create trigger tr_runs_transition before insert or update on runs
        for each row execute function check_run_change()
    """)
    for table, late in _RESULTS.items():
        arguments = ", ".join(f"'{name}'" for name in late)
        op.execute(
            f"create trigger tr_{table}_transition before update on {table} "
            f"for each row execute function check_result_change({arguments})"
        )


def downgrade() -> None:
    for table in ("runs", *_RESULTS):
        op.execute(f"drop trigger tr_{table}_transition on {table}")
    op.execute("drop function check_run_change()")
    op.execute("drop function check_result_change()")
