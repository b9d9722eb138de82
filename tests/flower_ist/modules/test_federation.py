"""A user's module in a federation: what travels, what stays, what comes back."""

import re

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from benchmarks.zoo import LowRank
from flower_ist.grids.inprocess import InProcessGrid
from flower_ist.modules.call import RULES
from flower_ist.modules.derive import derive_axes
from flower_ist.modules.fit import fit
from flower_ist.modules.torch_state import state_record
from flower_ist.strategies.submodel import ISTStrategy
from tests.fakes import ROOT


def low_rank():
    torch.manual_seed(3)
    return nn.Sequential(LowRank(nn.Linear(6, 5), 16), nn.ReLU(), nn.Linear(5, 2))


def client_of(make, seen):
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        seen.append(message.content["arrays"].keys())
        model = fit(make(), message)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        x = torch.randn(8, 6, dtype=next(model.parameters()).dtype)
        model(x).square().mean().backward()
        optimizer.step()
        record = ArrayRecord(model.state_dict())
        metrics = MetricRecord({"num-examples": 8})
        return Message(RecordDict({"arrays": record, "metrics": metrics}), reply_to=message)

    return app


def test_frozen_tensors_stay_and_the_model_that_comes_back_is_whole():
    model, seen = low_rank(), []
    with torch.no_grad():
        model[0].b.normal_()
    axes = derive_axes(model, torch.zeros(2, 6))
    grid = InProcessGrid(client_of(low_rank, seen), 4)
    start = ArrayRecord(model.state_dict())
    result = ISTStrategy(axes, num_slices=4).start(grid=grid, initial_arrays=start, num_rounds=2)
    assert len(seen) == 8
    assert all(names == axes.shapes.keys() for names in seen)
    assert {"0.base.weight", "0.base.bias"} == axes.frozen.keys()
    trained = result.arrays.to_torch_state_dict()
    assert trained.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(trained[name], tensor) == (name in axes.frozen), name


def test_a_bfloat16_model_trains():
    def make():
        return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2)).bfloat16()

    model, seen = make(), []
    axes = derive_axes(model, torch.zeros(2, 6, dtype=torch.bfloat16))
    grid = InProcessGrid(client_of(make, seen), 2)
    result = ISTStrategy(axes, num_slices=2).start(
        grid=grid, initial_arrays=state_record(model.state_dict()), num_rounds=1
    )
    assert len(seen) == 2
    assert {array.dtype for array in result.arrays.values()} == {"float32"}


def test_a_client_that_evaluates_is_warned_of(caplog):
    axes = derive_axes(low_rank(), torch.zeros(2, 6))
    with caplog.at_level("WARNING", "flwr"):
        ISTStrategy(axes, num_slices=4, fraction_evaluate=0.5).summary()
    assert "is sent the whole model, which costs more than its slice" in caplog.text
    assert "fewer than 8 neurons of '0' (4)" in caplog.text


def test_the_blocks_of_the_guide_work_as_they_stand_there(capsys):
    guide = (ROOT / "docs" / "your-own-model.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, object] = {"ConfigRecord": ConfigRecord}
    try:
        exec(compile("\n".join(blocks), "your-own-model.md", "exec"), names)
    finally:
        RULES.pop("cdist", None)
    printed = capsys.readouterr().out
    assert "One of 4 slices holds" in printed
    assert printed.endswith("{'qkv': 8}\n")
