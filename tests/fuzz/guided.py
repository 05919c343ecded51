"""The process that a reader is fuzzed in: ``python -m tests.fuzz.guided READER FOLDER OPTION...``.

The fuzzer sees which lines of our own code, and of the parsers in Python that it calls, an input
reaches, and changes those inputs further that reached new ones.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import FunctionType

import atheris

WATCHED = ["automl_tl", "csv", "json", "tarfile", "tomllib", "zipfile", "optuna.storages.journal"]
WATCHED += ["automl_tl_torch", "PIL", "numpy.lib.format"]
WATCHED_OF_LARGE = ("torch.serialization", "torch._weights_only_unpickler")
"""Parsers in packages that would take minutes to instrument as they are imported."""


def main() -> None:
    """Fuzz until libFuzzer's options say that it is enough; ends the process."""
    name, folder, *options = sys.argv[1:]
    with atheris.instrument_imports(include=WATCHED):
        from tests.fuzz.readers import READERS

        (Path(folder) / "work").mkdir()
        originals, reader = READERS[name](Path(folder) / "work")
    for large in WATCHED_OF_LARGE:
        _watch(large)
    corpus = Path(folder) / "corpus"
    corpus.mkdir()
    for number, data in enumerate(originals):
        (corpus / str(number)).write_bytes(data)
    one = [] if options[-1].startswith("-") else [options.pop()]
    atheris.Setup([sys.argv[0], *options, *(one or [str(corpus)])], reader)
    atheris.Fuzz()


def _watch(name: str) -> None:
    """Instrument the functions of a module, if it was imported."""
    module = sys.modules.get(name)
    for value in list(vars(module).values()) if module else ():
        for function in vars(value).values() if isinstance(value, type) else (value,):
            if isinstance(function, FunctionType) and function.__module__ == name:
                atheris.instrument_func(function)


if __name__ == "__main__":
    main()
