"""The process that a data set is loaded in; ``automl_tl.testing.dataset_checks`` starts it."""

from __future__ import annotations

import sys
from pathlib import Path

from automl_tl.ipc import parent_channel
from automl_tl.plugins import get_plugins
from automl_tl.testing.findings import reason


def main(name: str, folder: Path) -> None:
    """Load a data set and send its index, or what went wrong, as ``(kind, value)``."""
    channel = parent_channel()
    try:
        index = get_plugins().datasets[name].load(folder)
    except BaseException as error:  # a plugin may raise anything
        channel.send(("raise", reason(error)))
    else:
        channel.send(("return", index))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
