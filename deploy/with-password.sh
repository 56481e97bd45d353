#!/bin/sh
# Run a command with the database's password from the file that PGPASSWORD_FILE names (a secret), where it names one:
# so that the password is in no command line, no study file and no description of the container.
set -eu
if [ -n "${PGPASSWORD_FILE:-}" ]; then
    PGPASSWORD="$(cat "$PGPASSWORD_FILE")"
    export PGPASSWORD
fi
exec "$@"
