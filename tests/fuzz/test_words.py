"""What people type, and the TOML that they hand over."""

from __future__ import annotations

import string
import tomllib
from typing import TYPE_CHECKING

from hypothesis import example, given
from hypothesis import strategies as st

from automl_tl.cli import config
from automl_tl.parameters import PARAMETERS
from automl_tl.settings import parse_setting
from automl_tl.space import Space
from automl_tl.units import parse_bytes, parse_duration
from tests.fuzz.mutations import fuzzed, mutated, read

if TYPE_CHECKING:
    from tests.fuzz.conftest import Fresh

numbers = st.one_of(
    st.integers(), st.floats(), st.sampled_from(["1e999", "-0", "1_0", "٣", "0x1", "nan"])
).map(str)
values = st.one_of(
    numbers,
    st.tuples(numbers, numbers).map("..".join),
    st.lists(numbers, max_size=4).map(",".join),
    st.text(alphabet=string.printable, max_size=20),
    st.text(max_size=10),
)
DOCUMENTS = [
    b"""data = "photos"
trials = 20
time = "30m"
target = 0.9
backbone = ["torch/mobilenet_v2", "torch/resnet*"]
metric = "macro_f1"
seed = 3
log = "tensorboard"

[weights]
"torch/mobilenet_v2" = "none"

[set]
dropout = 0.2
learning_rate = "1e-4..1e-2"
batch_size = [16, 32]
head_units = [[256], [128, 64]]
depth = {low = 0.0, high = 0.5}

[[first]]
backbone = "torch/mobilenet_v2"
depth = 0.5
""",
]
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.binary(max_size=4)
)
nested = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["low", "high", "log", "step", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@fuzzed
@given(st.text(max_size=20) | numbers)
def test_a_duration(text: str) -> None:
    seconds = read(parse_duration, text)
    assert seconds is None or 0 < seconds < float("inf")


@fuzzed
@given(st.text(max_size=20) | numbers)
def test_a_size(text: str) -> None:
    size = read(parse_bytes, text)
    assert size is None or size >= 0


@fuzzed
@given(st.sampled_from(sorted(PARAMETERS)) | st.text(max_size=8), values)
@example("head\nunits", "[[x]]")
def test_a_setting(name: str, value: str) -> None:
    parsed = read(parse_setting, f"{name}={value}")
    if parsed:
        read(Space, ("any/backbone",), dict([parsed]))


@fuzzed
@given(st.sampled_from(sorted(PARAMETERS)), nested)
def test_a_setting_of_any_type(name: str, value: object) -> None:
    read(Space, ("any/backbone",), {name: value})


@fuzzed
@given(st.dictionaries(st.sampled_from(["backbone", *PARAMETERS]), nested, max_size=4))
def test_a_first_trial_of_any_type(trial: dict[str, object]) -> None:
    read(Space, ("any/backbone",), {}, {}, (trial,))


@fuzzed
@given(data=mutated(DOCUMENTS))
def test_a_configuration(fresh: Fresh, data: bytes) -> None:
    path = fresh() / "study.toml"
    path.write_bytes(data)
    options = read(config.from_file, path)
    if options is not None:
        read(options.check)
        read(Space, ("torch/mobilenet_v2",), options.set, {}, options.first)


def test_the_configuration_that_is_changed_is_right() -> None:
    assert set(tomllib.loads(DOCUMENTS[0].decode())) <= set(config._READERS)
