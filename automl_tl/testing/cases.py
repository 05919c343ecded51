"""The kit as pytest classes, with one fixture each to override; every check is a test of its own.

A class keeps its backend's process and what it has computed until another network is asked for. To
check several, parametrise the class in its scope, so that all tests of one follow one another:

```python
@pytest.mark.parametrize("backbone", ["torch/my_net", "torch/my_net_large"], scope="class")
class TestMyNets(BackboneTestCase):
    pass
```
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from automl_tl.plugins import get_plugins
from automl_tl.testing import (
    backend_checks,
    dataset_checks,
    engine_checks,
    export_checks,
    facts_checks,
    fine_tune_checks,
    kit,
    network_checks,
    plugin_checks,
    preprocess_checks,
    trainer_checks,
    training_checks,
)
from automl_tl.testing.examination import examine
from automl_tl.testing.findings import find

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from automl_tl.testing.findings import Finding, Subject


class _Held:
    """What the tests of one class share: the last thing that was made, until another is asked."""

    def __init__(self) -> None:
        self._name = ""
        self._thing: Any = None
        self._resources = ExitStack()

    def get(self, name: str, make: Callable[[ExitStack], Subject]) -> Subject:
        """Return the thing of a name, made when it is not the one that is there."""
        if name != self._name:
            self.close()
            self._thing, self._name = make(self._resources), name
        thing: Subject = self._thing
        return thing

    def close(self) -> None:
        """Give up the thing."""
        self._name = ""
        self._resources.close()


class _Case:
    held: ClassVar[_Held]
    """What the tests of the class share."""

    @classmethod
    def setup_class(cls) -> None:
        """Begin with nothing."""
        cls.held = _Held()

    @classmethod
    def teardown_class(cls) -> None:
        """Give up what is shared."""
        cls.held.close()


def _test(check: Callable[[Any], Iterable[Finding]]) -> Callable[[Any, Subject], None]:
    """Return a test that fails when a check finds something wrong with the fixture ``thing``."""

    def test(self: Any, thing: Subject) -> None:
        wrong = [str(finding) for finding in find(check, thing) if not finding.passed]
        if wrong:
            pytest.fail("\n".join(wrong), pytrace=False)

    test.__doc__ = check.__doc__
    return test


class PluginTestCase(_Case):
    """Checks of a plugin: its import, its hooks and what they announce.

    Example:
        ```python
        class TestPlugin(PluginTestCase):
            @pytest.fixture
            def plugin(self):
                return "my-plugin"
        ```
    """

    @pytest.fixture
    def plugin(self) -> str:
        """Name of the plugin's entry point; override it."""
        raise NotImplementedError("override the fixture `plugin`: return an entry point's name")

    @pytest.fixture
    def thing(self, plugin: str) -> Subject:
        """What came of importing the plugin and calling its hooks."""
        return self.held.get(plugin, lambda _: examine(plugin))

    test_import = _test(plugin_checks.check_import)
    test_frameworks = _test(plugin_checks.check_frameworks)
    test_hook_names = _test(plugin_checks.check_hook_names)
    test_hook_signatures = _test(plugin_checks.check_hook_signatures)
    test_hook_answers = _test(plugin_checks.check_hook_answers)
    test_announcements = _test(plugin_checks.check_announcements)
    test_unique_names = _test(plugin_checks.check_unique_names)
    test_search_space = _test(plugin_checks.check_search_space)


class _NetworkCase(_Case):
    test_build = _test(kit.check_build)
    test_layers = _test(network_checks.check_layers)
    test_parameters = _test(network_checks.check_parameters)
    test_cut_points = _test(network_checks.check_cut_points)
    test_output = _test(network_checks.check_output)
    test_repeated_images = _test(network_checks.check_repeated_images)
    test_smallest_size = _test(network_checks.check_smallest_size)
    test_seeds = _test(network_checks.check_seeds)
    test_weights = _test(network_checks.check_weights)
    test_frozen = _test(training_checks.check_frozen)
    test_batch_norm = _test(training_checks.check_batch_norm)
    test_part_frozen = _test(training_checks.check_part_frozen)
    test_fine_tuning = _test(training_checks.check_fine_tuning)
    test_stored_features = _test(training_checks.check_stored_features)
    test_stored_activations = _test(training_checks.check_stored_activations)
    test_same_seed = _test(training_checks.check_same_seed)
    test_saved_model = _test(export_checks.check_saved_model)
    test_export = _test(export_checks.check_export)


class BackboneTestCase(_NetworkCase):
    """Checks of a backbone: built with random weights, run, trained and exported.

    Example:
        ```python
        class TestMyNet(BackboneTestCase):
            @pytest.fixture
            def backbone(self):
                return "torch/my_net"
        ```
    """

    @pytest.fixture
    def backbone(self) -> str:
        """Key of the backbone; override it."""
        raise NotImplementedError("override the fixture `backbone`: return a key: torch/my_net")

    @pytest.fixture
    def thing(self, backbone: str) -> Subject:
        """The backbone on the bench."""
        described = get_plugins().backbone(backbone)
        return self.held.get(backbone, lambda stack: stack.enter_context(kit.bench(described)))

    test_description = _test(facts_checks.check_description)
    test_weights_files = _test(facts_checks.check_weights_files)


class BackendTestCase(_NetworkCase):
    """Checks of a backend, on the smallest of its backbones.

    Example:
        ```python
        class TestMyBackend(BackendTestCase):
            @pytest.fixture
            def backend(self):
                return "my_framework"
        ```
    """

    @pytest.fixture
    def backend(self) -> str:
        """Name of the backend; override it."""
        raise NotImplementedError("override the fixture `backend`: return a backend's name")

    @pytest.fixture
    def thing(self, backend: str) -> Subject:
        """The smallest backbone of the backend on the bench."""
        smallest = backend_checks.smallest_backbone(backend)
        return self.held.get(backend, lambda stack: stack.enter_context(kit.bench(smallest)))

    test_formats = _test(backend_checks.check_formats)
    test_devices = _test(backend_checks.check_devices)
    test_views = _test(backend_checks.check_views)
    test_half_precision = _test(backend_checks.check_half_precision)
    test_calibration = _test(backend_checks.check_calibration)
    test_refusals = _test(backend_checks.check_refusals)
    test_preprocessing = _test(preprocess_checks.check_preprocessing)
    test_all_formats = _test(export_checks.check_all_formats)
    test_reports = _test(trainer_checks.check_reports)
    test_heads = _test(trainer_checks.check_heads)
    test_promises = _test(trainer_checks.check_promises)
    test_stops = _test(trainer_checks.check_stops)
    test_early_stops = _test(trainer_checks.check_early_stops)
    test_poolings = _test(trainer_checks.check_poolings)
    test_warm_heads = _test(fine_tune_checks.check_warm_heads)
    test_fine_tune_optimizer = _test(fine_tune_checks.check_fine_tune_optimizer)
    test_fine_tune_settings = _test(fine_tune_checks.check_fine_tune_settings)
    test_epoch_sources = _test(fine_tune_checks.check_epoch_sources)


class DatasetTestCase(_Case):
    """Checks of a named data set, which is loaded into an empty cache.

    Example:
        ```python
        class TestMyData(DatasetTestCase):
            @pytest.fixture
            def dataset(self):
                return "my-data"
        ```
    """

    @pytest.fixture
    def dataset(self) -> str:
        """Name of the data set; override it."""
        raise NotImplementedError("override the fixture `dataset`: return a data set's name")

    @pytest.fixture
    def thing(self, dataset: str) -> Subject:
        """The data set, loaded twice."""
        return self.held.get(dataset, lambda s: s.enter_context(dataset_checks.loaded(dataset)))

    test_classes = _test(dataset_checks.check_classes)
    test_items = _test(dataset_checks.check_items)
    test_images = _test(dataset_checks.check_images)
    test_loaded_again = _test(dataset_checks.check_loaded_again)


class EngineTestCase(_Case):
    """Checks of an engine, with real workers that are never given a trial.

    Example:
        ```python
        class TestMyEngine(EngineTestCase):
            @pytest.fixture
            def engine(self):
                return "my-cluster"
        ```
    """

    @pytest.fixture
    def engine(self) -> str:
        """Name of the engine; override it."""
        raise NotImplementedError("override the fixture `engine`: return an engine's name")

    @pytest.fixture
    def thing(self, engine: str) -> Subject:
        """The engine, over a study without images."""
        return self.held.get(engine, lambda stack: stack.enter_context(engine_checks.crew(engine)))

    test_workers = _test(engine_checks.check_workers)
    test_poll = _test(engine_checks.check_poll)
    test_dead_workers = _test(engine_checks.check_dead_workers)
