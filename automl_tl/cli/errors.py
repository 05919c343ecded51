"""What a command ends with: an exit code, and one sentence on standard error when it went wrong."""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING

from automl_tl.errors import AutoMLError

if TYPE_CHECKING:
    from collections.abc import Sequence

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
OK = 0
BUG = 1
WRONG_INPUT = 2
INTERRUPTED = 130
"""As a shell reports a process that Ctrl-C ended: 128 + SIGINT."""


def run(arguments: Sequence[str]) -> int:
    """Run the command line.

    ``--debug`` is understood in any position, as ``AUTOML_TL_DEBUG=1`` is.

    Returns:
        0, or 2 when something that the user gave was wrong (one sentence on standard error), 1 for
        a bug in automl-tl or a closed pipe, and 130 after Ctrl-C.
    """
    _mend_streams()
    debug = "--debug" in arguments or os.environ.get("AUTOML_TL_DEBUG", "") not in ("", "0")
    code = _run([a for a in arguments if a != "--debug"], debug)
    return _flushed(code)


def _run(arguments: list[str], debug: bool) -> int:
    from automl_tl.cli.app import app

    try:
        code = app(arguments or ["--help"], prog_name="automl-tl", standalone_mode=False)
    except KeyboardInterrupt:
        return _say("Interrupted.", INTERRUPTED)
    except BrokenPipeError:
        return BUG
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else BUG
    except Exception as error:
        if debug:
            _print_traceback()
        return _say(*_sentence(error))
    return code if isinstance(code, int) else OK


def _sentence(error: Exception) -> tuple[str, int]:
    if isinstance(error, AutoMLError):
        return f"Error: {error}", WRONG_INPUT
    format_message = getattr(error, "format_message", None)
    if callable(format_message):
        text = " ".join(str(format_message()).split())
        return f"Error: {text if text.endswith(('.', '?')) else text + '.'}{_help_hint(error)}", (
            WRONG_INPUT
        )
    if isinstance(error, OSError) and error.filename is not None:
        return f"Error: {error.filename}: {error.strerror or error}.", WRONG_INPUT
    if isinstance(error, OSError) and error.errno in _UNWRITABLE:
        return f"Error: the output cannot be written ({error.strerror}).", WRONG_INPUT
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return f"This is a bug in automl-tl: {what}; run with --debug and report it.", BUG


def _help_hint(error: Exception) -> str:
    path = getattr(getattr(error, "ctx", None), "command_path", None)
    return f" See `{path} --help`." if path else ""


def _say(text: str, code: int) -> int:
    from automl_tl.cli.console import write

    write(text, sys.stderr)
    return code


def _print_traceback() -> None:
    import traceback

    traceback.print_exc()


def _mend_streams() -> None:
    """Have three streams, whatever the shell closed, and print file names that are no Unicode.

    The number of a closed stream would go to the next file that is opened, and what is printed into
    that file.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            nothing = os.open(os.devnull, os.O_RDWR)
            if nothing != number:
                os.dup2(nothing, number)
                os.close(nothing)
            setattr(sys, name, open(number, mode, closefd=False))
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _flushed(code: int) -> int:
    """Flush standard output now: a reader that left (``| head``) is no news at exit."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BUG if isinstance(error, BrokenPipeError) else _say(*_sentence(error))
    return code
