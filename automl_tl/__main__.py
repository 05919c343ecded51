"""Entry point of the ``automl-tl`` command and of ``python -m automl_tl``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    from automl_tl.cli.errors import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
