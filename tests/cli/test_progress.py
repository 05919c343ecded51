"""The live table and the plain lines, fed with events."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from automl_tl.cli.console import can_redraw, is_live, say, stdout, write
from automl_tl.cli.live import LiveProgress
from automl_tl.cli.plain import PlainProgress

PARAMS = {"learning_rate": 3.2e-4, "optimizer": "adamw", "head_layers": 2, "head_units": 256}
STUDY = {
    "event": "study",
    "name": "pets [red]",
    "directory": "studies/pets",
    "resumed": False,
    "finished": 0,
    "backbones": ["torch/mobilenet_v2", "torch/tiny"],
    "images": {"train": 560, "validation": 120, "test": 121},
    "classes": 5,
    "bounds": {"trials": 20, "time": 1800, "target": 0.98},
}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def started(number: int, worker: int = 0) -> dict[str, Any]:
    return {
        "event": "trial_started",
        "worker": worker,
        "number": number,
        "backbone": "torch/mobilenet_v2",
        "params": PARAMS,
        "fine_tune_at": 102,
        "layers": 154,
        "plan": "activations at 98",
    }


def epoch(number: int, done: int) -> dict[str, Any]:
    return {
        "event": "epoch",
        "worker": 0,
        "number": number,
        "phase": "fine-tuning",
        "epoch": done - 1,
        "epochs": 12,
        "value": 0.876,
        "train_loss": 0.3,
        "seconds": 1.0,
    }


def finished(number: int, state: str = "complete", **more: Any) -> dict[str, Any]:
    event = {
        **started(number),
        "event": "trial_finished",
        "state": state,
        "value": 0.9 + number / 100 if state != "failed" else None,
        "duration_s": 12.3,
        "epochs": 12,
        "reason": "out of [memory]\x1b[31m" if state == "failed" else None,
        "best": state == "complete",
        "best_number": 1,
        "best_value": 0.91,
        "finished": number + 1,
    }
    return {**event, **more}


def stage(done: int, worker: int = 0, total: int = 800) -> dict[str, Any]:
    what = "decoding images"
    return {"event": "stage", "worker": worker, "what": what, "done": done, "total": total}


def live(width: int, *events: dict[str, Any], clock: Clock | None = None) -> str:
    console = Console(file=io.StringIO(), width=width, markup=False, force_terminal=False)
    progress = LiveProgress("accuracy", console, clock or Clock())
    for event in events:
        progress(event)
    console.print(progress.draw())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


ALL = (STUDY, started(0), finished(0, "failed"), started(1), finished(1), started(2), epoch(2, 3))


def test_live_table_says_what_matters() -> None:
    text = live(120, *ALL)
    assert "pets [red]  best accuracy 0.9100  trial 1, torch/mobilenet_v2, from 102/154" in text
    assert "trials 2 of 20 (1 complete, 1 failed)" in text
    assert "30m 00s left" in text
    assert "trial 2  fine-tuning  " in text and "epoch 3/12" in text
    running = next(line for line in text.splitlines() if line.strip().startswith("> 2"))
    assert running.split()[1:-1] == (
        "2 0.8760 torch/mobilenet_v2 102/154 256x2 adamw 3.2e-04 3/12".split()
    )
    assert "trial 0 failed: out of [memory]\\x1b[31m" in text
    row = next(line for line in text.splitlines() if line.strip().startswith("1 "))
    assert row.split() == ("1 0.9100 torch/mobilenet_v2 102/154 256x2 adamw 3.2e-04 12 12s".split())


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_live_table_fits(width: int) -> None:
    events = [STUDY, *ALL[1:], started(3, worker=1), stage(0, 1), stage(200, 1)]
    lines = live(width, *events).splitlines()
    table = lines[next(i for i, line in enumerate(lines) if line.startswith("pets")) :]
    assert max(map(len, table)) <= width
    assert any("torch/mobilenet_v2" in line and "12s" in line for line in table)
    assert any("102/154" in line for line in table)


def test_live_table_shows_the_last_eight_trials() -> None:
    events = [event for n in range(30) for event in (started(n), finished(n))]
    rows = [line.split()[0] for line in live(120, STUDY, *events).splitlines() if "12s" in line]
    assert rows == [str(n) for n in range(29, 21, -1)]


def test_stages_have_a_rate_and_an_estimate() -> None:
    clock = Clock()
    console = Console(file=io.StringIO(), width=120, markup=False)
    progress = LiveProgress("accuracy", console, clock)
    progress(stage(0))
    clock.now += 2
    progress(stage(200))
    console.print(progress.draw())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "decoding images" in text
    assert "200/800  100/s  6.0s left" in text
    progress(stage(800))
    console.print(progress.draw())
    assert console.file.getvalue().count("decoding images") == 1  # type: ignore[attr-defined]


def test_a_dead_worker_takes_its_trial_along() -> None:
    died = {"event": "worker_died", "worker": 0, "reason": "killed by SIGKILL"}
    text = live(120, STUDY, started(7), died)
    assert "Warning: worker 0 died: killed by SIGKILL." in text
    assert "trial 7" not in text and "> 7" not in text


def test_events_of_tomorrow_are_ignored() -> None:
    assert "pets" in live(120, STUDY, {"event": "fireworks", "colour": "[green]"})


def test_time_counts_down_and_earlier_trials_count() -> None:
    clock = Clock()
    console = Console(file=io.StringIO(), width=120, markup=False)
    progress = LiveProgress("accuracy", console, clock)
    progress({**STUDY, "resumed": True, "finished": 7})
    progress(started(7))
    progress(finished(7, "pruned"))
    clock.now += 60
    console.print(progress.draw())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "resumes with 7 finished trials" in text
    assert "trials 8 of 20 (1 pruned)  time 1m 00s, 29m 00s left" in text


def plain(capsys: pytest.CaptureFixture[str], *events: dict[str, Any]) -> tuple[str, str]:
    clock = Clock()
    with PlainProgress("accuracy", clock) as progress:
        for event in events:
            progress(event)
            clock.now += 4
    return capsys.readouterr()


def test_plain_is_one_line_a_trial(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = plain(capsys, *ALL[:5], finished(3, "pruned"))
    assert out.splitlines() == [
        "trial 0 failed: out of [memory]\\x1b[31m, torch/mobilenet_v2, from 102/154, head 256x2, "
        "adamw 3.2e-04, 12 epochs, 12s (best: trial 1, 0.9100)",
        "trial 1 complete: accuracy 0.9100, torch/mobilenet_v2, from 102/154, head 256x2, "
        "adamw 3.2e-04, 12 epochs, 12s (best so far)",
        "trial 3 pruned: accuracy 0.9300, torch/mobilenet_v2, from 102/154, head 256x2, "
        "adamw 3.2e-04, 12 epochs, 12s (best: trial 1, 0.9100)",
    ]
    assert err == (
        "study pets [red] starts: 5 classes, 560 train, 120 validation, 121 test images; "
        "backbones torch/mobilenet_v2, torch/tiny; until 20 trials or 30m 00s or a value of "
        "0.98.\n"
    )


def test_plain_stages_are_rare(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = plain(capsys, *(stage(n * 100) for n in range(9)))
    assert out == ""
    assert err.splitlines() == [
        "decoding images: 300 of 800, 25/s, 20s left",
        "decoding images: 600 of 800, 25/s, 8.0s left",
    ]


def test_plain_notes_and_warnings_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = plain(
        capsys,
        {"event": "note", "text": "a note"},
        {"event": "warning", "text": "[bold]careful[/bold]"},
        {"event": "stopping", "reason": "the time is up"},
    )
    assert out == ""
    assert err == "a note\nWarning: [bold]careful[/bold]\nStopping: the time is up.\n"


def test_ctrl_c_says_how_to_resume(capsys: pytest.CaptureFixture[str]) -> None:
    stopping = {"event": "stopping", "reason": "interrupted"}
    progress = PlainProgress("accuracy")
    progress(STUDY)
    assert not progress.state.interrupted
    progress(stopping)
    assert progress.state.interrupted
    sentence = "Interrupted: stopping cleanly; `automl-tl resume pets` continues"
    assert sentence in capsys.readouterr().err
    assert sentence in live(120, STUDY, stopping)


@pytest.mark.parametrize(
    ("at", "layers", "units", "expected"),
    [
        (154, 0, 256, "frozen, head linear"),
        (0, 1, 64, "fine-tune all, head 64"),
        (3, None, [512, 64], "from 3/154, head 512-64"),
    ],
)
def test_recipes(capsys, at: int, layers: int | None, units: Any, expected: str) -> None:
    params = {"head_layers": layers, "head_units": units}
    out, _ = plain(capsys, finished(1, fine_tune_at=at, params=params))
    assert f"torch/mobilenet_v2, {expected}, 12 epochs" in out


def test_parameters_narrowed_for_one_backbone(capsys: pytest.CaptureFixture[str]) -> None:
    params = {"optimizer": "sgd", "learning_rate@torch/mobilenet_v2": 0.01}
    assert "sgd 1.0e-02" in plain(capsys, finished(1, params=params))[0]


def test_plain_stages_begin_anew(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the last call nor the first one of the next stage is worth a line."""
    _, err = plain(capsys, stage(100), stage(200), stage(300), stage(16), stage(32))
    assert err == ""


def test_plain_says_nothing_of_single_epochs(capsys: pytest.CaptureFixture[str]) -> None:
    training = [{**stage(n * 100), "what": "fine-tuning"} for n in range(8)]
    assert plain(capsys, *training) == ("", "")


def test_a_trial_that_the_clock_stopped_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    early = {"epochs": 5, "planned_epochs": 12, "stopped": "the time is up"}
    out, _ = plain(capsys, finished(1, **early), finished(2, planned_epochs=12))
    first, second = out.splitlines()
    assert ", stopped at epoch 5 of 12 (the time is up), 12s" in first
    assert ", 12 epochs, 12s" in second
    row = next(
        line for line in live(120, STUDY, finished(1, **early)).splitlines() if "12s" in line
    )
    assert row.split()[-2:] == ["5/12", "12s"]


def test_one_is_not_many(capsys: pytest.CaptureFixture[str]) -> None:
    bounds = {"trials": 1, "time": None, "target": None}
    one = {**STUDY, "resumed": True, "finished": 1, "bounds": bounds, "backbones": ["torch/tiny"]}
    out, err = plain(capsys, one, finished(0, epochs=1))
    assert "resumes with 1 finished trial: " in err
    assert "; backbone torch/tiny; until 1 trial." in err
    assert ", 1 epoch, " in out


SENTENCE = "Warning: the weights of torch/resnet50 are not at /a/long/path/that/stays/whole.pth."


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_sentences_break_between_words_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    terminal, pipe = Terminal(), io.StringIO()
    write(SENTENCE, terminal)
    write(SENTENCE, pipe)
    assert pipe.getvalue() == SENTENCE + "\n"
    lines = terminal.getvalue().splitlines()
    assert lines[0] == "Warning: the weights of torch/resnet50"
    assert " ".join(lines) == SENTENCE
    for terminal_like in (True, False):
        console = Console(
            file=io.StringIO(), width=40, force_terminal=terminal_like, color_system=None
        )
        say(console, SENTENCE)
        text = console.file.getvalue()  # type: ignore[attr-defined]
        assert len(text.splitlines()) == (len(lines) if terminal_like else 1)


def test_a_narrower_terminal_gets_its_broken_frame_erased() -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    progress = LiveProgress("accuracy", console, Clock())
    for event in (STUDY, started(0), epoch(0, 3)):
        progress(event)
    console.print(progress.draw())
    lines = console.render_lines(progress.draw(), pad=False)
    lengths = [sum(len(segment.text) for segment in line) for line in lines]
    console.width = 50
    before = len(console.file.getvalue())  # type: ignore[attr-defined]
    progress.draw()
    codes = console.file.getvalue()[before:]  # type: ignore[attr-defined]
    broken = sum(-(-max(length, 1) // 50) for length in lengths)
    assert broken > len(lines)
    assert codes.count("\x1b[1A\x1b[2K") == broken - 1
    assert codes.count("\x1b[1B") == len(lines) - 1
    progress.draw()
    console.width = 100
    progress.draw()
    assert console.file.getvalue()[before:] == codes  # type: ignore[attr-defined]


def test_no_color_takes_the_live_table_but_no_progress_bar(monkeypatch) -> None:
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(f"sys.{stream}", Terminal())
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    assert can_redraw() and not is_live()
    console = stdout()
    console.print("red", style="red")
    assert console.file.getvalue() == "red\n"  # type: ignore[attr-defined]
    monkeypatch.delenv("NO_COLOR")
    assert is_live()
    coloured = stdout()
    coloured.print("red", style="red")
    assert "\x1b[31m" in coloured.file.getvalue()  # type: ignore[attr-defined]
