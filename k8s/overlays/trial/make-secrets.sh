#!/bin/sh
# Passwords for the trial's stores, in a folder beside this file that git takes no notice of. They are made
# once: the stores keep the ones that they were started with.
set -eu
umask 077
folder=$(cd "$(dirname "$0")" && pwd)/secrets
if [ -e "$folder" ]; then
    echo "$folder is there already; what is in it belongs to the stores' data" >&2
    exit 1
fi

random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

postgres=$(random) valkey=$(random) access=$(random) secret=$(random)
stored=$(head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n')

mkdir "$folder.new"
cat >"$folder.new/hearth.env" <<END
HEARTH_DATABASE_URL=postgresql://hearth:$postgres@postgres/hearth
HEARTH_REDIS_URL=redis://:$valkey@valkey:6379/0
HEARTH_S3_ENDPOINT=http://seaweedfs.hearth.svc:8333
HEARTH_S3_ACCESS_KEY=$access
HEARTH_S3_SECRET_KEY=$secret
HEARTH_SECRET_KEYS=$stored
END
cat >"$folder.new/postgres.env" <<END
POSTGRES_USER=hearth
POSTGRES_DB=hearth
POSTGRES_PASSWORD=$postgres
END
cat >"$folder.new/valkey.conf" <<END
port 6379
requirepass $valkey
dir /data
appendonly yes
save ""
maxmemory-policy noeviction
END
cat >"$folder.new/s3.json" <<END
{"identities": [{"name": "hearth", "credentials": [{"accessKey": "$access", "secretKey": "$secret"}],
  "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}
END
mv "$folder.new" "$folder"
