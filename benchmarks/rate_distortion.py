"""Bits a weight against error, for every codec, on a real round's messages; and their CPU time.

    python benchmarks/rate_distortion.py [TOKENS] [--neurons 256] [--plot FILE]

TOKENS is a client's shard; without it, a quarter of the embedded demo tokens. One slice is trained
for a round as a client trains it. Up is its change; down is what the next round would send of it.
The error is |decoded - exact|^2 / |exact|^2 over all of a slice's numbers, where exact is what is
sent: float16, int8 and int4 send weights down, and compact their change since the initial weights.
``of outputs`` is the same of what the first layer computes on the shard's tokens, from the second
round on what matters down.

For comparison: the Gaussian rate-distortion bound, log2(1 / error) / 2 bits; EDEN at 1 to 4 bits
(Vargaftik et al., ICML 2022, https://arxiv.org/abs/2108.08842; at 1 bit it is DRIVE), whose error
is 1 / (1 - d) - 1 with d that of Lloyd's quantizer of a Gaussian; and QSGD's bound
min(n / s^2, sqrt(n) / s) for vectors of n = 64 numbers and s levels (Alistarh et al., NeurIPS 2017,
https://arxiv.org/abs/1610.02132, lemma 3.1), without its entropy coding.

``CPU`` is what packing and unpacking take, in per cent of the round's training, one thread.
"""

from __future__ import annotations

from pathlib import Path
from time import process_time
from typing import Annotated, Any

import numpy as np
import typer
from flwr.app import ConfigRecord
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from client_app.batches import Batches
from client_app.local_settings import LocalSettings
from client_app.training import train
from flower_ist.classifier.mlp import initial_weights
from flower_ist.statistics.prior import TokenPrior
from flower_ist.statistics.sums import Statistics
from flower_ist.tokens.demo import train_shard
from flower_ist.tokens.shard import TokenShard, open_shard
from flower_ist.wire.compact import Known
from flower_ist.wire.layout import layout_of
from flower_ist.wire.packing import pack, unpack
from flower_ist.wire.quantize import CODECS, noise_of

LLOYD = {1: 0.3634, 2: 0.1175, 3: 0.03454, 4: 0.009497}
BATCH, EPOCHS, TURNS = 64, 12, 5
Tensors = dict[str, NDArray[Any]]


def prior_of(shard: TokenShard) -> TokenPrior:
    """Return the prior of a shard's tokens, as clients read it."""
    tokens, labels = shard.batch(slice(None))
    found = Statistics.empty(shard.meta.num_classes, shard.meta.dim, gram=True)
    found.add_tokens(tokens, labels)
    return TokenPrior.from_tensors(TokenPrior.from_statistics(found).to_tensors())


def error_of(exact: Tensors, found: Tensors) -> float:
    """Return the square of all errors over the square of all that is exact."""
    errors = sum(float(((found[name] - exact[name]) ** 2).sum()) for name in exact)
    return errors / sum(float((tensor**2).sum()) for tensor in exact.values())


def main(
    tokens: Annotated[Path | None, typer.Argument(help="A client's shard.")] = None,
    neurons: int = 256,
    plot: Annotated[Path | None, typer.Option(help="Draw the table here.")] = None,
) -> None:
    """Print a row for each codec and way, and the formulas."""
    threadpool_limits(1)
    shard = train_shard(0, 4) if tokens is None else open_shard(tokens)
    prior = prior_of(shard)
    dims = (shard.meta.dim, neurons, shard.meta.num_classes)
    start: Tensors = dict(initial_weights(dims, 0))
    steps = EPOCHS * -(-len(shard) // BATCH)
    config = {"local-steps": steps, "batch-size": BATCH, "seed": 0, "server-round": 1}
    settings = LocalSettings.from_config(ConfigRecord({**config, "learning-rate": 1e-3}))
    began = process_time()
    trained, _ = train(start, Batches(shard, settings, "a", prior))
    seconds = process_time() - began
    change = {name: trained[name] - start[name] for name in start}
    layout, known = layout_of(start), Known(start, prior.directions())
    seen = prior.standardize(shard.batch(slice(None))[0].astype(np.float32))
    count = sum(tensor.size for tensor in start.values())
    print(f"{count} weights, {steps} steps, {len(shard)} examples of {shard.meta.dim} numbers")
    print("| way | codec | bits a weight | error | of outputs | Gaussian bound, bits | CPU |")
    print("|---|---|---|---|---|---|---|")
    points = []
    for way, tensors, known_here in (("down", trained, known), ("up", change, known.of_reply())):
        base = start if way == "down" else {name: 0 * tensor for name, tensor in start.items()}
        for codec in CODECS[1:]:
            noise = None if way == "down" else noise_of(0)
            times = []
            for _ in range(TURNS):
                began = process_time()
                array = pack(tensors, layout, codec, noise, known_here)
                found = unpack(array, layout, codec, known_here)
                times.append(process_time() - began)
            bits = 8 * len(array.data) / count
            # What is sent: all of the weights, or their change.
            less = base if codec == "compact" else {name: 0 * t for name, t in base.items()}
            sent = {name: tensors[name] - less[name] for name in tensors}
            read = {name: found[name] - less[name] for name in tensors}
            error = error_of(sent, read)
            first = {"fc1.weight": sent["fc1.weight"] @ seen.T}
            outputs = error_of(first, {"fc1.weight": read["fc1.weight"] @ seen.T})
            bound = max(0.0, -np.log2(error) / 2)
            share = 100 * float(np.median(times)) / seconds
            print(
                f"| {way} | {codec} | {bits:.2f} | {error:.5f} | {outputs:.5f} | {bound:.2f} "
                f"| {share:.1f} % |"
            )
            points.append((f"{codec} {way}", bits, error))
    for bits, d in LLOYD.items():
        points.append((f"EDEN {bits} bit", float(bits), 1 / (1 - d) - 1))
    for bits in (4, 8):
        levels = 2 ** (bits - 1) - 1
        points.append((f"QSGD {bits} bit", float(bits), min(64 / levels**2, 8 / levels)))
    for name, bits, error in points[-6:]:
        bound = max(0.0, -np.log2(error) / 2)
        print(f"| formula | {name} | {bits:.2f} | {error:.5f} | - | {bound:.2f} | - |")
    if plot is not None:
        draw(points, plot)


def draw(points: list[tuple[str, float, float]], file: Path) -> None:
    """Draw codecs and formulas beside the Gaussian bound."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    rates = np.linspace(0, 9, 50)
    axes.semilogy(rates, 4.0**-rates, "k--", label="Gaussian bound")
    for name, bits, error in points:
        axes.semilogy(bits, error, "s" if " " in name and name.split()[1].isdigit() else "o")
        axes.annotate(name, (bits, error), textcoords="offset points", xytext=(5, 3), fontsize=8)
    axes.set(xlabel="bits a weight", ylabel="error, of the square", xlim=(0, 17))
    axes.legend()
    figure.savefig(file)


if __name__ == "__main__":
    typer.run(main)
