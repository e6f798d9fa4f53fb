-- Roles, database and rights for Esper on a PostgreSQL of your own. Run once as a superuser:
--   psql -v owner_password=SECRET1 -v app_password=SECRET2 -f deploy/roles.sql
\set ON_ERROR_STOP on

CREATE ROLE esper_owner LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'owner_password';
CREATE ROLE esper_app LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'app_password';
CREATE DATABASE esper OWNER esper_owner;

\connect esper

CREATE EXTENSION IF NOT EXISTS pg_trgm;
CREATE EXTENSION IF NOT EXISTS btree_gin;
ALTER SCHEMA public OWNER TO esper_owner;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO esper_app;
ALTER DEFAULT PRIVILEGES FOR ROLE esper_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO esper_app;
ALTER DEFAULT PRIVILEGES FOR ROLE esper_owner IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO esper_app;
