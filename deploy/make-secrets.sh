#!/bin/sh
# Writes the secrets that compose.yaml mounts into deploy/secrets, random ones; what is there already is kept.
set -eu
folder="${1:-$(dirname "$0")/secrets}"
mkdir -p "$folder"
# Nobody but the owner gets into the folder; the files are readable, because the containers' users are others.
chmod 700 "$folder"

random() {
    head -c 32 /dev/urandom | base64 | tr -d '\n=' | tr '+/' '-_'
}
keep() {
    [ -s "$folder/$1" ] || printf '%s\n' "$2" >"$folder/$1"
    chmod 444 "$folder/$1"
}

keep postgres_password "$(random)"
keep storefront_token "$(random)"
keep operator_token "$(random)"
for service in order inventory payment; do
    keep "${service}_password" "$(random)"
    password=$(cat "$folder/${service}_password")
    keep "${service}_database_dsn" "postgresql://holdfast_$service:$password@postgres:5432/holdfast_$service"
done
# Standard Webhooks secrets are padded base64.
keep sandbox_webhook_secrets "whsec_$(head -c 24 /dev/urandom | base64)"
