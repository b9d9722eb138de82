"""A ServerApp in the form of Flower's quickstart."""

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp

from benchmarks.quickstart.task import Net
from flower_ist import ISTStrategy, derive_axes

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train the model and save it."""
    num_rounds = int(context.run_config["num-server-rounds"])
    lr = float(context.run_config["learning-rate"])
    model = Net()
    arrays = ArrayRecord(model.state_dict())
    strategy = ISTStrategy(derive_axes(model, torch.zeros(2, 1, 28, 28)), num_slices=4)
    result = strategy.start(
        grid=grid,
        initial_arrays=arrays,
        train_config=ConfigRecord({"lr": lr}),
        num_rounds=num_rounds,
    )
    torch.save(result.arrays.to_torch_state_dict(), str(context.run_config["output"]))
