"""What a database refused, in words for the person who gave its URL."""

from __future__ import annotations

import re

_CURES = (
    (
        r"password|Access denied for user '[^']*'@'[^']*' \(",
        "check the user and the password (`~/.pgpass`, `~/.my.cnf`, the URL)",
    ),
    (
        r"does not exist|Unknown database|to database '|No database selected",
        "create the database, and let this user into it",
    ),
    (
        r"Incorrect string value|Illegal mix of collations",
        "in MySQL, make the database with CHARACTER SET utf8mb4, or choose an ASCII name",
    ),
    (
        r"(?i)can't connect|connection (to server|failed|refused)|lost connection|timeout expired",
        "check that the server runs, and the host and the port",
    ),
)
_SECRET = re.compile(r"(?i)passw|passphrase|pwd|secret|token")
"""Names of a URL's options that drivers take a password by, or what is as good as one."""
_DRIVERS = {"postgresql": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}


def reason(error: BaseException) -> str:
    """Say in one line why a call failed, without the names of the driver's classes."""
    found = error.__cause__ if _wraps(error) and error.__cause__ else error
    found = getattr(found, "orig", None) or found  # SQLAlchemy wraps the driver's
    text = str(found.args[-1] if len(found.args) > 1 else found).strip()  # PyMySQL: code, text
    first = text.splitlines()[0].rstrip(".") if text else type(found).__name__
    cure = next((cure for pattern, cure in _CURES if re.search(pattern, first)), None)
    return f"{first}: {cure}." if cure else f"{first}."


def not_opened(error: BaseException, url: str) -> str:
    """Say why a database cannot be opened, and what to do."""
    if isinstance(error, ImportError):
        return f"The storage {place(url)} needs the Python package {_package(error, url)}."
    if re.fullmatch(rf"({'|'.join(_DRIVERS)})\b[^/]*//[^/]*/?", url):
        return f"The storage {place(url)} names no database: end the URL with /DATABASE."
    return f"The storage {place(url)} cannot be opened: {reason(error)}"


def place(url: str) -> str:
    """Return a storage URL without the user and the password."""
    return redacted(url).rsplit("@", maxsplit=1)[-1]


def redacted(url: str) -> str:
    """Return a storage URL without its password, wherever that stands; else as it is.

    Of a URL that cannot be taken apart for certain only the scheme is left.
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    hidden = f"{url.partition('://')[0]}://***"
    try:
        parts = make_url(url)
    except (ArgumentError, ValueError):
        return hidden
    secret = [name for name in parts.query if _SECRET.search(name)]
    if parts.password is None and not secret:
        return url
    options = url.partition("?")[2] if parts.password else ""
    if "@" in f"{parts.host}{parts.database}{options}":  # more of a password that has an @
        return hidden
    return parts.difference_update_query(secret).render_as_string()


def _package(error: ImportError, url: str) -> str:
    """Name the driver that is missing, and how to get it."""
    scheme = url.partition(":")[0]
    kind = scheme.partition("+")[0]
    if driver := _DRIVERS.get(kind):
        extra = "mysql" if driver == "pymysql" else kind
        cure = f'{driver}: pip install "automl-tl[{extra}]"'
        right = f"{kind}+{driver}"
        return cure if scheme == right else f"{cure}, and begin the URL with {right}://"
    cause = error.__cause__ or error
    module = getattr(cause, "name", None) or str(cause)
    return f"{module}: pip install {module}"


def _wraps(error: BaseException) -> bool:
    from optuna.exceptions import StorageInternalError

    return isinstance(error, StorageInternalError)
