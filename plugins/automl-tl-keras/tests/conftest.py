"""Keeps TensorFlow out of the process that runs the other tests; see ``test_in_own_process``."""

from __future__ import annotations

import os

collect_ignore = [] if os.environ.get("AUTOML_TL_KERAS_TESTS") == "1" else ["keras"]
