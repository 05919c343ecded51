"""Writes a study's report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from automl_tl.errors import StudyError
from automl_tl.files import write_text
from automl_tl.report import figures, model_plots, page
from automl_tl.report.facts import gather
from automl_tl.report.images import Images
from automl_tl.summary import summarise

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import optuna

    from automl_tl.cache.store import Store
    from automl_tl.report.figures import Figure
    from automl_tl.study import StudyDirectory
    from automl_tl.study_data import StudyData

NAME = "report.html"


def write_report(
    directory: StudyDirectory,
    data: StudyData,
    study: optuna.Study,
    store: Store,
    destination: Path | None = None,
) -> Path:
    """Write a study's report, aside and renamed.

    Args:
        directory: The study directory.
        data: The study's data.
        study: The Optuna study.
        store: The cache.
        destination: The file; ``report.html`` in the study directory by default.

    Returns:
        The file.

    Raises:
        UsageError: When plotly is not installed.
        StudyError: When the file cannot be written.
    """
    page.plotly_script()
    path = destination or directory.path / NAME
    images = Images(directory, data, store)
    facts = gather(directory, data, study, summarise(directory, data, study), store, images)
    drawn = draw(facts, study)
    thumbnails = {row: images.thumbnail(row) for row in sorted(set(pictured(facts)))}
    shown = {row: url for row, url in thumbnails.items() if url}
    html = page.render(facts, drawn, shown, images.problem, _limits())
    try:
        write_text(path, html)
    except OSError as error:
        raise StudyError(
            f"The report {path} cannot be written ({error.strerror}): choose another file with -o."
        ) from None
    return path


def draw(facts: Mapping[str, Any], study: optuna.Study) -> dict[str, Figure]:
    """Return all figures of a report, by name."""
    from automl_tl.report import optuna_plots

    metric, search = facts["study"]["metric"], facts["search"]
    found: dict[str, Figure] = {
        "progress": figures.progress(search["trials"], metric, facts["study"]["direction"]),
        "timeline": figures.timeline(search["trials"]),
        "cost": figures.cost(search["trials"], search["frontier"], metric),
        "backbones": figures.backbones(search["trials"], search["backbones"], metric),
        "curves": model_plots.curves(facts["curves"], "value", metric, metric),
        "losses": model_plots.curves(facts["curves"], "train_loss", "training loss", None),
    }
    for name, figure in optuna_plots.plots(study, metric).items():
        if isinstance(figure, list):
            found |= {f"{name}-{index}": one for index, one in enumerate(figure)}
        else:
            found[name] = figure
    for split, failed in facts["failures"].items():
        found[f"confusion-{split}"] = model_plots.confusion(failed["matrix"], split)
    if facts["calibration"]:
        temperature = facts["calibration"]["temperature"]
        for split, calibrated in facts["calibration"]["splits"].items():
            found[f"reliability-{split}"] = model_plots.reliability(calibrated, temperature)
    return found


def _limits() -> dict[str, int]:
    from automl_tl.report import optuna_plots

    return {
        "points": optuna_plots.POINTS,
        "lines": optuna_plots.LINES,
        "marks": figures.POINTS,
        "bars": figures.BARS,
    }


def pictured(facts: Mapping[str, Any]) -> Iterator[int]:
    """Yield the rows of all images that the page shows."""
    for failed in facts["failures"].values():
        for image in (*failed["mistakes"], *failed["uncertain"]):
            yield image["row"]
    for image in facts["doubtful"]["images"]:
        yield image["row"]
    for pair in facts["data"]["look_alikes"]["pairs"]:
        yield from pair["rows"]
