#!/bin/sh
# Makes docker/secrets/: every password once, at random, readable by its owner alone. Run it before the first `up`.
set -eu
cd "$(dirname "$0")"
if [ -e secrets ]; then
  echo "docker/secrets exists already; remove it first if all passwords shall be new" >&2
  exit 1
fi
umask 077
mkdir secrets
cd secrets
random() { head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }
postgres=$(random) valkey=$(random) s3=$(random)
random > opd_api_token
printf '%s' "$postgres" > postgres_password
printf '%s' "$valkey" > valkey_password
printf 'postgresql://opd:%s@postgres:5432/opd' "$postgres" > opd_database_url
printf 'redis://:%s@valkey:6379/0' "$valkey" > opd_redis_url
printf '[default]\naws_access_key_id = opd\naws_secret_access_key = %s\n' "$s3" > aws_credentials
cat > s3_identities.json <<EOF
{"identities": [{"name": "opd", "credentials": [{"accessKey": "opd", "secretKey": "$s3"}],
  "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}
EOF
# The containers' own user reads them; the folder keeps everybody else of this machine out.
chmod 444 ./*
echo "docker/secrets made. The token of the API: docker/secrets/opd_api_token"
