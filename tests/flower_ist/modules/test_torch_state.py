"""bfloat16 states travel."""

import torch
from torch import nn

from flower_ist.modules.torch_state import state_record


def test_bfloat16_travels_exactly_as_float32():
    model = nn.BatchNorm1d(3).bfloat16()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([0.1, -2.7, 1e30]))
    record = state_record(model.state_dict())
    assert {array.dtype for array in record.values()} == {"float32", "int64"}
    back = {n: t.bfloat16() for n, t in record.to_torch_state_dict().items()}
    assert torch.equal(back["weight"], model.weight)
