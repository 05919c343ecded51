"""Trials' files where every machine of a study finds them: a shared folder, or an S3 bucket."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from automl_tl.errors import StudyError, UsageError
from automl_tl.facts import FACTS, FILES, is_artifact
from automl_tl.files import written_aside
from automl_tl.storage import best_trials
from automl_tl.study import KEEP_MODELS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import optuna
    from optuna.artifacts._protocol import ArtifactStore
    from optuna.trial import FrozenTrial

    from automl_tl.study import StudyDirectory

MODELS = ("model.safetensors", "head.safetensors")
FIGURES = ("validation_logits.npy", "history.json")
_S3 = "s3://"


class Artifacts:
    """Optuna's artifact store at a place that a person names.

    Args:
        location: A folder, or ``s3://BUCKET`` with a path below it.

    Raises:
        UsageError: When it cannot be one, or the package boto3 is missing.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        self._store = _Own(*_open(location))

    def make(self) -> None:
        """Make the folder, for a study that begins, and check it.

        Raises:
            UsageError: When that fails.
        """
        if folder := self._folder():
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(
                    f"--artifacts {self.location} cannot be made ({error.strerror})."
                ) from None
        self.check()

    def check(self) -> None:
        """Check that a file can be written there.

        Raises:
            UsageError: When it cannot, or when the folder is not there: one that the study has
                used before, and which is not seen here.
        """
        folder = self._folder()
        if folder and not folder.is_dir():
            raise UsageError(
                f"The folder {self.location} that --artifacts names is not on this machine: mount "
                "the one that the study's other machines use, or give its place here."
            )
        name = str(uuid.uuid4())
        try:
            self._store.write(name, io.BytesIO(b"automl-tl"))
            self._store.remove(name)
        except Exception as error:  # boto3 raises whatever it likes
            raise UsageError(f"--artifacts {self.location} cannot be written: {error}") from None

    def put(self, trial: optuna.Trial, files: Iterable[Path]) -> dict[str, dict[str, str]]:
        """Put a running trial's files there; returns what ``FILES`` records.

        Raises:
            StudyError: When that fails.
        """
        from optuna.artifacts import upload_artifact

        known = {}
        for path in files:
            try:
                number = upload_artifact(
                    artifact_store=self._store, file_path=str(path), study_or_trial=trial
                )
            except Exception as error:  # see check
                raise StudyError(
                    f"{path.name} of trial {trial.number} cannot be put into {self.location} "
                    f"({error}); it is on this machine, in {path.parent}."
                ) from None
            known[path.name] = {"id": number, "sha256": _sha256(path)}
        return known

    def bring(self, directory: StudyDirectory, study: optuna.Study) -> None:
        """Fetch what this machine lacks of the finished trials' files.

        Models of the best trials only. A file that is no longer there stays away.

        Raises:
            StudyError: When one is not what was put there, or the folder cannot be written.
        """
        for rank, trial in enumerate(best_trials(study)):
            wanted = (*MODELS, *FIGURES) if rank < KEEP_MODELS else FIGURES
            known = trial.user_attrs[FACTS].get(FILES) or {}
            folder = directory.trial(trial.number)
            if any((folder / name).is_file() for name in MODELS):
                wanted = FIGURES
            for name in wanted:
                if name in known and not (folder / name).is_file():
                    self._fetch(known[name], folder / name)

    def drop_models(self, ranked: Sequence[FrozenTrial], dropped: set[str]) -> None:
        """Delete the models of trials that are no longer among the best.

        Args:
            ranked: Complete trials, best first.
            dropped: Artifacts that were deleted already; those of now are added.
        """
        for trial in ranked[KEEP_MODELS:]:
            known = trial.user_attrs[FACTS].get(FILES) or {}
            for one in (known[name]["id"] for name in MODELS if name in known):
                if one not in dropped:
                    dropped.add(one)
                    with suppress(Exception):  # another machine was first, or it stays as it is
                        self._store.remove(one)

    def _folder(self) -> Path | None:
        return None if self.location.startswith(_S3) else Path(self.location)

    def _fetch(self, known: Mapping[str, Any], path: Path) -> None:
        from optuna.artifacts import download_artifact
        from optuna.artifacts.exceptions import ArtifactNotFound

        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with written_aside(path) as aside:
                download_artifact(
                    artifact_store=self._store, artifact_id=str(known["id"]), file_path=str(aside)
                )
                if _sha256(aside) != known["sha256"]:
                    raise StudyError(
                        f"{path.name} in {self.location} is not what was put there "
                        f"({known['id']}): it is damaged."
                    )
        except ArtifactNotFound:
            return
        except StudyError:
            raise
        except Exception as error:  # see check
            raise StudyError(
                f"{path.name} cannot be fetched from {self.location}: {error}"
            ) from None


def artifacts_absolute(location: str | None) -> str | None:
    """Return a location that is found from every folder."""
    if location is None or location.startswith(_S3):
        return location
    return str(Path(location).expanduser().absolute())


def bring(directory: StudyDirectory, study: optuna.Study) -> None:
    """Fetch the files of trials that other machines trained, where the study has artifacts."""
    if directory.config.artifacts:
        Artifacts(directory.config.artifacts).bring(directory, study)


class _Own:
    """The part of an artifact store that holds nothing but artifacts, wherever a study says it is.

    Args:
        store: Optuna's.
        prefix: Of the names in a bucket, or the path of a folder.
    """

    def __init__(self, store: ArtifactStore, prefix: str | Path) -> None:
        self._store = store
        self._prefix = prefix

    def open_reader(self, artifact_id: str) -> BinaryIO:
        return self._store.open_reader(self._checked(artifact_id))

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        self._store.write(self._checked(artifact_id), content_body)

    def remove(self, artifact_id: str) -> None:
        self._store.remove(self._checked(artifact_id))

    def _checked(self, artifact_id: str) -> str:
        """Return the name in Optuna's store; raises ``ValueError`` for what is no artifact."""
        if not is_artifact(artifact_id):
            raise ValueError(f"expected an artifact's UUID, got {artifact_id!r}.")
        if isinstance(self._prefix, str):
            return self._prefix + artifact_id
        path = self._prefix / artifact_id
        if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
            raise ValueError(f"expected a file, got a link, device or folder at {path}.")
        return artifact_id


def _open(location: str) -> tuple[ArtifactStore, str | Path]:
    """Return the arguments of ``_Own``."""
    from optuna.artifacts import Boto3ArtifactStore, FileSystemArtifactStore

    if location.startswith(_S3):
        bucket, _, prefix = location.removeprefix(_S3).partition("/")
        if not bucket:
            raise UsageError(f"Expected --artifacts s3://BUCKET/PATH, got {location!r}.")
        try:
            store = Boto3ArtifactStore(bucket)
        except ImportError:
            raise UsageError(
                f'--artifacts {location} needs the Python package boto3: pip install "automl-tl'
                '[s3]".'
            ) from None
        except Exception as error:  # boto3 raises whatever it likes
            raise UsageError(f"--artifacts {location} cannot be opened: {error}") from None
        return store, f"{prefix.strip('/')}/" if prefix.strip("/") else ""
    if "://" in location:
        raise UsageError(f"Expected --artifacts to be a folder or s3://BUCKET, got {location!r}.")
    return FileSystemArtifactStore(location), Path(location)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
