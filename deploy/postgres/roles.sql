-- The three logins of one service, and their rights on the database that this runs in.
-- Run it by an administrator, connected to the service's own database; it may be repeated at will.
-- Parameters are settings of the session:
--   optaic.service            short name, e.g. instance
--   optaic.owner_password     login <service>_owner: migrations; owns the tables
--   optaic.app_password       login <service>_app: requests; row-level security, set per transaction
--   optaic.infra_password     login <service>_infra: outbox, inbox, work queues and what loops look at, across tenants
-- The grants on tables and their policies come with the tables, in the service's migrations.
do $$
declare
    service text := current_setting('optaic.service');
    part text;
begin
    -- Two of these at once (roles belong to the whole server) would disturb each other.
    perform pg_advisory_xact_lock(hashtextextended('optaic.roles', 0));
    if service !~ '^[a-z][a-z0-9_]*$' then
        raise exception 'optaic.service must be a plain name, not %', service;
    end if;
    foreach part in array array['owner', 'app', 'infra'] loop
        if not exists (select from pg_roles where rolname = service || '_' || part) then
            execute format('create role %I', service || '_' || part);
        end if;
        execute format(
            'alter role %I login nosuperuser nocreatedb nocreaterole noreplication nobypassrls password %L',
            service || '_' || part, current_setting('optaic.' || part || '_password'));
    end loop;
    execute format('revoke all on database %I from public', current_database());
    execute format('grant connect on database %I to %I, %I, %I', current_database(),
        service || '_owner', service || '_app', service || '_infra');
    execute format('alter schema public owner to %I', service || '_owner');
    revoke all on schema public from public;
    execute format('grant usage on schema public to %I, %I', service || '_app', service || '_infra');
end
$$;
