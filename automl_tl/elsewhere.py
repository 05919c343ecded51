"""A worker on another machine, whose cache, files and cores it has, not the supervisor's."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_tl import prepare
from automl_tl.cache.store import Store
from automl_tl.errors import WeightsError
from automl_tl.machine import available_cpus
from automl_tl.networks import weights_file
from automl_tl.plugins import get_plugins, use_files
from automl_tl.stages import as_events
from automl_tl.study import StudyDirectory
from automl_tl.weights import location

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from automl_tl.networks import Networks
    from automl_tl.worker_setup import Setup


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What a worker is told that may run on another machine.

    Attributes:
        setup: As it would be on the supervisor's machine.
        plugins: Plugin files to load, absolute.
    """

    setup: Setup
    plugins: tuple[Path, ...] = ()

    def settle(self, say: Callable[[Mapping[str, Any]], None]) -> Setup:
        """Return the setup for the machine that this runs on, its images decoded.

        Args:
            say: Told how far that is.

        Raises:
            AutoMLError: What this machine lacks: the study, the images, weights, a plugin.
        """
        use_files(self.plugins)
        store = Store()
        found = StudyDirectory.open(self.setup.directory)
        config = replace(found.config, weights=_weights_here(found.config.weights))
        study = StudyDirectory(found.path, config)

        def stage(event: Mapping[str, Any]) -> None:
            say({key: value for key, value in event.items() if key != "worker"})

        networks = prepare.open_networks(
            study, study.data(), self.setup.device, store, as_events(stage, float("inf"))
        )
        _check_weights(networks, self.setup.networks)
        threads = _threads()
        return replace(
            self.setup,
            networks=networks,
            gpu=None,
            threads=threads,
            host_threads=threads,
            cache=store.root,
            cache_bytes=store.max_bytes,
        )


def _weights_here(weights: Mapping[str, str]) -> dict[str, str]:
    """Return where this machine keeps weights; published ones may lie, or be put, elsewhere."""
    here = dict(weights)
    for key, recorded in weights.items():
        published = get_plugins().backbone(key).pretrained
        if recorded == "none" or published is None or Path(recorded).is_file():
            continue
        if published.hub or location(published).name == Path(recorded).name:
            here[key] = weights_file(get_plugins().backbone(key), None)
    return here


def _check_weights(here: Networks, there: Networks) -> None:
    known = {key: spec.weights_id for (key, _), spec in there.specs.items()}
    other = {key for (key, _), spec in here.specs.items() if spec.weights_id != known.get(key)}
    if other:
        raise WeightsError(
            f"The weights of {', '.join(sorted(other))} on this machine are not those of the "
            "study: copy the study's to the same path."
        )


def _threads() -> int:
    granted = os.environ.get("OMP_NUM_THREADS", "")
    return int(granted) if granted.isdecimal() and int(granted) else available_cpus()
