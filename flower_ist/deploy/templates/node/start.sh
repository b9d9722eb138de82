#!/bin/sh
# Start the SuperNode of this device. It needs no open port: it connects to the server.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
umask 077
# systemd names a folder for what changes; started by hand it lies beside this script.
state=${STATE_DIRECTORY:-$here/state}
mkdir -p "$state"
cd "$state"

export FLWR_HOME="$state/flwr"
export FLWR_DISABLE_UPDATE_CHECK=1
export FLWR_TELEMETRY_ENABLED=0
# Slices are small: a second thread of numpy's BLAS would mostly wait. And a pool of memory for each of
# gRPC's threads would take 5 MiB.
export OPENBLAS_NUM_THREADS="${OPENBLAS_NUM_THREADS:-1}"
export MALLOC_ARENA_MAX="${MALLOC_ARENA_MAX:-1}"

# One connection at a time: a second one's TLS handshake costs more bytes than it saves seconds.
export FLWR_PRIVATE_MAX_CONCURRENT_OBJ_PUSHES="${FLWR_PRIVATE_MAX_CONCURRENT_OBJ_PUSHES:-1}"
export FLWR_PRIVATE_MAX_CONCURRENT_OBJ_PULLS="${FLWR_PRIVATE_MAX_CONCURRENT_OBJ_PULLS:-1}"

# The port is for this node's own processes, on the loopback address.
exec python3 -m flower_ist.deploy.watched --awake "${AWAKE_SECONDS:-0}" flower-supernode \
    --superlink "${SUPERLINK:-@{address}}" \
    --root-certificates "$here/ca.crt" \
    --auth-supernode-private-key "$here/node.key" \
    --node-config "${NODE_CONFIG:-$(cat "$here/node-config")}" \
    --host 127.0.0.1 --port @{node_port}
