"""What is said about the images of a store: the table, the page, the history, and the same for programs. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from images import collect, differences, image, reference
from orchctl import amounts, pages, phrases, tables, terminal
from protos import units

NO_NAME = "-"
_UNPACKED = "unpacked "
_TITLES = ("NAME", "DIGEST", "CREATED", "SIZE", "SHARED", "UNIQUE")
_WIDE_TITLES = ("ID", "PLATFORM", "LAYERS", "UNPACKED", "USED", "FULL DIGEST")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """An image and what it takes: its blobs, of those what others need too, and its unpacked layers, in bytes."""

    image: image.Image
    size_bytes: int
    shared_bytes: int
    unpacked_bytes: int
    used_at_ms: int

    @property
    def unique_bytes(self) -> int:
        return self.size_bytes - self.shared_bytes

    @property
    def created_at_ms(self) -> int:
        return created_at_ms(self.image.config.created)


def lines(images: Sequence[image.Image], stored: Sequence[collect.Stored]) -> list[Line]:
    """The images together with what the store knows of each, in the order of `images`."""
    blobs = [_blobs_only(each) for each in stored]
    unique = collect.unique_bytes(blobs)
    sizes = {key: (each, unique[each.digest]) for each in blobs for key in each.names or (each.digest,)}
    whole = {each.digest: each for each in stored}
    found = []
    for one in images:
        part, unique_bytes = sizes[one.names[0] if one.names else one.digest]
        found.append(
            Line(
                image=one,
                size_bytes=part.size_bytes,
                shared_bytes=part.size_bytes - unique_bytes,
                unpacked_bytes=whole[part.digest].size_bytes - part.size_bytes,
                used_at_ms=int(part.used_at_s * 1000),
            )
        )
    return found


def _blobs_only(stored: collect.Stored) -> collect.Stored:
    parts = {part: size for part, size in stored.parts.items() if not part.startswith(_UNPACKED)}
    return collect.Stored(digest=stored.digest, names=stored.names, used_at_s=stored.used_at_s, parts=parts)


def table(found: Sequence[Line], now_ms: int, *, wide: bool, limit: int = 0) -> list[str]:
    """A row for each name, and for each image that has none."""
    titles = [*_TITLES, *(_WIDE_TITLES if wide else ())]
    rows = [
        [name, *_cells(line, now_ms), *(_wide_cells(line, now_ms) if wide else ())]
        for line in found
        for name in [familiar(each) for each in line.image.names] or [NO_NAME]
    ]
    return _table(titles, sorted(rows, key=lambda row: (row[0] == NO_NAME, row)), limit=limit)


def _cells(line: Line, now_ms: int) -> list[str]:
    sizes = (line.size_bytes, line.shared_bytes, line.unique_bytes)
    return [amounts.digest(line.image.digest), ago(line.created_at_ms, now_ms), *map(amounts.size, sizes)]


def _wide_cells(line: Line, now_ms: int) -> list[str]:
    return [
        amounts.digest(line.image.config_digest),
        str(line.image.platform),
        str(len(line.image.layers)),
        amounts.size(line.unpacked_bytes) if line.unpacked_bytes else "-",
        ago(line.used_at_ms, now_ms),
        line.image.digest,
    ]


def document(one: image.Image) -> dict[str, Any]:
    """An image in full, for programs; what is empty is left out."""
    config = one.config
    return _filled(
        {
            "names": [familiar(name) for name in one.names],
            "digest": one.digest,
            "id": one.config_digest,
            "created": config.created,
            "platform": str(one.platform),
            "sizeBytes": one.size_bytes,
            "config": _filled(
                {
                    "entrypoint": list(config.entrypoint),
                    "cmd": list(config.cmd),
                    "env": list(config.env),
                    "workingDir": config.working_dir,
                    "user": config.user,
                    "exposedPorts": list(config.exposed_ports),
                    "volumes": list(config.volumes),
                    "labels": dict(config.labels),
                    "stopSignal": config.stop_signal,
                }
            ),
            "layers": [_layer(layer) for layer in one.layers],
            "history": [step(each) for each in one.history],
        }
    )


def listed(line: Line) -> dict[str, Any]:
    """An image as one item of `ls -o json`."""
    one = line.image
    return {
        "names": [familiar(name) for name in one.names],
        "digest": one.digest,
        "id": one.config_digest,
        "created": one.config.created,
        "platform": str(one.platform),
        "layers": len(one.layers),
        "sizeBytes": line.size_bytes,
        "sharedBytes": line.shared_bytes,
        "uniqueBytes": line.unique_bytes,
        "unpackedBytes": line.unpacked_bytes,
    }


def _layer(layer: image.Layer) -> dict[str, Any]:
    return {
        "digest": layer.digest,
        "diffId": layer.diff_id,
        "sizeBytes": layer.size_bytes,
        "mediaType": layer.media_type,
    }


def _filled(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value not in ("", [], {})}


def page(one: image.Image, now_ms: int) -> list[str]:
    """An image in full, for people."""
    config = one.config
    layers = [[amounts.digest(each.digest), amounts.size(each.size_bytes), _form(each)] for each in one.layers]
    return [
        *pages.facts(
            ("Names", ", ".join(familiar(name) for name in one.names)),
            ("Digest", one.digest),
            ("Id", one.config_digest),
            ("Created", phrases.timestamp(created_at_ms(config.created), now_ms)),
            ("Platform", str(one.platform)),
            ("Size", amounts.size(one.size_bytes)),
            ("Entrypoint", _words(config.entrypoint)),
            ("Cmd", _words(config.cmd)),
            ("Working dir", config.working_dir),
            ("User", config.user),
            ("Ports", ", ".join(config.exposed_ports)),
            ("Volumes", ", ".join(config.volumes)),
            ("Stop signal", config.stop_signal),
        ),
        *pages.section("Environment", [terminal.one_line(variable) for variable in config.env]),
        *pages.section("Labels", [terminal.one_line(f"{key}={value}") for key, value in sorted(config.labels.items())]),
        *pages.section("Layers", _table(["DIGEST", "SIZE", "COMPRESSION"], layers) if layers else []),
    ]


def history(one: image.Image, now_ms: int, *, limit: int = 0) -> list[str]:
    """What made the image, the newest first. A step that made a layer has its size."""
    rows = []
    layers = iter(one.layers)
    for each in one.history:
        layer = None if each.is_empty else next(layers, None)
        size = amounts.size(layer.size_bytes) if layer else "-"
        rows.append([ago(created_at_ms(each.created), now_ms), size, each.created_by or "-", each.comment or "-"])
    # An image need not tell everything: layers without a step come on top, as they do in the file system.
    rows += [["-", amounts.size(layer.size_bytes), amounts.digest(layer.digest), "-"] for layer in layers]
    return _table(["CREATED", "SIZE", "CREATED BY", "COMMENT"], rows[::-1], limit=limit)


def step(one: image.Step) -> dict[str, Any]:
    """A line of the history, for programs."""
    texts = {"created": one.created, "createdBy": one.created_by, "author": one.author, "comment": one.comment}
    return {**_filled(texts), **({"isEmpty": True} if one.is_empty else {})}


def changes(found: Sequence[differences.Change]) -> list[str]:
    """A row for each path: what happened to it, and its size before and after."""
    rows = [[one.kind, one.path, _sizes(one), ", ".join(one.what)] for one in found]
    return _table(["CHANGE", "PATH", "SIZE", "WHAT"], rows)


def _sizes(one: differences.Change) -> str:
    match one.kind:
        case "added":
            return amounts.size(one.after_bytes)
        case "removed":
            return amounts.size(one.before_bytes)
        case _ if one.before_bytes == one.after_bytes:
            return amounts.size(one.after_bytes)
        case _:
            return f"{amounts.size(one.before_bytes)} → {amounts.size(one.after_bytes)}"


def change(one: differences.Change) -> dict[str, Any]:
    """A difference, for programs."""
    sizes = {"beforeBytes": one.before_bytes, "afterBytes": one.after_bytes}
    return {"path": one.path, "change": one.kind, **({"what": list(one.what)} if one.what else {}), **sizes}


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]], *, limit: int = 0) -> list[str]:
    """Images come from strangers: a cell is one clean line, whatever they wrote."""
    return tables.table(titles, [[terminal.one_line(cell) for cell in row] for row in rows], limit=limit)


def familiar(name: str) -> str:
    """`docker.io/library/web:latest` → `web:latest`."""
    return reference.parse(name).familiar


def ago(moment_ms: int, now_ms: int) -> str:
    """How long ago, in short; a dash where nobody said when."""
    return amounts.age(now_ms - moment_ms) if moment_ms > 0 else "-"


def created_at_ms(text: str) -> int:
    """RFC 3339 → milliseconds since 1970; 0 for what is none, and for the fixed time of reproducible images."""
    try:
        return units.parse_timestamp(text)
    except ValueError:
        return 0


def _form(layer: image.Layer) -> str:
    return next((form for form in ("gzip", "zstd") if layer.media_type.endswith(form)), "none")


def _words(words: Sequence[str]) -> str:
    """As a list: the borders between words matter."""
    return json.dumps(list(words), ensure_ascii=False) if words else ""
