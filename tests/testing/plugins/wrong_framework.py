"""Imports its framework when it is imported itself."""

import mxnet  # noqa: F401
from numpynet import automl_tl_backbones, automl_tl_backends  # noqa: F401
