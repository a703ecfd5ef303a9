#!/bin/sh
# Makes a login role and a database of the same name for each service, and keeps everybody else out of it.
#
# The image of Postgres runs this once, on an empty data directory. On a server that you already have, run it yourself as
# a superuser: psql's own settings (PGHOST, PGUSER, …) say where, and HOLDFAST_PASSWORDS in which folder the passwords
# are, one file each: order_password, inventory_password, payment_password.
set -eu
passwords="${HOLDFAST_PASSWORDS:-/run/secrets}"
run() {
    psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-${PGUSER:-postgres}}" --dbname postgres "$@"
}

run --command 'REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC'
for service in order inventory payment; do
    # psql reads the password from its file: a command line can be read by everybody on the machine.
    PASSWORD_FILE="$passwords/${service}_password" run --set role="holdfast_$service" <<'SQL'
\set password `cat "$PASSWORD_FILE"`
CREATE ROLE :"role" LOGIN PASSWORD :'password';
CREATE DATABASE :"role" OWNER :"role";
REVOKE ALL ON DATABASE :"role" FROM PUBLIC;
SQL
done
