"""Every check catches a plugin that is wrong in just that, and lets the right one pass."""

from __future__ import annotations

import pytest

from automl_tl.testing import kit
from automl_tl.testing.examination import Examination, examine
from automl_tl.testing.examiner import examine as examine_here
from automl_tl.testing.findings import find
from automl_tl.testing.plugin_checks import PLUGIN_CHECKS

HOOKS = [
    ("wrong_import", "import", "RuntimeError: no such device"),
    ("wrong_hooks:twice_the_same", "unique names", "numpynet/patches twice"),
    ("wrong_hooks:taken_name", "unique names", "torch/tiny, which torch has"),
    ("wrong_hooks:misspelt", "hook names", "automl_tl_backbone"),
    ("wrong_hooks:unmarked", "hook names", "no mark, so it is never called"),
    ("wrong_hooks:wrong_signature", "hook signatures", "automl_tl_search_space(network)"),
    ("wrong_hooks:failing", "hook answers", "OSError: the list of data sets cannot be fetched"),
    ("wrong_hooks:wrong_type", "announcements", "{'name': 'patches', 'backend': 'numpynet'}"),
    ("wrong_hooks:wrong_space", "search space", "Unknown parameter 'learning_rates'"),
]
PROCESSES = [
    ("wrong_framework", "frameworks", "mxnet"),
    ("wrong_hooks:framework_in_hook", "frameworks", "mxnet"),
    ("wrong_hooks:hanging", "hook answers", "no end after 2 s"),
    ("wrong_hooks:exiting", "hook answers", "the end of the process (exit code 3)"),
]
NETWORKS = [
    ("wrong_width", "output", "24"),
    ("swapped_layers", "cut points", "values that differ by"),
    ("repeated_layer", "layers", "relu more than once"),
    ("hidden_parameters", "part frozen", "that changed"),
    ("missing_end", "layers", "0, 1, 2, 3, 4, 8"),
    ("false_cut", "cut points", "values that differ by"),
    ("wrong_shape", "cut points", "(4, 4, 16)"),
    ("frozen_batch_norm_moves", "frozen", "a change in backbone.norm.mean"),
    ("trained_batch_norm_moves", "batch norm", "a change in backbone.norm.mean"),
    ("trains_what_is_frozen", "part frozen", "that changed"),
    ("leaves_a_layer_out", "fine tuning", "none in expand"),
    ("stored_differs", "stored features", "logits that differ by"),
    ("unseeded_dropout", "same seed", "logits that differ by"),
    ("reads_too_early", "promises", "FileNotFoundError"),
    ("swallows_stops", "stops", "no error at all"),
    ("ignores_weight_decay", "heads", "logits that differ by"),
    ("ignores_the_mean", "preprocessing", "values that differ by"),
    ("ignores_the_std", "preprocessing", "values that differ by"),
    ("ignores_the_channels", "preprocessing", "values that differ by"),
    ("ignores_preprocess", "preprocessing", "values that differ by"),
    ("tunes_without_weight_decay", "fine tune settings", "differ by 0 of"),
    ("tunes_without_class_weights", "fine tune settings", "differ by 0 of"),
    ("tunes_without_smoothing", "fine tune settings", "differ by 0 of"),
    ("ignores_fine_tune_optimizer", "fine tune optimizer", "logits that differ by"),
    ("reads_the_first_source", "epoch sources", "then by 0"),
    ("stays_at_the_last_source", "epoch sources", "logits that differ by"),
    ("saves_the_first_epoch", "saved model", "logits that differ by"),
    ("saves_the_head_as_it_is", "early stops", "logits that differ by"),
    ("mirrors_views", "views", "features that are off by"),
    ("calibrates_nothing", "calibration", "values that differ by"),
    ("lossy_export", "export", "does not agree with the trained model"),
    ("ignores_the_image_size", "refusals", "no error at all"),
    ("nan_output", "output", "are NaN or infinite"),
    ("unseeded_weights", "seeds", "'backbone.last.bias'"),
    ("loader_crashes", "build", "ZeroDivisionError: a bug in the loader"),
    ("wrong_parameters", "parameters", "1,768 in the layers"),
    ("pickled_weights", "weights files", "which calls builtins.print"),
    ("missing_weights", "weights files", "no file at"),
    ("ignored_weights", "weights", "values that differ by 0 of the largest"),
]


def caught(findings, check, received):
    """Whether a check has found it, and only what follows from it is wrong beside."""
    return any(
        one.check == check and received in one.received for one in findings if not one.passed
    )


def plugin_findings(examination):
    return [finding for check in PLUGIN_CHECKS for finding in find(check, examination)]


@pytest.mark.parametrize(("plugin", "check", "received"), HOOKS, ids=lambda text: str(text)[:30])
def test_a_wrong_hook_is_caught(install, plugin, check, received) -> None:
    examination = Examination(install(plugin), "kit-tests 1.0", 5.0)
    examine_here(examination.plugin, examination.learn)
    wrong = [finding for finding in plugin_findings(examination) if not finding.passed]
    wrong = [finding for finding in wrong if finding.check != "frameworks"]  # pytest has some
    assert caught(wrong, check, received), wrong
    assert {finding.check for finding in wrong} == {check}


@pytest.mark.parametrize(("plugin", "check", "received"), PROCESSES)
def test_what_takes_a_process_to_notice_is_caught(install, plugin, check, received) -> None:
    examination = examine(install(plugin), seconds=2)
    wrong = [finding for finding in plugin_findings(examination) if not finding.passed]
    assert caught(wrong, check, received), wrong
    assert {finding.check for finding in wrong} == {check}


@pytest.mark.parametrize(("fault", "check", "received"), NETWORKS, ids=lambda text: str(text)[:30])
def test_a_wrong_network_is_caught(findings, fault, check, received) -> None:
    found = findings(f"wrong_networks:{fault}")
    assert caught(found, check, received), [str(one) for one in found if not one.passed]


def test_a_backend_that_cannot_be_loaded_is_caught(install) -> None:
    install("wrong_networks:backend_cannot_load")
    found = kit.check_backend("numpynet")
    assert caught(found, "build", "NoSuchBackend")
    assert len(found) == 1, "nothing else can be said"


def test_a_description_that_makes_no_sense_is_caught(install) -> None:
    from automl_tl.plugins import get_plugins

    install("wrong_hooks:wrong_description")
    found = kit.check_backbone(get_plugins().backbone("numpynet/small"))
    assert caught(found, "description", "min_size=24")
    assert "layers" not in {finding.check for finding in found}, "nothing was built"


def test_the_right_network_passes(findings) -> None:
    found = findings("numpynet")
    assert [str(one) for one in found if not one.passed] == []
    assert len({one.check for one in found}) > 25


def test_the_right_plugin_passes(install) -> None:
    found = plugin_findings(examine(install("numpynet")))
    assert [str(one) for one in found if not one.passed] == []
    assert {one.check for one in found} > {"frameworks", "hook names", "search space"}
