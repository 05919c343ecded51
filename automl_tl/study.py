"""The study directory: what was asked, the data as it was split, the trials' files, the result.

```
studies/NAME/
  study.toml          what was asked, enough to ask it again
  data.json           classes, broken images, notes, identity of the data
  split.csv           every image: name, class, split, SHA-256 of its bytes
  journal.log         the Optuna storage (unless --storage says otherwise)
  trials/00012/       validation_logits.npy, history.json; model.safetensors of the best few, or
                      head.safetensors while only the head of a frozen network is needed
  result.json         the best trial's figures on the test split
  bounds.json         when the last search was to end
  logs/               what the workers printed
  tensorboard/ ...    what observers write, each below its name
```
"""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from dataclasses import replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from automl_tl.bounds import recorded_bounds
from automl_tl.errors import StudyError
from automl_tl.files import intended, read_json, read_text, write_json, write_text
from automl_tl.metrics import DIRECTIONS
from automl_tl.study_config import read_config, write_config
from automl_tl.study_data import as_csv, as_facts, parse
from automl_tl.units import is_count, is_number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from automl_tl.study_config import Config
    from automl_tl.study_data import StudyData

CONFIG = "study.toml"
DATA = "data.json"
SPLIT = "split.csv"
_MODELS = {"model.safetensors", "head.safetensors"}
_OF_TRIALS = re.compile(r"(model|head|history|validation_logits|test_logits)\.\w+")
"""What the files of a trial are called."""
KEEP_MODELS = 3
"""Model files that are kept: those of the best trials."""


class StudyExists(StudyError):
    """There is a study where a new one was to be."""


class StudyDirectory:
    """A study on disk.

    Args:
        path: The directory.
        config: What was asked.
    """

    def __init__(self, path: Path, config: Config) -> None:
        self.path = path
        self.config = config
        self._models: set[Path] | None = None

    @property
    def name(self) -> str:
        """What people call it: the directory's name, also when that was copied or renamed."""
        return self.path.name

    @classmethod
    def create(cls, path: Path, config: Config, data: StudyData) -> StudyDirectory:
        """Write a new study. ``study.toml`` comes last: without it there is no study.

        Raises:
            StudyError: When there is one already, or the directory cannot be written.
        """
        check_free(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            for folder in ("trials", "logs"):
                (path / folder).mkdir(exist_ok=True)
            write_text(path / SPLIT, as_csv(data))
            write_json(path / DATA, as_facts(data))
            write_config(path / CONFIG, config)
        except OSError as error:
            raise StudyError(
                f"The study directory {path} cannot be written ({error.strerror})."
            ) from None
        return cls(path, config)

    @classmethod
    def open(cls, path: Path) -> StudyDirectory:
        """Open an existing study.

        Raises:
            StudyError: When there is none, or its files are damaged.
        """
        if path.is_file():
            raise StudyError(f"Expected a study directory, got the file {path}.")
        if not (path / CONFIG).is_file():
            raise StudyError(
                f"There is no study in {path} (no {CONFIG}): start one with `automl-tl search`."
            )
        config = read_config(path / CONFIG)
        if config.metric not in DIRECTIONS:
            raise StudyError(f"{path / CONFIG} is damaged: there is no metric {config.metric!r}.")
        return cls(path, config)

    def add_observers(self, names: Sequence[str]) -> None:
        """Name more observers in ``study.toml``; those that it names already are left as they are.

        Only while no search is at work, which would not notice.

        Raises:
            StudyError: When the directory cannot be written.
        """
        self._change(log=tuple(dict.fromkeys((*self.config.log, *names))))

    def add_plugins(self, files: Sequence[Path]) -> None:
        """Name the plugin files that are loaded now; one that was moved replaces itself.

        Raises:
            StudyError: When the directory cannot be written.
        """
        known = {PurePath(file).name: file for file in self.config.plugins}
        known |= {file.name: str(file) for file in files}
        self._change(plugins=tuple(known.values()))

    def _change(self, **values: Any) -> None:
        config = replace(self.config, **values)
        if config == self.config:
            return
        try:
            write_config(self.path / CONFIG, config)
        except OSError as error:
            raise StudyError(
                f"The study {self.path} cannot be written ({error.strerror})."
            ) from None
        self.config = config

    def data(self) -> StudyData:
        """Read the data as it was split.

        Raises:
            StudyError: When the files are damaged.
        """
        try:
            facts = read_json(self.path / DATA)
            return parse(facts, read_text(self.path / SPLIT))
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise StudyError(f"The data of the study {self.path} is damaged: {error}.") from None

    def trial(self, number: int) -> Path:
        """Return the folder of a trial's files, whether it exists or not."""
        return self.path / "trials" / f"{number:05d}"

    def model(self, number: int) -> Path:
        """Return the path of a trial's model file, whether it exists or not."""
        return self.trial(number) / "model.safetensors"

    def head(self, number: int) -> Path:
        """Return the path of a frozen trial's head, whether it exists or not."""
        return self.trial(number) / "head.safetensors"

    def log(self, worker: int) -> Path:
        """Return the path of a worker's log."""
        return self.path / "logs" / f"worker-{worker}.log"

    def keep_models(self, numbers: Sequence[int]) -> None:
        """Delete the model files of trials other than these, and what they left half-written.

        The folder is listed once; from then on each worker clears away what it wrote. What is not
        ours stays, and so does whatever links lead to.
        """
        if self._models is None:
            files = list(_regular(self.path / "trials"))
            self._models = {path for path in files if path.name in _MODELS}
            ours = {self.trial(number) for number in numbers}
            for path in files:
                half = _OF_TRIALS.fullmatch(intended(path.name) or "")
                if half and path.parent not in ours:
                    path.unlink(missing_ok=True)  # left by whom a kill ended in writing it
        keep = {path for n in numbers for path in (self.model(n), self.head(n))}
        for path in self._models - keep:
            if not (path.parent.is_symlink() or path.parent.parent.is_symlink()):
                path.unlink(missing_ok=True)
                seal(path).unlink(missing_ok=True)
        self._models = keep

    def result(self) -> dict[str, Any] | None:
        """Return the figures on the test split.

        None when they were not computed yet, or the file is damaged: they can be computed again.
        """
        try:
            result = read_json(self.path / "result.json")
        except (OSError, ValueError):
            return None
        return result if _is_result(result) else None

    def bounds(self) -> dict[str, Any]:
        """Return the bounds of the last search, by the names of ``Study.search``.

        Nothing when there was none, or the file is damaged: they can be given again.
        """
        try:
            asked = read_json(self.path / "bounds.json")
        except (OSError, ValueError):
            return {}
        return recorded_bounds(asked, self.config.metric)

    def write_bounds(self, asked: Mapping[str, Any]) -> None:
        """Remember the bounds of a search.

        Raises:
            StudyError: When the directory cannot be written.
        """
        try:
            write_json(self.path / "bounds.json", dict(asked))
        except OSError as error:
            raise StudyError(
                f"The study {self.path} cannot be written ({error.strerror})."
            ) from None

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write the figures on the test split."""
        write_json(self.path / "result.json", result)


def seal(model: Path) -> Path:
    """Return the path of a model file's checksum, whether it exists or not."""
    return model.with_suffix(".crc32")


def check_free(path: Path) -> None:
    """Check that a new study can be created at a path, before any costly work.

    Raises:
        StudyExists: When a study is there.
        StudyError: When something else is there, or it cannot be written.
    """
    if path.is_file():
        raise StudyError(f"Expected a directory for the study, got the file {path}.")
    if (path / CONFIG).exists():
        raise StudyExists(
            f"There is a study in {path} already: continue it with `automl-tl resume "
            f"{reference(path)}`, or choose another name with --study."
        )
    parent = next(folder for folder in (path, *path.parents) if folder.exists())
    if not parent.is_dir():
        raise StudyError(f"Expected a directory for the study, but {parent} is a file.")
    try:
        os.rmdir(tempfile.mkdtemp(prefix=".automl-tl-", dir=parent))
    except OSError as error:
        raise StudyError(
            f"The study directory {path} cannot be written: {parent} refuses ({error.strerror})."
        ) from None


def reference(path: Path) -> str:
    """Return what a person types to name the study at ``path`` again, quoted for a shell."""
    path, here = path.absolute(), path.cwd()
    if path.parent == here / "studies":  # where a bare name is looked for
        return shlex.quote(path.name)
    if not path.is_relative_to(here):
        return shlex.quote(str(path))
    text = str(path.relative_to(here))
    return shlex.quote(text if set(text) & {"/", "\\"} else f"./{text}")


def _regular(trials: Path) -> Iterator[Path]:
    """Yield the regular files in the folders of a folder; no link is followed."""
    if trials.is_symlink() or not trials.is_dir():
        return
    with os.scandir(trials) as entries:
        folders = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    for folder in folders:
        with os.scandir(folder) as files:
            yield from (Path(file.path) for file in files if file.is_file(follow_symlinks=False))


def _is_result(result: Any) -> bool:
    if not isinstance(result, dict) or not _are_figures(result.get("test")):
        return False
    if "ensemble" in result:
        ensemble = result["ensemble"]
        if not isinstance(ensemble, dict) or not _are_figures(ensemble.get("test")):
            return False
    return is_number(result.get("trial")) and is_number(result.get("evaluations"))


def _are_figures(test: Any) -> bool:
    """Whether these may be what ``testsplit.figures`` returned."""
    if not isinstance(test, dict):
        return False
    interval = test.get("interval")
    if not (is_count(test.get("n")) and isinstance(interval, list) and len(interval) == 2):
        return False
    return all(map(is_number, (*map(test.get, DIRECTIONS), *interval)))
