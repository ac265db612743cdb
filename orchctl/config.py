"""Which control plane to talk to: the context file, the environment and the flags.

The file is `~/.config/orch/config.yaml` (or `$ORCH_CONFIG`), readable by its owner only. What proves who one is lies
beside it, in a folder for each context that has been logged in to:

    current: home
    contexts:
      home: {server: 10.0.0.1:7400, trust: /home/ann/.config/orch/trust/home}
      local: {server: 10.111.0.1:7400}

The first of these decides about the server: `--server`, `--context`, `$ORCH_SERVER`, the file's current context. And
about who one is: `$ORCH_TRUST`, `--context`, the file's current context, also for a server that was named.
"""

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from orchctl.errors import InvalidInput, OrchctlError

DEFAULT_PORT = 7400
MAX_FILE_BYTES = 1 << 20
_SERVER = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.%a-z]+\])(?::(?P<port>[0-9]{1,5}))?")

_CONTEXT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")

Context: TypeAlias = Mapping[str, Any]
"""A context as the file has it. Keys that this version does not know are kept when the file is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The context file's content."""

    current: str = ""
    contexts: Mapping[str, Context] = field(default_factory=dict)

    def using(self, name: str) -> "Config":
        """With another current context. InvalidInput when there is none of that name."""
        self.server(name)
        return replace(self, current=name)

    def server(self, name: str) -> str:
        """The server of a context. InvalidInput when there is none of that name."""
        if name not in self.contexts:
            known = ", ".join(sorted(self.contexts)) or "none"
            raise InvalidInput(f"there is no context {name!r}", hint=f"contexts: {known}")
        return parse_server(str(self.contexts[name].get("server", "")), f"context {name!r}")

    def servers(self, name: str) -> Sequence[str]:
        """All control planes of a context's cluster, as it has learnt them; its server at least."""
        own = self.server(name)
        listed = self.contexts[name].get("servers")
        learnt = [str(one) for one in listed] if isinstance(listed, list) else []
        return learnt or [own]

    def with_servers(self, name: str, servers: Sequence[str]) -> "Config":
        """With what its cluster has told of its control planes. A server that is none of them any more gives way."""
        own = self.server(name)
        changed = {**self.contexts[name], "servers": list(servers), "server": own if own in servers else servers[0]}
        return replace(self, contexts={**self.contexts, name: changed})

    def with_context(self, name: str, server: str, trust: Path | None = None) -> "Config":
        """With a context added, or its server changed; `trust` None leaves what one is known by."""
        changed = {**self.contexts.get(name, {}), "server": parse_server(server, "--server")}
        if changed["server"] not in changed.get("servers", ()):
            changed.pop("servers", None)  # they are another cluster's
        if trust is not None:
            changed["trust"] = str(trust)
        return replace(self, contexts={**self.contexts, name: changed})

    def without_context(self, name: str) -> "Config":
        """With a context removed; when it was the current one, there is no current one."""
        self.server(name)
        rest = {key: value for key, value in self.contexts.items() if key != name}
        return Config(current="" if self.current == name else self.current, contexts=rest)

    def trust(self, name: str) -> Path | None:
        """The folder of a context with what one is known by; None without one."""
        said = self.contexts.get(name, {}).get("trust")
        return Path(str(said)).expanduser() if said else None


def default_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the context file is."""
    if environ.get("ORCH_CONFIG"):
        return Path(environ["ORCH_CONFIG"])
    base = environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "orch" / "config.yaml"


def parse_server(text: str, where: str) -> str:
    """`host` or `host:port` → `host:port`; a socket of this machine stays `unix:/run/orch.sock`. InvalidInput names
    `where` it was written.
    """
    if text.startswith("unix:/"):
        return text
    match = _SERVER.fullmatch(text)
    port = int(match["port"] or DEFAULT_PORT) if match else 0
    if match is None or not 0 < port < 65536:
        raise InvalidInput(f"{where}: not a server's address: {text!r}", hint="write it like 10.111.0.1:7400")
    return f"{match['host']}:{port}"


def load(path: Path) -> Config:
    """The file's content; an empty one when there is no file."""
    import yaml

    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES)
        content = yaml.safe_load(text) or {}
    except FileNotFoundError:
        return Config()
    except (OSError, yaml.YAMLError) as error:
        raise OrchctlError(f"cannot read {path}: {_reason(error)}", hint="mend or remove the file") from error
    contexts = content.get("contexts") or {} if isinstance(content, dict) else None
    if not isinstance(contexts, dict) or not all(isinstance(context, dict) for context in contexts.values()):
        raise OrchctlError(
            f"{path}: not a context file", hint="it looks like {current: NAME, contexts: {NAME: {server: HOST:PORT}}}"
        )
    return Config(current=str(content.get("current") or ""), contexts={str(k): v for k, v in contexts.items()})


def save(path: Path, config: Config) -> None:
    """Writes the file in one step: a reader sees the old content or the new one."""
    import yaml

    contexts = {name: dict(context) for name, context in config.contexts.items()}
    text = yaml.safe_dump({"current": config.current, "contexts": contexts}, sort_keys=False)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A temporary file of this kind is readable by its owner only from the start.
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - it is a descriptor
            file.write(text)
        Path(temporary).replace(path)
    except OSError as error:
        raise OrchctlError(f"cannot write {path}: {error.strerror}") from error


def choose_server(*, server: str, context: str, environ: Mapping[str, str] = os.environ) -> str:
    """The address to talk to, by the order that the module tells. OrchctlError with the remedy when nothing says."""
    if server:
        return parse_server(server, "--server")
    if not context and environ.get("ORCH_SERVER"):
        return parse_server(environ["ORCH_SERVER"], "ORCH_SERVER")
    path = default_path(environ)
    config = load(path)
    name = context or config.current
    if not name:
        raise OrchctlError(
            "no control plane is configured",
            hint="start one here with `orchctl cluster up`, or name one with --server HOST:PORT",
        )
    return config.server(name)


def choose_trust(*, context: str, environ: Mapping[str, str] = os.environ) -> Path | None:
    """The folder with what one is known by, by the order that the module tells; None: nothing says."""
    if environ.get("ORCH_TRUST"):
        return Path(environ["ORCH_TRUST"])
    known = load(default_path(environ))
    return known.trust(context or known.current)


def trust_folder(context: str, environ: Mapping[str, str] = os.environ) -> Path:
    """Where a context's folder is that one logs in to."""
    if not _CONTEXT.fullmatch(context):
        raise InvalidInput(f"not a context's name: {context!r}", hint="letters, digits, and . _ - between them")
    return default_path(environ).parent / "trust" / context


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else " ".join(str(error).split())
