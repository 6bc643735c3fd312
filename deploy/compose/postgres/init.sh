#!/bin/sh
# Runs once, when the data directory is empty. Two roles: the owner may change the schema, the engines may not.
set -eu
psql -v ON_ERROR_STOP=1 -q --username "${POSTGRES_USER:-postgres}" --dbname postgres \
	-v owner_password="$(cat "${SECRETS:-/run/secrets}/owner_password")" \
	-v app_password="$(cat "${SECRETS:-/run/secrets}/app_password")" <<'END'
CREATE ROLE msgctl_owner LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'owner_password';
CREATE ROLE msgctl LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS PASSWORD :'app_password';
CREATE DATABASE msgctl OWNER msgctl_owner;
REVOKE ALL ON DATABASE msgctl FROM PUBLIC;
GRANT CONNECT ON DATABASE msgctl TO msgctl;
\connect msgctl
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT ALL ON SCHEMA public TO msgctl_owner;
END
