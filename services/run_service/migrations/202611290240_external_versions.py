"""Store what another system calls the version that it reported, and accept a run that begins with its end."""

from alembic import op

revision = "202611290240"
down_revision = "202611282250"
branch_labels = None
depends_on = None

_CHECK_RUN = """
create or replace function check_run_change() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        if new.status = 'pending' or (new.status = 'cancelled' and new.run_number = 0){external} then
            return new;
        end if;
        raise exception 'a run does not begin as %', new.status using
            errcode = 'check_violation', constraint = 'ck_runs_transition', table = 'runs',
            detail = format('run %s: {detail}', new.run_id);
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
_BEFORE = "a new run is pending; one that admission refused is cancelled and has the number 0"
_EXTERNAL = """
            or (new.status = 'completed' and new.run_number > 0 and new.trigger = 'external' and new.external_version <> '')"""


def upgrade() -> None:
    op.execute("alter table runs add column external_version text not null default ''")
    op.execute(
        _CHECK_RUN.format(
            external=_EXTERNAL,
            detail=f"{_BEFORE}; one that another system reported is completed and has its version",
        )
    )


def downgrade() -> None:
    op.execute(_CHECK_RUN.format(external="", detail=_BEFORE))
    op.execute("alter table runs drop column external_version")
