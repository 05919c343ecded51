"""What a study in a database tells the machines that join it: what was asked, how data was split.

It lies in the Optuna study's user attributes, in parts that every database takes.
"""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from automl_tl.bounds import recorded_bounds
from automl_tl.errors import StudyError
from automl_tl.study_config import config_text, parse_config
from automl_tl.study_data import as_csv, as_facts, parse

if TYPE_CHECKING:
    from collections.abc import Mapping

    import optuna

    from automl_tl.study_config import Config
    from automl_tl.study_data import StudyData

_PART = "automl_tl:part:"
_PARTS = "automl_tl:parts"
_PART_BYTES = 45_000
"""Base64 of it fits MySQL's TEXT."""
_MAX_BYTES = 2**30
"""Of all of it, uncompressed: some ten million images."""


_BOUNDS = "automl_tl:bounds"


@dataclass(frozen=True, slots=True)
class Published:
    """What was published of a study.

    Attributes:
        config: Without what is each machine's own: ``data``, ``storage``, ``plugins``.
        data: The data as it was split, under the names of the machine that began.
        weights: Identity of each backbone's weights, by ``NetworkSpec.weights_id``.
    """

    config: Config
    data: StudyData
    weights: Mapping[str, str]


def publish(study: optuna.Study, published: Published) -> None:
    """Write it into the study; readers see all of it or nothing."""
    config = replace(published.config, data="", storage=None, plugins=())
    text = json.dumps(
        {
            "config": config_text(config),
            "facts": as_facts(published.data),
            "images": as_csv(published.data),
            "weights": dict(published.weights),
        }
    )
    packed = zlib.compress(text.encode())
    starts = range(0, len(packed), _PART_BYTES)
    for number, start in enumerate(starts):
        part = base64.b64encode(packed[start : start + _PART_BYTES]).decode("ascii")
        study.set_user_attr(f"{_PART}{number}", part)
    study.set_user_attr(_PARTS, len(starts))


def read_published(study: optuna.Study) -> Published | None:
    """Read it; None when nothing was published, or not all of it yet.

    Raises:
        StudyError: When it is damaged.
    """
    attributes = study.user_attrs
    if _PARTS not in attributes:
        return None
    where = f"What the study {study.study_name!r} published"
    try:
        parts = [attributes[f"{_PART}{number}"] for number in range(int(attributes[_PARTS]))]
        unpacking = zlib.decompressobj()
        packed = b"".join(base64.b64decode(part, validate=True) for part in parts)
        text = unpacking.decompress(packed, _MAX_BYTES)
        if not unpacking.eof:
            raise ValueError("it is too long or cut off")
        found = json.loads(text)
        weights = {str(key): str(value) for key, value in found["weights"].items()}
        data = parse(found["facts"], found["images"])
        return Published(parse_config(found["config"], where), data, weights)
    except (AttributeError, KeyError, TypeError, ValueError, zlib.error) as error:
        raise StudyError(f"{where} is damaged: {error!r}.") from None


def publish_bounds(study: optuna.Study, asked: Mapping[str, Any]) -> None:
    """Tell the machines that join what the study was begun with: the first to do so wins."""
    if _BOUNDS not in study.user_attrs:
        study.set_user_attr(_BOUNDS, dict(asked))


def published_bounds(study: optuna.Study, metric: str) -> dict[str, Any]:
    """Return the bounds that a study was begun with, see ``bounds.recorded_bounds``."""
    return recorded_bounds(study.user_attrs.get(_BOUNDS), metric)
