"""The kit on small networks in PyTorch: one that is right, and some that are not."""

from __future__ import annotations

import pytest

from automl_tl.plugins import get_plugins
from automl_tl.testing import kit
from automl_tl.testing.examination import examine
from automl_tl.testing.findings import find
from automl_tl.testing.plugin_checks import check_frameworks

pytestmark = pytest.mark.slow


def wrong(install, plugin):
    install(f"torch_nets:{plugin}")
    found = kit.check_backbone(get_plugins().backbone("torch/small"))
    return {finding.check: finding.received for finding in found if not finding.passed}


@pytest.mark.parametrize("plugin", ["right_net", "tied_net"])
def test_a_right_one_passes(install, plugin) -> None:
    assert wrong(install, plugin) == {}


@pytest.mark.parametrize(
    ("plugin", "check", "received"),
    [
        ("nan_net", "output", "are NaN or infinite"),
        ("dropout_net", "repeated images", "values that differ by"),
        ("unseeded_net", "seeds", "others in backbone.last.bias"),
        ("branching_net", "build", "tracing fails"),
        ("batch_net", "repeated images", "values that differ by"),
        ("few_parameters_net", "parameters", "1,424 in the layers"),
    ],
)
def test_a_wrong_one_is_caught(install, plugin, check, received) -> None:
    found = wrong(install, plugin)
    assert received in found.get(check, ""), found


def test_importing_pytorch_at_once_is_caught(install) -> None:
    (finding, _) = find(check_frameworks, examine(install("wrong_torch"), seconds=60))
    assert (finding.passed, finding.received) == (False, "torch")
