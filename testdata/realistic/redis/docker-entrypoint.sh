#!/bin/sh
set -e
# First argument is an option or a settings file: the server is meant.
if [ "${1#-}" != "$1" ] || [ "${1%.conf}" != "$1" ]; then set -- redis-server "$@"; fi
# root gives up its rights; whoever else started this keeps theirs.
if [ "$(id -u)" = 0 ]; then
    find . \! -user redis -exec chown redis '{}' +
    exec gosu redis "$0" "$@"
fi
if [ "$1" = selftest ]; then
    redis-server --save '' --port 0 --unixsocket /tmp/redis.sock >/tmp/log &
    until [ -S /tmp/redis.sock ]; do sleep 0.1; done
    redis-cli -s /tmp/redis.sock set fruit pear
    redis-cli -s /tmp/redis.sock get fruit
    redis-cli -s /tmp/redis.sock shutdown nosave
    wait
    exec id -un
fi
exec "$@"
