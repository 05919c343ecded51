"""``digits``: scikit-learn's 1,797 scans of handwritten digits, written once as PNG files."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from automl_tl.errors import DataError

if TYPE_CHECKING:
    from automl_tl.data.index import DataIndex

VERSION = "1"


def load(cache_directory: Path) -> DataIndex:
    """Return the digits as a plain folder of classes; needs no network.

    The files are ``cache_directory/datasets/digits-1/<class>/<nnnn>.png``, 8 x 8 pixels, greys from
    0 to 255, numbered as in ``sklearn.datasets.load_digits``. They are written on the first call.

    Raises:
        DataError: When the folder cannot be written.
    """
    from automl_tl.data.sources import folder

    place = cache_directory / "datasets" / f"digits-{VERSION}"
    if not place.is_dir():
        try:
            _write(place)
        except OSError as error:
            raise DataError(
                f"The digits cannot be written to {place} ({error.strerror}): choose a cache "
                "folder that can be."
            ) from None
    return folder(place, name="digits", source="digits")


def _write(place: Path) -> None:
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    place.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        for label in range(10):
            (aside / str(label)).mkdir()
        greys = (digits.images * (255 / 16)).round().astype("uint8")
        for number, (grey, label) in enumerate(zip(greys, digits.target, strict=True)):
            Image.fromarray(grey).save(aside / str(label) / f"{number:04d}.png")
        aside.chmod(0o755)
        with suppress(OSError):  # another process was first
            aside.rename(place)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    if not place.is_dir():
        raise OSError(None, "the folder could not be renamed into place")
