"""The README's code works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Context

from flower_ist.inprocess import run_in_process

README = Path(__file__).parent.parent / "README.md"


def load_data(context: Context) -> tuple[torch.Tensor, torch.Tensor]:
    """What a quickstart app brings of its own: here ten blobs in 64 dimensions."""
    centres = torch.randn(10, 64, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1 + int(context.node_config["partition-id"]))
    labels = torch.randint(0, 10, (80,), generator=generator)
    return centres[labels] + 0.5 * torch.randn(80, 64, generator=generator), labels


@pytest.mark.parametrize("packed", [True, False])
def test_the_apps_of_the_readme_train(packed: bool, capsys: pytest.CaptureFixture[str]) -> None:
    code = "\n".join(re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL))
    if not packed:
        code = code.replace("mods=[packed_mod]", "").replace(
            "num_slices=4,", "num_slices=4, packed=False,"
        )
    names: dict[str, Any] = {"load_data": load_data}
    exec(compile(code, str(README), "exec"), names)
    run_in_process(names["server_app"], names["client_app"], 4, {})
    # A slice: 64 of 256 neurons, 64*64 + 64 + 10*64 + 10 = 4,810 weights to each of 4 clients.
    assert "payload_bytes_down=76960" in capsys.readouterr().out
