#!/bin/sh
# Start the SuperLink. It listens on this machine only: devices come in by start-gateway.sh.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
umask 077
# systemd names a folder for what changes; started by hand it lies beside this script.
state=${STATE_DIRECTORY:-$here/state}
mkdir -p "$state"
cd "$state"

export FLWR_HOME="$state/flwr"
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1
export FLWR_DISABLE_UPDATE_CHECK=1
export FLWR_TELEMETRY_ENABLED=0

# Here a run learns what its devices have paid.
export FLOWER_IST_GATEWAY="${FLOWER_IST_GATEWAY:-127.0.0.1:@{books_port}}"

# The database keeps the registered nodes when the SuperLink is started again.
exec python3 -m flower_ist.deploy.watched flower-superlink \
    --host "${SUPERLINK_HOST:-127.0.0.1}" --port @{control_port} \
    --ssl-ca-certfile "$here/ca.crt" \
    --ssl-certfile "$here/server.crt" \
    --ssl-keyfile "$here/server.key" \
    --enable-supernode-auth \
    --database "$state/superlink.db"
