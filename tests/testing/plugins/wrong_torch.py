"""Imports PyTorch when it is imported itself."""

import torch  # noqa: F401
from torch_nets import right_net as _plugin

automl_tl_backbones = _plugin.automl_tl_backbones
