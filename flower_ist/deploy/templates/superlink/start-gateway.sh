#!/bin/sh
# Start the gateway: the only program that devices can reach.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
exec python3 "$here/gateway.py" \
    --host "${GATEWAY_HOST:-@{listen}}" --port @{port} \
    --superlink "${SUPERLINK:-127.0.0.1:@{control_port}}" \
    --ca "$here/ca.crt" \
    --certificate "$here/server.crt" \
    --key "$here/server.key"
