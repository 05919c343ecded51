"""The forms of weights files, read as data: HDF5 of old and new Keras, ``.keras``, safetensors."""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
import tempfile
import zipfile
from typing import TYPE_CHECKING, Any, BinaryIO

from automl_tl.errors import AutoMLError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import h5py
    import keras

    Layers = list[tuple[str, list[Any]]]
    """Layers with weights in execution order: their names and their arrays, in legacy order.

    An array has a ``shape`` and is read by ``array[()]``.
    """

_HDF5 = b"\x89HDF\r\n\x1a\n"
_ZIP = b"PK\x03\x04"
_INSIDE = "model.weights.h5"
_FREE_BYTES = 10**8
_MAX_RATIO = 200
"""More bytes than this for one byte of archive are taken for a bomb, from ``_FREE_BYTES`` on."""


class Foreign(AutoMLError):
    """The file belongs to another network."""


class Damaged(AutoMLError):
    """The file is no weights file, or a damaged one."""


@contextlib.contextmanager
def opened(path: Path, network: keras.Model) -> Iterator[Layers]:
    """Open a weights file, told apart by its content.

    Args:
        path: The file.
        network: Tells the order of layers where the file does not.

    Yields:
        The layers in the file; their arrays can be read until the file is closed.

    Raises:
        OSError: When the file cannot be opened.
        Foreign: When it lacks layers of the network, where it is known by their names.
        Damaged: When it cannot be understood; also while arrays are read.
    """
    with path.open("rb") as file:
        head = file.read(9)
        file.seek(0)
        try:
            if head.startswith(_HDF5):
                with _hdf5(file, network) as layers:
                    yield layers
            elif head.startswith(_ZIP):
                with _archive(file, network) as layers:
                    yield layers
            elif head[8:] == b"{":
                yield _safetensors(path, network)
            else:
                raise Damaged("its first bytes are those of no such file")
        except AutoMLError:
            raise
        except Exception as error:  # libraries raise anything on damaged files
            raise Damaged(str(error) or type(error).__name__) from error


def legacy_weights(layer: keras.Layer) -> list[keras.Variable]:
    """Return a layer's weights in the order of old ``.h5`` files."""
    return [*layer.trainable_weights, *layer.non_trainable_weights]


@contextlib.contextmanager
def _archive(file: BinaryIO, network: keras.Model) -> Iterator[Layers]:
    """A ``.keras`` file: a zip with the weights as HDF5, which needs random access."""
    with zipfile.ZipFile(file) as archive:
        if _INSIDE not in archive.namelist():
            raise Damaged(f"a zip file without {_INSIDE}")
        info = archive.getinfo(_INSIDE)  # no more than it says is read
        if info.file_size > max(_FREE_BYTES, _MAX_RATIO * info.compress_size):
            raise Damaged(f"its weights unpack to more than {_MAX_RATIO} times their size")
        with archive.open(_INSIDE) as member, tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(member, copy)
            with _hdf5(copy, network) as layers:
                yield layers


@contextlib.contextmanager
def _hdf5(file: Any, network: keras.Model) -> Iterator[Layers]:
    import h5py

    with h5py.File(file, "r") as root:
        group = root["model_weights"] if "model_weights" in root else root
        # Links are not followed: they may lead to other files.
        arrays: dict[str, h5py.Dataset] = {}

        def note(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                arrays[name] = item

        group.visititems(note)
        if any(a.external or a.is_virtual or a.dtype.kind not in "fiu" for a in arrays.values()):
            raise Damaged("it holds something other than tensors")
        if "layer_names" in group.attrs or "layer_names0" in group.attrs:
            yield _legacy(network, group, arrays)
        else:
            yield _nested(network, arrays)


def _legacy(network: keras.Model, group: h5py.Group, arrays: Mapping[str, h5py.Dataset]) -> Layers:
    """Layers by order, as ``keras.applications`` publishes them.

    Within a layer that was frozen in part the order is another; there the names tell, if they are
    the network's.
    """
    paths = {layer.name: [v.path for v in legacy_weights(layer)] for layer in network.layers}
    layers = []
    for name in _attribute(group, "layer_names"):
        names = {one.removesuffix(":0"): one for one in _attribute(group[name], "weight_names")}
        if names:
            wanted = paths.get(name, [])
            order = wanted if names.keys() == set(wanted) else names
            layers.append((name, [arrays[f"{name}/{names[one]}"] for one in order]))
    return layers


def _attribute(group: h5py.Group, name: str) -> list[str]:
    """Read a list of names; long ones are cut into ``NAME0``, ``NAME1``, ..."""
    if name in group.attrs:
        parts = [group.attrs[name]]
    else:
        keys = (f"{name}{number}" for number in itertools.count())
        parts = [group.attrs[key] for key in itertools.takewhile(group.attrs.__contains__, keys)]
    return [one.decode() if isinstance(one, bytes) else str(one) for part in parts for one in part]


def _nested(network: keras.Model, arrays: Mapping[str, Any]) -> Layers:
    """Layers by the places of Keras 3, where each is counted within its class."""
    kept = {name: a for name, a in arrays.items() if "seed_generator" not in name}
    own = [(layer.name, _places(layer, place)) for layer, place in _counted(network, "")]
    own = [(name, places) for name, places in own if places]
    first = own[0][1][0]
    roots = {name.removesuffix(first) for name in kept if name.endswith(first)}
    if not roots:
        raise Foreign(f"it has no {first}")
    root = min(roots, key=lambda root: sum(root + p not in kept for _, ps in own for p in ps))
    layers = [(name, _take(kept, [root + place for place in places])) for name, places in own]
    used = {root + place for _, places in own for place in places}
    spare: dict[str, list[Any]] = {}
    for name in sorted(kept.keys() - used):
        if name.startswith(f"{root}layers/"):
            spare.setdefault(name.rpartition("/vars/")[0], []).append(kept[name])
    return [*layers, *spare.items()]


def _counted(network: keras.Model, prefix: str) -> Iterator[tuple[keras.Layer, str]]:
    seen: dict[str, int] = {}
    for layer in network.layers:
        kind = _snake_case(type(layer).__name__)
        count = seen[kind] = seen.get(kind, -1) + 1
        yield layer, f"{prefix}layers/{kind}_{count}" if count else f"{prefix}layers/{kind}"


def _places(layer: keras.Layer, place: str) -> list[str]:
    """Return the places of a layer's weights, in legacy order."""
    if hasattr(layer, "layers"):
        parts = [(inner, _places(inner, at)) for inner, at in _counted(layer, f"{place}/")]
        by_variable = {
            id(variable): at
            for inner, places in parts
            for variable, at in zip(legacy_weights(inner), places, strict=True)
        }
    else:
        by_variable = {id(v): f"{place}/vars/{i}" for i, v in enumerate(layer.weights)}
    return [by_variable[id(variable)] for variable in legacy_weights(layer)]


def _safetensors(path: Path, network: keras.Model) -> Layers:
    """Layers by the names of ``Network.tensors``."""
    from safetensors.numpy import load_file

    arrays = load_file(path)
    if any(name.startswith("backbone.") for name in arrays):
        arrays = {
            name.removeprefix("backbone."): array
            for name, array in arrays.items()
            if name.startswith("backbone.")
        }
    layers, used = [], set()
    for layer in network.layers:
        names = [_tensor_name(layer.name, v.path) for v in legacy_weights(layer)]
        if names:
            used.update(names)
            layers.append((layer.name, _take(arrays, names)))
    spare: dict[str, list[Any]] = {}
    for name in sorted(arrays.keys() - used):
        spare.setdefault(name.partition("/")[0], []).append(arrays[name])
    return [*layers, *spare.items()]


def _tensor_name(layer: str, path: str) -> str:
    return path if path.startswith(f"{layer}/") else f"{layer}/{path}"


def _take(arrays: Mapping[str, Any], names: list[str]) -> list[Any]:
    missing = [name for name in names if name not in arrays]
    if missing:
        raise Foreign(f"it has no {missing[0]}")
    return [arrays[name] for name in names]


def _snake_case(name: str) -> str:
    """Spell a class as Keras does in its files."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
