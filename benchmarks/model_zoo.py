"""derive_axes on the models of benchmarks/zoo.py: the table of docs/your-own-model.md."""

from __future__ import annotations

import argparse
import time
import warnings

import torch
from zoo import FULL_SIZE

from flower_ist.errors import FlowerIstError
from flower_ist.modules.derive import derive_axes
from flower_ist.modules.report import reasons


def main() -> None:
    """Print one table: what is cut, what a slice holds, what stays whole, seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=4)
    parser.add_argument("--widths", default="inner")
    parser.add_argument("--model", default="", help="only those whose name contains this")
    parser.add_argument("--report", action="store_true", help="print each model's own report")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("| model | widths cut | scale on both sides | a slice holds | whole for | CPU s |")
    print("|---|---|---|---|---|---|")
    for name, build in FULL_SIZE.items():
        if arguments.model not in name:
            continue
        model, example = build()
        start = time.process_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                axes = derive_axes(
                    model, example, num_slices=arguments.slices, widths=arguments.widths
                )
        except FlowerIstError as err:
            print(f"| {name} | none: {err} | | | | |")
            continue
        seconds = time.process_time() - start
        sizes = {width: -(-count // arguments.slices) for width, count in axes.widths.items()}
        whole = "; ".join(sorted({_short(why) for why in reasons(axes)} - {""}))
        print(
            f"| {name} | {len(axes.widths)} | {len(axes.balanced)} | "
            f"{100 * axes.share(sizes):.1f} % | {whole} | {seconds:.1f} |",
            flush=True,
        )
        if arguments.report:
            print(axes.report())


def _short(reason: str) -> str:
    """Return a reason without the names in it; nothing for what is whole in every model."""
    if reason.startswith("next to"):
        return "neighbors"
    reason = reason.partition(" for each of")[0]
    common = ("tied to an axis that is whole", "the model's output", "no layer sums over it")
    return "" if reason in common else reason


if __name__ == "__main__":
    main()
