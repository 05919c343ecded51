"""The kit, on everything of ours."""

from __future__ import annotations

import pytest

from automl_tl.testing import (
    BackboneTestCase,
    BackendTestCase,
    DatasetTestCase,
    EngineTestCase,
    PluginTestCase,
)
from automl_tl.testing.installed import entry_points

OURS = sorted({"automl-tl", *entry_points()})


@pytest.mark.parametrize("plugin", OURS, scope="class")
class TestPlugins(PluginTestCase):
    pass


class TestDigits(DatasetTestCase):
    @pytest.fixture
    def dataset(self) -> str:
        return "digits"


class TestLocal(EngineTestCase):
    @pytest.fixture
    def engine(self) -> str:
        return "local"


@pytest.mark.slow
class TestTorchTiny(BackboneTestCase):
    @pytest.fixture
    def backbone(self) -> str:
        return "torch/tiny"


@pytest.mark.slow
class TestKerasTiny(BackboneTestCase):
    @pytest.fixture
    def backbone(self) -> str:
        return "keras/tiny"


@pytest.mark.slow
class TestTorch(BackendTestCase):
    @pytest.fixture
    def backend(self) -> str:
        return "torch"


@pytest.mark.slow
class TestKeras(BackendTestCase):
    @pytest.fixture
    def backend(self) -> str:
        return "keras"
