"""`orchctl edit`: an object in an editor."""

import click

from manifests import wish
from orchctl import client, complete, editing, errors, options, queries, terminal, waiting, words
from orchctl.progress import Target
from protos import kinds
from protos.orch.v1 import control_pb2 as control
from protos.orch.v1 import objects_pb2 as pb

ATTEMPTS = 5


@click.command()
@click.argument("what", nargs=-1, required=True, metavar="KIND NAME", shell_complete=complete.kind_then_names)
@options.detach
@options.timeout
@options.with_settings
def command(settings: options.Settings, what: tuple[str, ...], detach: bool, timeout_ms: int) -> None:
    """Open an object in $VISUAL or $EDITOR, apply what was made of it, then wait until it is so.

    A text with a mistake is opened again, with the mistake above it. So is one whose object somebody else has changed
    meanwhile, with their change above it. A text without a change writes nothing.

    \b
    Examples:
      orchctl edit service web
      EDITOR=nano orchctl edit node n1
    """
    references = words.split_references(what)
    if len(references) != 1:
        raise errors.InvalidInput("one object at a time can be edited")
    kind, name = references[0]
    if not kind.written_by_people:
        raise errors.InvalidInput(f"a {kind.name} is made by the system and cannot be edited")
    original = _fetch(settings, kind, name)
    draft = editing.Draft(original)
    written = _edited(settings, draft, original)
    draft.remove()
    terminal.say(f"{words.short(original)} {'changed' if written else 'unchanged'}")
    if isinstance(written, pb.Service) and not detach:
        waiting.until_settled(settings.server, [Target.of(written)], timeout_ms)


def _edited(
    settings: options.Settings, draft: editing.Draft, original: kinds.StoredObject
) -> kinds.StoredObject | None:
    """The object as it was written; None when there was nothing to write."""
    remarks: list[str] = []
    while True:
        text = draft.edit(remarks)
        if not text.strip():
            return None
        try:
            wanted = editing.parse(text, original)
            if wish.of(wanted) == wish.of(original):
                return None
            return _apply(settings, wanted, original)
        except editing.Overtaken as overtaken:
            remarks = editing.remarks_of_change(original, overtaken.fresh)
            original = overtaken.fresh
        except (errors.InvalidInput, errors.NotFound, errors.Refused) as error:
            remarks = editing.remarks_of(error)
        except errors.Unreachable as error:
            raise draft.given_up(error.message) from error


def _apply(
    settings: options.Settings, wanted: kinds.StoredObject, original: kinds.StoredObject
) -> kinds.StoredObject | None:
    """Overtaken when a field that people write has changed since `original` was read."""
    result = _insist(settings, wanted, original)
    for change in result.changes:
        terminal.say(f"  {change}")
    for warning in result.warnings:
        terminal.note(f"warning: {terminal.one_line(warning)}")
    unchanged = result.action == control.APPLY_ACTION_UNCHANGED
    return None if unchanged else kinds.unwrap(result.object)


def _insist(
    settings: options.Settings, wanted: kinds.StoredObject, original: kinds.StoredObject
) -> control.ApplyResult:
    """A few times: versions also rise when the system writes a status, which is nobody's text."""
    fresh = original
    for _ in range(ATTEMPTS):
        wanted.meta.version, wanted.meta.generation = fresh.meta.version, fresh.meta.generation
        request = control.ApplyRequest(objects=[kinds.wrap(wanted)])
        try:
            with client.connect(settings.server) as stub:
                (result,) = stub.Apply(request, timeout=client.APPLY_TIMEOUT_S).results
        except errors.Outdated:
            fresh = _fetch(settings, kinds.of(original), original.meta.name)
            if wish.of(fresh) != wish.of(original):
                raise editing.Overtaken(fresh) from None
        else:
            return result
    raise errors.Refused(f"it changes all the time: {ATTEMPTS} times while this was written", hint="save it once more")


def _fetch(settings: options.Settings, kind: kinds.Kind, name: str) -> kinds.StoredObject:
    with client.connect(settings.server) as stub:
        return queries.find(stub, kind, name, settings.namespace if kind.namespaced else "")
