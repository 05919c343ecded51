"""torchvision comes without the compiler, and finds it when it wants it."""

from __future__ import annotations

import subprocess
import sys

import pytest

CHECKS = {
    "the backend does not import it": "",
    "what needs it finds it": """
import torchvision
boxes = torch.tensor([[0, 0, 0, 4.0, 4.0]])
assert torchvision.ops.roi_align(torch.rand(1, 3, 8, 8), boxes, 2).shape == (1, 3, 2, 2)
deferred = sys.modules["torchvision.ops.roi_align"].is_compile_supported
import torch._dynamo.utils
assert deferred("cpu") == torch._dynamo.utils.is_compile_supported("cpu")
assert torch._dynamo.utils.__file__ and torch._dynamo.__file__
""",
    "an optimizer imports the real one": """
torch.optim.Adam(torch.nn.Linear(2, 2).parameters(), lr=0.1).zero_grad()
assert sys.modules["torch._dynamo"].__file__
""",
    "a network is described without it": """
from automl_tl.types import NetworkSpec
spec = NetworkSpec("torch/mobilenet_v2", 64, None, "random:0")
info = automl_tl_torch.backend.TorchBackend().describe(spec)
assert info.cuts[-1].flops > 0
assert "torch._dynamo" not in sys.modules and "triton" not in sys.modules
""",
}


def run(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("check", CHECKS)
def test_the_compiler_is_imported_where_it_is_used(check: str) -> None:
    script = (
        "import sys\nimport automl_tl_torch.backend\nimport torch\n"
        "assert 'torchvision' in sys.modules\n"
        "assert 'torch._dynamo' not in sys.modules\n" + CHECKS[check]
    )
    run(script)


def test_whatever_else_is_asked_of_a_stand_in_comes_from_the_real_module() -> None:
    script = """
import sys
import torch
from automl_tl_torch.compiler import no_compiler

with no_compiler():
    stand_in = sys.modules["torch._dynamo"]
    assert not hasattr(stand_in, "__file__")
    assert stand_in.reset.__module__.startswith("torch._dynamo")
    assert sys.modules["torch._dynamo"].__file__
assert sys.modules["torch._dynamo.utils"].__file__
"""
    run(script)
