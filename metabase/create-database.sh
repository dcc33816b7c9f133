#!/bin/sh
# Run once by the postgres image, when its data folder is new: a role and a database for Metabase's own tables.
set -eu

METABASE_PASSWORD=$(cat /run/secrets/metabase_app_password)
PGPASSWORD=$(cat /run/secrets/postgres_password)
export METABASE_PASSWORD PGPASSWORD

# The password goes in by the environment: an argument would stand in the list of processes.
psql --no-psqlrc --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
\getenv password METABASE_PASSWORD
create role metabase login password :'password';
create database metabase owner metabase;
revoke connect on database metabase from public;
SQL
