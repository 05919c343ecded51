"""The Python interface: a study, as an object."""

from __future__ import annotations

import time as clock
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_tl import join, plugin_files, prepare, summary
from automl_tl.artifacts import artifacts_absolute, bring
from automl_tl.asked import Asked
from automl_tl.best import Best
from automl_tl.cache.store import Store
from automl_tl.errors import StudyError, UsageError
from automl_tl.guard import at_work_on
from automl_tl.needed import check_files
from automl_tl.plugins import get_plugins, use_files
from automl_tl.recorded import open_study
from automl_tl.search import Search
from automl_tl.search_bounds import search_bounds
from automl_tl.stages import as_events, silent
from automl_tl.storage import sqlite_absolute
from automl_tl.study import StudyDirectory
from automl_tl.units import is_count

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import optuna

    from automl_tl.deliver_ensemble import EnsembleReport
    from automl_tl.export import ExportReport
    from automl_tl.networks import Networks
    from automl_tl.stages import Stage
    from automl_tl.study_data import StudyData

    Listener = Callable[[Mapping[str, Any]], None]


class Study:
    """A search and everything it found. Make one with ``create`` or ``open``."""

    def __init__(
        self,
        directory: StudyDirectory,
        data: StudyData,
        networks: Networks | None = None,
        store: Store | None = None,
    ) -> None:
        self._directory = directory
        self._data = data
        self._networks = networks
        self._store = store

    @classmethod
    def create(
        cls,
        directory: str | Path,
        data: str | Path,
        *,
        backbones: Sequence[str] = (),
        weights: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
        metric: str = "accuracy",
        seed: int = 0,
        storage: str | None = None,
        artifacts: str | None = None,
        log: Sequence[str] = (),
        first: Sequence[Mapping[str, Any]] = (),
        plugins: Sequence[str | Path] = (),
        device: str = "auto",
        listener: Listener | None = None,
        deadline: float = float("inf"),
    ) -> Study:
        """Open the data, decode it once, split it, and write a new study directory.

        One whose database holds the study already is joined.

        Args:
            directory: To create.
            data: A folder with a sub-folder a class, the same below ``train/``, ``val/`` and
                ``test/``, a CSV with ``path,label[,split]``, an archive of these, or a name.
            backbones: Globs; the recommended ones without any.
            weights: A backbone's key or glob to ``imagenet``, ``none`` or a path.
            settings: Parameters to fix, narrow or widen: a value, a list, or
                ``{"low": ..., "high": ...}``.
            metric: ``accuracy``, ``balanced_accuracy``, ``macro_f1`` or ``log_loss``.
            seed: Of the split, the sampler and the training.
            storage: Optuna storage URL; a journal in the directory by default. A database that
                holds a study of this name is joined: everything but the data, which must be the
                same by content, is then the study's.
            artifacts: A folder that all machines of the study see, or ``s3://BUCKET/PATH``: the
                trials' files are put there, so that every machine can export every model.
            log: Names of observers to tell of every epoch and trial: ``tensorboard``, ``mlflow``.
            first: The trials to begin with, instead of ours: each maps ``backbone``, which may be
                left out where there is one, and parameters to values that are searched.
            plugins: Python files to load as plugins, here and in all processes of the search.
            device: That ``search`` will be given, checked before anything is created.
            listener: Told notes and progress, see ``search``.
            deadline: ``time.monotonic()`` at which to give up reading images; the download of a
                named data set gets half of the time until then, and weights half of the rest.

        Raises:
            AutoMLError: One sentence about what is wrong.
        """
        use_files(plugins)
        tell = listener or _ignore
        path = Path(directory).expanduser().absolute()
        asked = Asked(
            data=str(data),
            backbones=backbones,
            weights=weights or {},
            settings=settings or {},
            metric=metric,
            seed=seed,
            storage=sqlite_absolute(storage),
            artifacts=artifacts_absolute(artifacts),
            log=log,
            first=first,
            device=device,
        )
        store = Store()
        made = join.create_or_join(
            path,
            asked,
            store=store,
            tell=lambda text, kind: tell({"event": kind, "text": text}),
            stage=as_events(tell, deadline),
            deadline=deadline,
        )
        return cls(*made, store)

    @classmethod
    def open(cls, directory: str | Path, plugins: Sequence[str | Path] = ()) -> Study:
        """Open an existing study.

        Args:
            directory: The study directory.
            plugins: Python files to load as plugins. Those that the study was searched with are
                not loaded by themselves, because a study may come from a stranger.

        Raises:
            StudyError: When there is none, or it is damaged.
            UsageError: When a plugin file is not there.
        """
        use_files(plugins)
        found = StudyDirectory.open(Path(directory).expanduser().absolute())
        return cls(found, found.data())

    @property
    def directory(self) -> Path:
        """The study directory."""
        return self._directory.path

    @property
    def name(self) -> str:
        """The study's name."""
        return self._directory.name

    @property
    def metric(self) -> str:
        """What is optimised."""
        return self._directory.config.metric

    def search(
        self,
        *,
        trials: int | None = None,
        time: str | float | None = None,
        target: float | None = None,
        trial_timeout: str | float | None = None,
        workers: int | None = None,
        workers_per_device: int | None = None,
        device: str = "auto",
        engine: str = "local",
        engine_options: Mapping[str, Any] | None = None,
        log: Sequence[str] = (),
        listener: Listener | None = None,
        started: float | None = None,
    ) -> dict[str, Any]:
        """Search until a bound is reached, Ctrl-C comes, or nothing can succeed.

        Args:
            trials: Finished trials of the study in all.
            time: Wall time, seconds or ``30m``; it holds, the test figures included. Without any
                bound, those of the study's last search count again.
            target: Value of the metric that is good enough.
            trial_timeout: Longest that a trial may take, seconds or ``5m``. It then ends with the
                model so far, or fails when it has none, and is not tried again; a framework that
                does not obey within ten seconds is ended. Without one, that of the study's last
                search counts on, whatever other bounds are given.
            workers: Processes in all; one a GPU by default, else one. Another engine may choose
                otherwise.
            workers_per_device: Processes that share each GPU, or the CPU, instead of ``workers``.
                Fewer of them train at a time once a trial's memory says that they do not fit.
            device: ``auto``, ``cpu``, ``cuda:0``, ...
            engine: What starts the workers: ``local``, ``ray``, ...
            engine_options: What else it takes: ``{"address": ..., "gpus_per_trial": 0.25}``.
            log: Names of more observers to tell of every epoch and trial from now on.
            listener: Told everything that happens, as dicts with an ``event``: ``study``,
                ``stage``, ``trial_asked``, ``trial_started``, ``epoch``, ``trial_finished``,
                ``note``, ``warning``, ``worker_died``, ``stopping``, ``finished``.
            started: ``time.monotonic()`` from which ``time`` counts; now by default.

        Returns:
            ``summary()``.

        Raises:
            StudyError: When another search is at work, or no trial succeeded.
            UsageError: When a bound makes no sense, there is no such observer, engine or option of
                it, or a plugin file of the study is not loaded.
        """
        tell = listener or _ignore
        options = engine_options or {}
        get_plugins().engine(engine, options)
        _check_counts(workers, workers_per_device)
        check_files(self._directory.config)
        observers = [get_plugins().observer(name) for name in log]
        with at_work_on(self._directory):
            self._directory.add_observers(observers)
            self._directory.add_plugins(plugin_files.listed())
            bounds = search_bounds(
                self._directory, trials, time, target, trial_timeout, started=started, tell=tell
            )
            store = self._cache()
            self._networks = self._networks or prepare.open_networks(
                self._directory,
                self._data,
                device,
                store,
                as_events(tell, bounds.deadline),
                bounds.deadline,
            )
            search = Search(self._directory, self._data, self._networks, store, bounds, tell)
            reason = search.run(workers, device, engine, options, workers_per_device or 1)
        facts = self.summary()
        tell(
            {
                "event": "finished",
                "reason": reason,
                "state": facts["state"],
                "best": facts["best"],
                "seconds": clock.monotonic() - bounds.started,
            }
        )
        return facts

    def summary(self) -> dict[str, Any]:
        """Return everything that is known of the study, JSON-ready."""
        return summary.summarise(self._directory, self._data, open_study(self._directory))

    @property
    def best(self) -> Best:
        """The best trial.

        Raises:
            StudyError: When no trial is complete yet.
        """
        facts = self.summary()["best"]
        if facts is None:
            raise StudyError(f"The study {self.name} has no finished trial yet: search first.")
        return Best(self, facts)

    def export(
        self,
        path: str | Path,
        format: str | None = None,
        trial: int | None = None,
        calibrate: bool = False,
        stage: Stage = silent,
    ) -> ExportReport:
        """Export a trial's model and prove that the file agrees with it.

        Args:
            path: The file to write; its suffix tells the format when ``format`` does not.
            format: One of the backend's formats; ONNX by default.
            trial: Number of the trial; the best one by default.
            calibrate: Divide the logits by the temperature that fits the validation split best, so
                that the probabilities say how often the model is right; no prediction changes.
            stage: Told how far it is.

        Raises:
            ExportError: When the trial's model is not kept, no temperature can be fitted, or the
                file does not agree; nothing is left behind then.
        """
        from automl_tl.deliver import export_trial

        check_files(self._directory.config)
        return export_trial(
            self._directory,
            self._data,
            self._study(),
            self._cache(),
            Path(path).expanduser().absolute(),
            format,
            trial,
            calibrate,
            stage,
        )

    def export_ensemble(
        self, path: str | Path, calibrate: bool = False, stage: Stage = silent
    ) -> EnsembleReport:
        """Export the kept trials that are better together than the best alone, as one ONNX file.

        Args:
            path: The file to write.
            calibrate: As for ``export``.
            stage: As for ``export``.

        Raises:
            ExportError: When no ensemble is better than the best trial, no temperature can be
                fitted, or the file does not agree with its members; nothing is left behind then.
            UsageError: When the path says another format, or the package onnx is not installed.
        """
        from automl_tl.deliver_ensemble import export_ensemble

        check_files(self._directory.config)
        destination = Path(path).expanduser().absolute()
        return export_ensemble(
            self._directory,
            self._data,
            self._study(),
            self._cache(),
            destination,
            calibrate,
            stage,
        )

    def report(self, path: str | Path | None = None) -> Path:
        """Write a page that says everything of the study and needs no other file.

        Args:
            path: The HTML file; ``report.html`` in the study directory by default.

        Returns:
            The file.

        Raises:
            UsageError: When plotly is not installed.
            StudyError: When the file cannot be written.
        """
        from automl_tl.report.write import write_report

        destination = Path(path).expanduser().absolute() if path else None
        study = self._study()
        return write_report(self._directory, self._data, study, self._cache(), destination)

    def _study(self) -> optuna.Study:
        """Open the Optuna study, its trials' files brought here."""
        study = open_study(self._directory)
        bring(self._directory, study)
        return study

    def _cache(self) -> Store:
        self._store = self._store or Store()
        return self._store


def _check_counts(workers: int | None, workers_per_device: int | None) -> None:
    if workers and workers_per_device:
        raise UsageError("Expected workers or workers_per_device, got both: give one of them.")
    for name, count in (("workers", workers), ("workers_per_device", workers_per_device)):
        if count is not None and not is_count(count):
            raise UsageError(f"{name}: expected a whole number from 1, got {count!r}.")


def _ignore(event: Mapping[str, Any]) -> None:
    pass
