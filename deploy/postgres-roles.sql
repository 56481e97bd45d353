-- Least rights for a study database on PostgreSQL 14 or newer. Run it in that database, as its administrator:
--
--     createdb condensery
--     psql -d condensery -f deploy/postgres-roles.sql
--     psql -d condensery -c '\password condensery_owner'     (and _runner, _reader)
--
--     condensery_owner    makes and changes the tables: `condensery db upgrade`, once and after each new version
--     condensery_runner   reads and writes rows: launch, devices, pick, stop, delete
--     condensery_reader   reads: status, trials, show, pareto, report
--
-- It may be run again at any time, before or after the tables are there. Tables that another role made are handed over
-- with: REASSIGN OWNED BY that_role TO condensery_owner;

DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['condensery_owner', 'condensery_runner', 'condensery_reader'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            -- No password: no one can log in with one until it is set.
            EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE', role);
        END IF;
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role);
    END LOOP;
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    -- A second safeguard: the reader cannot write here, whatever it is granted elsewhere.
    EXECUTE format(
        'ALTER ROLE condensery_reader IN DATABASE %I SET default_transaction_read_only = on', current_database()
    );
END
$$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO condensery_owner;
GRANT USAGE ON SCHEMA public TO condensery_runner, condensery_reader;

-- The tables that are there.
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO condensery_runner;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO condensery_runner;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO condensery_reader;

-- Those that the owner will make.
ALTER DEFAULT PRIVILEGES FOR ROLE condensery_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO condensery_runner;
ALTER DEFAULT PRIVILEGES FOR ROLE condensery_owner IN SCHEMA public
    GRANT USAGE ON SEQUENCES TO condensery_runner;
ALTER DEFAULT PRIVILEGES FOR ROLE condensery_owner IN SCHEMA public
    GRANT SELECT ON TABLES TO condensery_reader;
