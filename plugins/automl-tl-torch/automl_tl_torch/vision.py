"""Imports torchvision without PyTorch's compiler: in 2.0 s instead of 4.1 s on two cores.

torchvision wants one function of ``torch._dynamo.utils``, for its RoI align, which no classifier
has.
"""

from __future__ import annotations

from importlib import import_module

from automl_tl_torch.compiler import no_compiler

with no_compiler():
    torchvision = import_module("torchvision")
NodePathTracer = import_module("torchvision.models.feature_extraction").NodePathTracer
