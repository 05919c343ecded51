"""optuna-dashboard on a study's own storage, with what we know of every trial.

The pages only show: requests that would change the study are refused, because deleting or renaming
it there would leave a study directory without its storage.
"""

from __future__ import annotations

import json
import re
import threading
import warnings
from contextlib import suppress
from dataclasses import dataclass
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from optuna.exceptions import ExperimentalWarning

from automl_tl.dashboard_text import MARK, attributes, study_note, trial_note
from automl_tl.errors import StudyError, UsageError
from automl_tl.facts import facts_of
from automl_tl.recorded import open_study
from automl_tl.report.write import NAME
from automl_tl.summary import summarise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from wsgiref.types import StartResponse, WSGIEnvironment

    import optuna

    from automl_tl.study import StudyDirectory
    from automl_tl.study_data import StudyData

    Application = Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]

HOST = "127.0.0.1"
REFRESH_SECONDS = 5.0
_HERE = re.compile(rf"(?i)(localhost|{re.escape(HOST)}|\[::1\])(:\d+)?")
"""This machine in a request's Host; a page of another's can make its own name lead here."""


@dataclass(frozen=True, slots=True)
class _Noted:
    """A finished trial as ``optuna_dashboard`` wants it, which only knows running ones."""

    study: optuna.Study
    storage: Any
    _trial_id: int


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


class Dashboard:
    """Serves the pages of one study on this machine, to nobody else.

    Args:
        directory: The study directory.
        data: The study's data.
        port: To listen on; 0 takes a free one.

    Attributes:
        url: Of the study's page.

    Raises:
        UsageError: When optuna-dashboard is not installed.
        StudyError: When the study cannot be opened or the port is taken.
    """

    def __init__(self, directory: StudyDirectory, data: StudyData, port: int) -> None:
        try:
            import optuna_dashboard
        except ModuleNotFoundError:
            raise UsageError(
                "The dashboard needs optuna-dashboard, which is not installed: install automl-tl "
                "with its extra, `pip install 'automl-tl[dashboard]'`."
            ) from None
        self._directory = directory
        self._data = data
        self._study = open_study(directory)
        application = optuna_dashboard.wsgi(self._study._storage)
        try:
            self._server = _Server((HOST, port), _Quiet)
        except OSError as error:
            raise StudyError(
                f"The dashboard cannot listen on port {port} ({error.strerror}): choose another "
                "with --port."
            ) from None
        self._server.set_app(self._guarded(application))
        where = f"http://{HOST}:{self._server.server_port}"
        self.url = f"{where}/dashboard/studies/{self._study._study_id}"
        self._closed = threading.Event()
        self._notes: dict[Any, str] = {}

    def serve(self) -> None:
        """Serve until ``close`` or Ctrl-C, keeping the notes up to date."""
        self.annotate()
        threading.Thread(target=self._refresh, daemon=True).start()
        try:
            self._server.serve_forever()
        finally:
            self._closed.set()
            self._server.server_close()

    def close(self) -> None:
        """End ``serve``, from another thread."""
        self._server.shutdown()

    def annotate(self) -> None:
        """Write the notes that are missing or no longer true; nothing else changes."""
        import optuna_dashboard

        facts = summarise(self._directory, self._data, self._study)
        shared = self._study._storage
        notes: dict[Any, str] = {
            _Noted(self._study, shared, frozen._trial_id): trial_note(trial, facts)
            for trial, frozen in _finished(facts, self._study)
        }
        notes[self._study] = study_note(facts, (self._directory.path / NAME).is_file())
        for place, note in notes.items():
            if self._notes.get(place) != note:
                stored = optuna_dashboard.get_note(place)
                if stored != note and (not stored or stored.startswith(MARK)):
                    optuna_dashboard.save_note(place, note)
                self._notes[place] = note
        self._name_metric()

    def _name_metric(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            names = [self._directory.config.metric]
            if self._study.metric_names != names:
                self._study.set_metric_names(names)

    def _refresh(self) -> None:
        while not self._closed.wait(REFRESH_SECONDS):
            with suppress(Exception):  # a storage that is busy now is read at the next round
                self.annotate()

    def _guarded(self, application: Application) -> Application:
        report = self._directory.path / NAME
        detail = f"/api/studies/{self._study._study_id}"

        def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
            host = environ.get("HTTP_HOST", "")
            if not _HERE.fullmatch(host):
                start("403 Forbidden", [("Content-Type", "application/json")])
                return [json.dumps({"reason": self._not_here(host)}).encode()]
            if environ["REQUEST_METHOD"] not in {"GET", "HEAD"}:
                start("405 Method Not Allowed", [("Content-Type", "application/json")])
                return [b'{"reason": "This dashboard only shows; it changes nothing."}']
            if environ["PATH_INFO"] == "/report" and report.is_file():
                start("200 OK", [("Content-Type", "text/html; charset=utf-8")])
                return [report.read_bytes()]
            if environ["PATH_INFO"] == detail:
                return self._flat(application, environ, start)
            return application(environ, start)

        return answer

    def _not_here(self, host: str) -> str:
        return (
            f"Expected a request to localhost, {HOST} or [::1], got one to {host!r}: open "
            f"http://{HOST}:{self._server.server_port}."
        )

    def _flat(
        self, application: Application, environ: WSGIEnvironment, start: StartResponse
    ) -> Iterable[bytes]:
        """Answer with the study, our nested facts of a trial as attributes of their own.

        Each thereby is a column, and a number an axis of optuna-dashboard's plots.
        """
        said: list[Any] = []

        def begin(*arguments: Any) -> Callable[[bytes], object]:
            said[:] = arguments
            return lambda _: None

        body = b"".join(application(environ, begin))
        if said[0].startswith("200"):
            body = json.dumps(self._flattened(json.loads(body))).encode()
        headers = [(name, value) for name, value in said[1] if name != "Content-Length"]
        start(said[0], headers)
        return [body]

    def _flattened(self, study: dict[str, Any]) -> dict[str, Any]:
        stored = self._study.get_trials(deepcopy=False)
        columns: dict[str, bool] = {}
        for trial in stored:
            for name, value in attributes(facts_of(trial)).items():
                columns[name] = columns.get(name, True) and not isinstance(value, str)
        for trial in (*study["trials"], *study["best_trials"]):
            facts = facts_of(stored[trial["number"]])
            trial["user_attrs"] = [
                {"key": name, "value": str(value)} for name, value in attributes(facts).items()
            ]
        study["union_user_attrs"] = [
            {"key": name, "sortable": number} for name, number in columns.items()
        ]
        return study


def _finished(
    facts: Mapping[str, Any], study: optuna.Study
) -> list[tuple[Mapping[str, Any], optuna.trial.FrozenTrial]]:
    frozen = study.get_trials(deepcopy=False)
    done = {"complete", "pruned", "failed"}
    return [(trial, frozen[trial["number"]]) for trial in facts["trials"] if trial["state"] in done]
