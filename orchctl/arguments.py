"""What people write for a command and its environment, as values."""

import json
import re
import shlex
from collections.abc import Sequence

from orchctl import errors

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)


def words(text: str, where: str) -> list[str]:
    """`sh -c "a b"` or `["sh", "-c", "a b"]` → the words. InvalidInput names `where` it was written."""
    example = 'write it like "/bin/httpd -f" or ["/bin/httpd", "-f"]'
    try:
        if not text.startswith("["):
            return shlex.split(text)
        listed = json.loads(text)
    except ValueError as error:
        raise errors.InvalidInput(f"{where}: {error}", hint=example) from error
    if not all(isinstance(word, str) for word in listed):
        raise errors.InvalidInput(f"{where}: not a list of texts: {text!r}", hint=example)
    return list(listed)


def environment(pairs: Sequence[str]) -> Sequence[str]:
    """The pairs as they are. InvalidInput when one is not `KEY=VALUE`."""
    for pair in pairs:
        if not _VARIABLE.fullmatch(pair):
            raise errors.InvalidInput(f"not an environment variable: {pair!r}", hint="write it like KEY=value")
    return pairs
