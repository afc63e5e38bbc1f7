#!/bin/bash
# Makes the cluster if there is none, then starts the command; `selftest` asks the cluster a question instead.
set -euo pipefail
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    initdb --auth=trust --username=postgres >/dev/null
    pg_ctl -w -s start -o "-c listen_addresses='' -k /tmp" -l /tmp/init.log
    for f in /docker-entrypoint-initdb.d/*.sql; do psql -qh /tmp -v ON_ERROR_STOP=1 -f "$f"; done
    pg_ctl -w -s stop -m fast
fi
if [ "$1" = selftest ]; then
    pg_ctl -w -s start -o "-c listen_addresses='' -k /tmp" -l /tmp/test.log
    psql -h /tmp -At -c "SELECT string_agg(name, ',' ORDER BY name) FROM fruit"
    pg_ctl -w -s stop -m fast
    exit
fi
exec "$@"
