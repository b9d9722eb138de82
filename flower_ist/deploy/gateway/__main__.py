"""Start the gateway: ``python -m flower_ist.deploy.gateway --help``."""

from __future__ import annotations

import argparse
import logging
import signal
import ssl
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
from anyio.abc import SocketStream
from anyio.streams.stapled import MultiListener

from flower_ist.deploy.gateway.books import serve_books
from flower_ist.deploy.gateway.calls import Calls
from flower_ist.deploy.gateway.door import Door
from flower_ist.deploy.gateway.ledger import Ledger
from flower_ist.deploy.gateway.superlink import SuperLink

_SAVE_SECONDS = 30.0
_BACKLOG = 512


def main() -> None:
    """Serve until a signal ends it."""
    parser = argparse.ArgumentParser(description="Pass on a SuperLink's Fleet API to devices.")
    parser.add_argument("--host", required=True, help="address to listen at")
    parser.add_argument("--port", type=int, required=True, help="port to listen at")
    parser.add_argument("--superlink", required=True, help="host:port of the SuperLink")
    parser.add_argument("--ca", required=True, help="certificate of the federation's authority")
    parser.add_argument("--certificate", required=True, help="the server's certificate")
    parser.add_argument("--key", required=True, help="the server's private key")
    parser.add_argument("--books", help="host:port that tells the devices' bytes; keep it private")
    parser.add_argument("--ledger", type=Path, help="file that keeps the devices' bytes")
    parser.add_argument(
        "--reply-mib",
        type=float,
        default=32.0,
        help="what a node may send in reply to a message, besides twice what it was sent",
    )
    options = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    ledger = Ledger(options.ledger)
    try:
        anyio.run(_serve, options, ledger)
    finally:
        ledger.write(ledger.text())


async def _serve(options: argparse.Namespace, ledger: Ledger) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(options.certificate, options.key)
    context.num_tickets = 0  # a SuperNode never resumes a session
    trusted = ssl.create_default_context(cafile=options.ca)
    async with SuperLink(options.superlink, trusted) as superlink:
        calls = Calls(superlink, round(options.reply_mib * 2**20))
        door = Door(context, calls, ledger)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_end_at_signal, tasks.cancel_scope)
            tasks.start_soon(calls.waiting.run)
            tasks.start_soon(_save, ledger)
            tasks.start_soon((await _listen(options.host, options.port)).serve, door.serve)
            if options.books:
                host, _, port = options.books.rpartition(":")
                books = await _listen(host, int(port))
                tasks.start_soon(books.serve, partial(serve_books, ledger))


async def _listen(host: str, port: int) -> MultiListener[SocketStream]:
    return await anyio.create_tcp_listener(local_host=host, local_port=port, backlog=_BACKLOG)


async def _save(ledger: Ledger) -> None:
    while True:
        await anyio.sleep(_SAVE_SECONDS)
        await anyio.to_thread.run_sync(ledger.write, ledger.text())


async def _end_at_signal(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()
            return


if __name__ == "__main__":
    main()
