"""What a build writes down about an image beside its files: the container's configuration and the history.

Rules. Values only: an instruction gives new `Settings`, nothing is looked at. What the base image's config has, and we
do not know, is kept. The words are Docker's image specification, which OCI's is a part of.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from images import documents
from images.build import instructions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from images.build.instructions import Command, Instruction
    from images.manifest import Platform

DEFAULT_SHELL = ("/bin/sh", "-c")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of the history. `empty` says that it made no layer."""

    created: str
    created_by: str
    empty: bool
    author: str = ""
    comment: str = ""

    def as_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {"created": self.created, "created_by": self.created_by}
        value |= {key: text for key, text in (("author", self.author), ("comment", self.comment)) if text}
        return {**value, "empty_layer": True} if self.empty else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`config` is the part that a container starts by, in Docker's words; `history` as it goes into the document.

    `has_own_cmd` tells whether the stage has said CMD itself: an ENTRYPOINT drops one that was inherited.
    """

    config: Mapping[str, Any]
    history: tuple[Mapping[str, Any], ...] = ()
    author: str = ""
    has_own_cmd: bool = False

    @property
    def env(self) -> dict[str, str]:
        """The variables by their names, in order."""
        pairs = (entry.partition("=") for entry in self.config.get("Env") or ())
        return {name: value for name, _, value in pairs}

    def entries(self, name: str) -> dict[str, Any]:
        """A part of the configuration that is a map."""
        return dict(self.config.get(name) or {})

    @property
    def workdir(self) -> str:
        return str(self.config.get("WorkingDir") or "/")

    @property
    def user(self) -> str:
        return str(self.config.get("User") or "")

    @property
    def shell(self) -> tuple[str, ...]:
        return tuple(self.config.get("Shell") or DEFAULT_SHELL)

    @property
    def triggers(self) -> tuple[str, ...]:
        return tuple(self.config.get("OnBuild") or ())

    def told(self, event: Event) -> Settings:
        """The same with one more line of history."""
        return replace(self, history=(*self.history, event.as_json()))

    def document(self, platform: Platform, diff_ids: tuple[str, ...], created: str) -> bytes:
        """The config blob: canonical, so that equal images have equal digests."""
        value: dict[str, Any] = {
            "architecture": platform.architecture,
            "os": platform.os,
            "config": {key: entry for key, entry in self.config.items() if entry},
            "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
            "history": [dict(entry) for entry in self.history],
            "created": created,
        }
        if platform.variant:
            value["variant"] = platform.variant
        if self.author:
            value["author"] = self.author
        return documents.dump(value)


SCRATCH = Settings(config={"Env": [f"PATH={DEFAULT_PATH}"]})


def inherited(data: bytes, *, what: str) -> Settings:
    """The settings that a stage begins with, from the config blob of its base. Triggers are still in it."""
    document = documents.parse(data, what=what)
    config = document.child("config")
    _check(config)
    found = dict(config.fields)
    names = [entry.partition("=")[0] for entry in config.texts("Env")]
    if "PATH" not in names:
        found["Env"] = [*(found.get("Env") or ()), f"PATH={DEFAULT_PATH}"]
    return Settings(
        config=found,
        history=_whole_history(document),
        author=document.text("author", ""),
    )


def _check(config: documents.Object) -> None:
    """`InvalidImage` unless what instructions build upon has its form; what is only kept may be anything."""
    for name in ("Env", "OnBuild", "Shell", "Cmd", "Entrypoint"):
        config.texts(name)
    for name in ("WorkingDir", "User"):
        config.text(name, "")
    for name in ("Labels", "ExposedPorts", "Volumes"):
        config.child(name)


def _whole_history(document: documents.Object) -> tuple[Mapping[str, Any], ...]:
    """The base's history, with a line for each layer: else those that follow would be taken for lines of its layers."""
    told = tuple(dict(entry.fields) for entry in document.children("history"))
    layers = len(document.child("rootfs").texts("diff_ids"))
    missing = layers - sum(not entry.get("empty_layer") for entry in told)
    return (*({"comment": "its image does not tell"},) * missing, *told)


def without_triggers(settings: Settings) -> Settings:
    """Triggers are carried out once, in the build that inherits them."""
    return _with(settings, OnBuild=[])


def workdir(settings: Settings, path: str) -> str:
    """The absolute path of a WORKDIR, or of a COPY's target: from where the last one led."""
    joined = path if path.startswith("/") else f"{settings.workdir}/{path}"
    parts: list[str] = []
    for part in joined.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in {"", "."}:
            parts.append(part)
    return "/" + "/".join(parts)


def applied(settings: Settings, instruction: Instruction) -> Settings:
    """What an instruction that only writes something down makes of the settings; its variables are replaced."""
    match instruction:
        case instructions.Cmd(command=command):
            return replace(_with(settings, Cmd=list(words(settings, command))), has_own_cmd=True)
        case instructions.Entrypoint(command=command):
            return _entrypoint(settings, words(settings, command))
        case instructions.Maintainer(name=name):
            return replace(settings, author=name)
        case _:
            return _with(settings, **_changes(settings, instruction))


def _changes(settings: Settings, instruction: Instruction) -> dict[str, Any]:
    """The entries of the configuration that an instruction replaces."""
    match instruction:
        case instructions.Env(variables=variables):
            return {"Env": [f"{name}={value}" for name, value in {**settings.env, **dict(variables)}.items()]}
        case instructions.Label(labels=labels):
            return {"Labels": {**settings.entries("Labels"), **dict(labels)}}
        case instructions.Expose(ports=ports):
            return {"ExposedPorts": {**settings.entries("ExposedPorts"), **{port: {} for port in ports}}}
        case instructions.Volume(paths=paths):
            return {"Volumes": {**settings.entries("Volumes"), **{path: {} for path in paths}}}
        case instructions.Onbuild(text=text):
            return {"OnBuild": [*settings.triggers, text]}
        case instructions.Healthcheck():
            return {"Healthcheck": _healthcheck(instruction)}
        case _:
            return _words_of(settings, instruction)


def _words_of(settings: Settings, instruction: Instruction) -> dict[str, Any]:
    match instruction:
        case instructions.Workdir(path=path):
            return {"WorkingDir": workdir(settings, path)}
        case instructions.User(user=user):
            return {"User": user}
        case instructions.Stopsignal(signal=signal):
            return {"StopSignal": signal}
        case instructions.Shell(words=shell):
            return {"Shell": list(shell)}
        case _:
            return {}


def words(settings: Settings, command: Command) -> tuple[str, ...]:
    """A command's words; a line is given to the shell."""
    return (*settings.shell, command.line) if command.is_shell else command.words


def _with(settings: Settings, **changes: Any) -> Settings:
    return replace(settings, config={**settings.config, **changes})


def _entrypoint(settings: Settings, wanted: tuple[str, ...]) -> Settings:
    changed = _with(settings, Entrypoint=list(wanted))
    return changed if settings.has_own_cmd else _with(changed, Cmd=[])


def _healthcheck(check: instructions.Healthcheck) -> dict[str, Any]:
    command = check.command
    if command is None:
        return {"Test": ["NONE"]}
    test = ["CMD", *command.words] if command.words else ["CMD-SHELL", command.line]
    numbers = {
        "Interval": check.interval_ns,
        "Timeout": check.timeout_ns,
        "StartPeriod": check.start_period_ns,
        "StartInterval": check.start_interval_ns,
        "Retries": check.retries,
    }
    return {"Test": test, **{name: number for name, number in numbers.items() if number}}
