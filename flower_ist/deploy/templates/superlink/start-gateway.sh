#!/bin/sh
# Start the gateway: the only program that devices can reach.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
umask 077
# systemd names a folder for what changes; started by hand it lies beside this script.
state=${STATE_DIRECTORY:-$here/state}
mkdir -p "$state"

# REPLY_MIB: what a device may send in reply to one message, besides twice what it was sent.
exec python3 -m flower_ist.deploy.gateway \
    --host "${GATEWAY_HOST:-@{listen}}" --port @{port} \
    --superlink "${SUPERLINK:-127.0.0.1:@{control_port}}" \
    --ca "$here/ca.crt" \
    --certificate "$here/server.crt" \
    --key "$here/server.key" \
    --books "${BOOKS_HOST:-127.0.0.1}:@{books_port}" \
    --ledger "$state/socket-bytes.json" \
    --reply-mib "${REPLY_MIB:-32}"
