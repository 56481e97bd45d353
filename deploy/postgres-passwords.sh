#!/bin/bash
# Gives the roles of postgres-roles.sql their passwords when docker-compose.yml's database is made.
set -euo pipefail
for role in owner runner reader; do
    # \getenv: the password is in no command line.
    PASSWORD="$(cat "/run/secrets/${role}_password")" psql --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
        --set ON_ERROR_STOP=1 --set "role=condensery_$role" <<'SQL'
\getenv password PASSWORD
ALTER ROLE :"role" PASSWORD :'password';
SQL
done
