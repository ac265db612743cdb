"""Image references as Docker writes them: `[registry[:port]/]path[:tag][@digest]`.

Two rules. A reference that is parsed is canonical: `web`, `library/web` and `index.docker.io/library/web:latest` are
equal values. And `parse(r.full) == parse(r.short) == r` for every reference `r`.

The grammar is that of the `distribution/reference` specification; digests are sha256 only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from images import digest as digests
from images import errors

DEFAULT_REGISTRY = "docker.io"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"
MAX_NAME_LENGTH = 255

_HOST_PART = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_REGISTRY = re.compile(rf"(?:{_HOST_PART}(?:\.{_HOST_PART})*|\[[a-fA-F0-9:]+\])(?::[0-9]{{1,5}})?")
_PATH_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_PATH_PART}(?:/{_PATH_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_BARE_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """One image name in canonical parts; without a digest there is always a tag."""

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        """Registry and repository: `docker.io/library/web`."""
        return f"{self.registry}/{self.repository}"

    @property
    def tagged(self) -> str:
        """The full name with its tag and without a digest: what the store's names are keyed by."""
        return f"{self.name}:{self.tag or DEFAULT_TAG}"

    @property
    def full(self) -> str:
        return self.name + self._suffix(self.tag)

    @property
    def short(self) -> str:
        """What a person would type: default registry, `library/` and a lone `:latest` left out."""
        return _short_name(self.registry, self.repository) + self._suffix(None if self._lone_latest else self.tag)

    @property
    def familiar(self) -> str:
        """The short form that always shows its tag: `web:latest`, as `docker save` writes it."""
        return f"{_short_name(self.registry, self.repository)}:{self.tag or DEFAULT_TAG}"

    @property
    def _lone_latest(self) -> bool:
        return self.tag == DEFAULT_TAG and self.digest is None

    def _suffix(self, tag: str | None) -> str:
        return (f":{tag}" if tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return self.short


def parse(text: str) -> Reference:
    """Read a reference, or raise `InvalidReference` that says which part is wrong and how it should look."""
    name, at, digest = text.partition("@")
    name, tag = _split_tag(name)
    if tag is not None and not _TAG.fullmatch(tag):
        raise _invalid(text, f"tag {tag!r:.140}: expected at most 128 letters, digits, '_', '.' or '-'")
    registry, repository = _split_registry(name)
    _check_name(text, registry, repository)
    return Reference(
        registry=registry,
        repository=repository,
        tag=tag or (None if at else DEFAULT_TAG),
        digest=digests.check(digest, what=f"image reference {text!r:.300}: digest") if at else None,
    )


def is_registry(text: str) -> bool:
    """Whether the text is `host[:port]`, as it stands before the first slash of a reference."""
    return _REGISTRY.fullmatch(text) is not None


def names_registry(text: str) -> bool:
    """Whether a reference says its registry itself: `host/web` and `localhost/web` do, `web` and `team/web` do not."""
    first, slash, _ = text.partition("/")
    return bool(slash) and _looks_like_host(first)


def _split_tag(name: str) -> tuple[str, str | None]:
    # A colon before the last slash belongs to the registry's port.
    colon = name.rfind(":")
    if colon <= name.rfind("/"):
        return name, None
    return name[:colon], name[colon + 1 :]


def _split_registry(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if not slash or not _looks_like_host(first):
        first, rest = DEFAULT_REGISTRY, name
    if first == "index.docker.io":
        first = DEFAULT_REGISTRY
    if first == DEFAULT_REGISTRY and "/" not in rest:
        rest = f"{DEFAULT_NAMESPACE}/{rest}"
    return first, rest


def _looks_like_host(part: str) -> bool:
    return "." in part or ":" in part or part == "localhost" or part != part.lower()


def _short_name(registry: str, repository: str) -> str:
    if registry != DEFAULT_REGISTRY:
        return f"{registry}/{repository}"
    namespace, _, rest = repository.partition("/")
    if namespace == DEFAULT_NAMESPACE and "/" not in rest:
        return rest
    # `docker.io/a.b/c` without its registry would be read as the registry `a.b`.
    return f"{registry}/{repository}" if _looks_like_host(namespace) else repository


def _check_name(text: str, registry: str, repository: str) -> None:
    if not _REGISTRY.fullmatch(registry):
        raise _invalid(text, f"registry {registry!r:.100}: expected a host name with an optional port")
    path = repository.removeprefix(f"{DEFAULT_NAMESPACE}/")
    if not path:
        raise _invalid(text, "there is no name")
    if path != path.lower():
        raise _invalid(text, f"repository {path!r:.140}: must be lower case")
    if not _PATH.fullmatch(repository):
        raise _invalid(text, f"repository {path!r:.140}: expected a-z, 0-9, separated by '/', '.', '_', '__' or '-'")
    if _BARE_HEX.fullmatch(path):
        raise _invalid(text, "64 hex digits are not a name; write sha256: before them for a digest")
    if len(registry) + 1 + len(repository) > MAX_NAME_LENGTH:
        raise _invalid(text, f"longer than {MAX_NAME_LENGTH} characters")


def _invalid(text: str, reason: str) -> errors.InvalidReference:
    return errors.InvalidReference(f"image reference {text!r:.300}: {reason}")
