"""What a trial's model file says of where it comes from."""

from __future__ import annotations

import numpy as np
import pytest

from automl_tl.plugins import get_plugins
from automl_tl.recipe import model_facts
from automl_tl.study_config import Config
from automl_tl.study_data import StudyData
from automl_tl.weights import location

KEY = "torch/mobilenet_v2"


@pytest.mark.parametrize("weights", ["published", "none", "/home/me/company.safetensors"])
def test_the_published_licence_is_that_of_the_published_weights_alone(weights: str) -> None:
    published = get_plugins().backbone(KEY).pretrained
    assert published is not None
    expected = {"published": published.licence, "none": "none"}.get(weights, "unknown")
    file = str(location(published)) if weights == "published" else weights
    data = StudyData(("a", "b"), ("a/1",), np.array([0]), ("train",), ("",), "", {})
    spec = {"backbone": KEY, "image_size": None, "resize": "squash", "pooling": "avg"}
    facts = {
        "spec": {**spec, "head_units": [], "dropout": 0.0},
        "fine_tune_at": 5,
        "layers": 5,
        "validation": {},
    }
    made = model_facts(Config("s", "d", (KEY,), {KEY: file}), data, 0, facts)
    assert made.licences["weights"] == expected
    assert expected != "unknown" or made.licences["architecture"] == "BSD-3-Clause"
