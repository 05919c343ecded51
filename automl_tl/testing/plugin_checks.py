"""Checks of a plugin as a whole: its import, its hooks and what they announce."""

from __future__ import annotations

import difflib
from collections import Counter
from typing import TYPE_CHECKING

from automl_tl import hookspecs
from automl_tl.testing.findings import Finding, some

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from automl_tl.testing.examination import Examination


def check_import(examination: Examination) -> Iterator[Finding]:
    """The plugin can be imported."""
    received = examination.errors.get("import") or "that"
    if examination.step == "import" and examination.ending:
        received = examination.ending
    yield Finding(
        examination.plugin, "import", "a module that can be imported", received, received == "that"
    )


def check_frameworks(examination: Examination) -> Iterator[Finding]:
    """Neither importing the plugin nor calling its hooks imports a framework."""
    before: list[str] = []
    for when, what in (("import", "its import"), ("hooks", "its hooks")):
        if when in examination.frameworks:
            new = [name for name in examination.frameworks[when] if name not in before]
            before = examination.frameworks[when]
            yield Finding(
                examination.plugin,
                "frameworks",
                f"none imported by {what}",
                some(new),
                not new,
            )


def check_hook_names(examination: Examination) -> Iterator[Finding]:
    """Every hook has a name that automl-tl knows, and carries ``@hookimpl``."""
    known = [name for name in vars(hookspecs) if name.startswith("automl_tl_")]
    for hook in examination.hooks:
        expected, received = "a hook that automl-tl calls", hook.name
        if hook.allowed is None:
            close = difflib.get_close_matches(hook.name, known, 1, 0.5)
            expected = close[0] if close else f"one of {', '.join(known)}"
        elif not hook.marked:
            expected, received = f"{hook.name} with @hookimpl", "no mark, so it is never called"
        right = hook.allowed is not None and hook.marked
        yield Finding(examination.plugin, "hook names", expected, received, right)
    if not examination.hooks and examination.errors.get("import", "") is None:
        yield Finding(
            examination.plugin, "hook names", "at least one hook with @hookimpl", "none", False
        )


def check_hook_signatures(examination: Examination) -> Iterator[Finding]:
    """Every hook takes only the arguments that it is called with."""
    for hook in examination.hooks:
        if hook.allowed is not None:
            expected, received = (
                f"{hook.name}({', '.join(names)})" for names in (hook.allowed, hook.arguments)
            )
            yield Finding(examination.plugin, "hook signatures", expected, received, hook.fits)


def check_hook_answers(examination: Examination) -> Iterator[Finding]:
    """Every hook that announces something returns, soon and without an error."""
    for hook, error in examination.errors.items():
        if hook != "import":
            received = error or f"{len([a for a in examination.announced if a.hook == hook])}"
            expected = f"values from {hook}"
            yield Finding(examination.plugin, "hook answers", expected, received, error is None)
    if not examination.usable and examination.step != "import":
        yield Finding(
            examination.plugin,
            "hook answers",
            f"an answer of {examination.step} within {examination.seconds:g} s",
            str(examination.ending),
            False,
        )


def check_announcements(examination: Examination) -> Iterator[Finding]:
    """Every hook returns values of its own type."""
    from automl_tl.testing.examination import VALUES

    for hook in VALUES:
        values = [one for one in examination.announced if one.hook == hook]
        wrong = [one.text for one in values if one.name is None]
        if values:
            yield Finding(
                examination.plugin,
                "announcements",
                f"{VALUES[hook].__name__} from {hook}",
                some(wrong, 1) if wrong else f"{len(values)} of them",
                not wrong,
            )


def check_unique_names(examination: Examination) -> Iterator[Finding]:
    """No name is announced twice, by this plugin or by another one."""
    for hook in dict.fromkeys(one.hook for one in examination.announced):
        names, kind = examination.names(hook), hook.removeprefix("automl_tl_")
        taken = {name: examination.taken.get(f"{kind} {name}") for name in names}
        twice = [f"{name} twice" for name, count in Counter(names).items() if count > 1]
        others = [f"{name}, which {plugin} has" for name, plugin in taken.items() if plugin]
        yield Finding(
            examination.plugin,
            "unique names",
            f"{kind} that nobody else announces",
            some(twice + others) if twice or others else f"{len(names)} names",
            not twice and not others,
        )


def check_search_space(examination: Examination) -> Iterator[Finding]:
    """What the plugin says of the search space of a backbone can be searched."""
    wrong = {key: text for key, text in examination.spaces.items() if text}
    if examination.spaces:
        received = some((f"for {key}: {text}" for key, text in wrong.items()), 1)
        yield Finding(
            examination.plugin,
            "search space",
            "parameters and values that can be searched, or None",
            received if wrong else "that",
            not wrong,
        )


PLUGIN_CHECKS: tuple[Callable[[Examination], Iterator[Finding]], ...] = (
    check_import,
    check_frameworks,
    check_hook_names,
    check_hook_signatures,
    check_hook_answers,
    check_announcements,
    check_unique_names,
    check_search_space,
)
