"""Who may call what: one row a call, for every call of every service.

Two rules. A call without a row is refused to everybody, and a test finds it. And a role that is bound to namespaces
reaches nothing outside them: it reads what belongs to the whole cluster (nodes, images), and changes none of it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controlplane.core import request_errors as errors
from protos import kinds
from protos.orch.v1 import control_pb2 as api
from protos.orch.v1 import objects_pb2 as pb
from trust.core.identity import PEOPLE, Identity, Role

DEFAULT_NAMESPACE = "default"
METRICS = "/metrics"
"""What Prometheus reads, of instances and of nodes. It is no RPC, and has its rule all the same."""
ANYWHERE = ""
"""What a request touches when it is not said in which namespace: all of them."""

Scope = Callable[[Any], Iterable[str | None]]
"""The namespaces that a request's first message touches. None: something of the whole cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """`cluster_wide`: roles that may also do it to what belongs to no namespace; `unbound`: if they are bound to none.

    `reads`: it changes nothing.
    """

    roles: frozenset[Role]
    scope: Scope
    cluster_wide: frozenset[Role]
    unbound: bool
    reads: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls, with which key, and what they are bound to. `namespaces` empty: to nothing.

    `node_name`: what people call a node, as it joined.
    """

    identity: Identity
    namespaces: Sequence[str] = ()
    key_digest: str = ""
    node_name: str = ""


def check(method: str, caller: Caller) -> Rule:
    """The rule of a call that this caller may make at all, such as `/orch.v1.Control/Apply`. Raises Forbidden."""
    rule = RULES.get(method)
    what = method.rpartition("/")[2]
    if rule is None:
        raise errors.Forbidden(f"{what} has no rule, so that nobody may call it", hint="please report it")
    if caller.identity.role not in rule.roles:
        raise errors.Forbidden(f"{caller.identity} may not call {what}", hint=f"{_words(rule.roles)} may")
    return rule


def check_request(method: str, rule: Rule, caller: Caller, request: Any) -> None:
    """Whether what a message asks for is within the caller's bounds. Raises Forbidden."""
    role, bound = caller.identity.role, caller.namespaces
    what = method.rpartition("/")[2]
    for namespace in rule.scope(request):
        if namespace is None:
            if role not in rule.cluster_wide or (bound and rule.unbound):
                text = f"{caller.identity} may not call {what} for what belongs to the whole cluster"
                raise errors.Forbidden(text, hint=f"{_words(rule.cluster_wide)} may, when bound to no namespace")
        elif bound and namespace not in bound:
            place = f"in namespace {namespace}" if namespace else "in all namespaces at once"
            text = f"{caller.identity} may not call {what} {place}"
            raise errors.Forbidden(text, hint=f"their role is for {_listed(bound)} only; name one with -n")


def _words(roles: Iterable[Role]) -> str:
    names = [str(one) for one in Role if one in set(roles)]
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _listed(names: Sequence[str]) -> str:
    return f"namespace{'s' if len(names) > 1 else ''} {', '.join(names)}"


# What a request touches ---------------------------------------------------------------------------------------------


def _nothing(_request: Any) -> Iterable[str | None]:
    return ()


def _cluster(_request: Any) -> Iterable[str | None]:
    return (None,)


def _of_kind(name: str, namespace: str) -> str | None:
    """A kind that nobody knows is refused later; until then it is of the whole cluster."""
    kind = kinds.by_name(name)
    return namespace if kind is not None and kind.namespaced else None


def _everywhere(_request: Any) -> Iterable[str | None]:
    return (ANYWHERE,)


def _reference(request: Any) -> Iterable[str | None]:
    reference = request.reference
    return (_of_kind(reference.kind, reference.namespace or DEFAULT_NAMESPACE),)


def _selection(request: api.ListRequest) -> Iterable[str | None]:
    return (_of_kind(request.kind, request.namespace or ANYWHERE),)


def _selections(request: api.WatchRequest) -> Iterable[str | None]:
    return [place for one in request.selections for place in _selection(one)]


def _objects(request: api.ApplyRequest) -> Iterable[str | None]:
    for envelope in request.objects:
        field = envelope.WhichOneof("kind")
        if field is not None:
            meta: pb.Meta = getattr(envelope, field).meta
            yield _of_kind(field, meta.namespace or DEFAULT_NAMESPACE)


def _namespace(request: Any) -> Iterable[str | None]:
    return (request.namespace or DEFAULT_NAMESPACE,)


def _started(request: api.ExecRequest | api.CommitRequest) -> Iterable[str | None]:
    """Only the first message says where."""
    return _namespace(request.start) if request.WhichOneof("message") == "start" else ()


# The table ----------------------------------------------------------------------------------------------------------

_ADMIN = frozenset({Role.ADMIN})
_EDITORS = frozenset({Role.ADMIN, Role.EDITOR})
_NODE = frozenset({Role.NODE})
_MACHINES = frozenset({Role.NODE, Role.CONTROLPLANE})
_ALL = frozenset(Role)


def _read(scope: Scope, roles: frozenset[Role] = PEOPLE) -> Rule:
    return Rule(roles=roles, scope=scope, cluster_wide=roles, unbound=False, reads=True)


def _oversee(roles: frozenset[Role] = _ADMIN) -> Rule:
    """Reads what is of all namespaces together."""
    return Rule(roles=roles, scope=_cluster, cluster_wide=roles, unbound=True, reads=True)


def _change(scope: Scope, roles: frozenset[Role] = _EDITORS, cluster_wide: frozenset[Role] = _ADMIN) -> Rule:
    return Rule(roles=roles, scope=scope, cluster_wide=cluster_wide, unbound=True, reads=False)


_OWN = _read(_nothing, _NODE)
"""What a node may have is told by its tasks, which the handler looks at."""

RULES: Mapping[str, Rule] = {
    "/orch.v1.Control/Apply": _change(_objects),
    "/orch.v1.Control/Get": _read(_reference),
    "/orch.v1.Control/List": _read(_selection),
    "/orch.v1.Control/Watch": _read(_selections),
    "/orch.v1.Control/Delete": _change(_reference),
    "/orch.v1.Control/Scale": _change(_reference),
    "/orch.v1.Control/UpdateMeta": _change(_reference),
    "/orch.v1.Control/Rollout": _change(_reference),
    "/orch.v1.Control/UpdateNode": _change(_cluster, _ADMIN),
    "/orch.v1.Control/Logs": _read(_namespace),
    "/orch.v1.Control/Exec": _change(_started),
    # It gives away what is in the container, as a command in it could.
    "/orch.v1.Control/Commit": _change(_started),
    # Images are the whole cluster's: who may put one under a name that others run, runs it there.
    "/orch.v1.Control/ImportImage": _change(_cluster, cluster_wide=_EDITORS),
    "/orch.v1.Control/MissingBlobs": _oversee(_EDITORS),
    "/orch.v1.Control/PushBlob": _change(_cluster, cluster_wide=_EDITORS),
    "/orch.v1.Control/PushImage": _change(_cluster, cluster_wide=_EDITORS),
    "/orch.v1.Control/CheckNetwork": _change(_cluster, cluster_wide=_EDITORS),
    "/orch.v1.Control/Usage": _read(_everywhere),
    # It sends packets from every node, as CheckNetwork does.
    "/orch.v1.Control/Diagnose": _change(_cluster, cluster_wide=_EDITORS),
    "/orch.v1.Control/Examine": _read(_nothing, frozenset({Role.CONTROLPLANE})),
    "/orch.v1.Control/Why": _read(_namespace),
    # Moves tasks of every namespace.
    "/orch.v1.Control/Rebalance": _change(_cluster, cluster_wide=_EDITORS),
    "/orch.v1.Control/Version": _read(_nothing, _ALL),
    "/orch.v1.Dispatcher/Session": _OWN,
    "/orch.v1.Dispatcher/Stream": _OWN,
    "/orch.v1.Dispatcher/ResolveImage": _OWN,
    "/orch.v1.Dispatcher/FindBlob": _OWN,
    "/orch.v1.Dispatcher/MayFetch": _OWN,
    "/orch.v1.Blobs/Fetch": _read(_nothing, _MACHINES),
    "/orch.v1.Trust/Renew": _read(_nothing, _ALL),
    "/orch.v1.Trust/Confirm": _read(_nothing, PEOPLE | _NODE),
    "/orch.v1.Trust/ListTokens": _oversee(),
    "/orch.v1.Trust/CreateToken": _change(_cluster, _ADMIN),
    "/orch.v1.Trust/RevokeToken": _change(_cluster, _ADMIN),
    "/orch.v1.Trust/ListMembers": _oversee(),
    "/orch.v1.Trust/RevokeMember": _change(_cluster, _ADMIN),
    "/orch.v1.Trust/RotateRoot": _change(_cluster, _ADMIN),
    "/orch.v1.Trust/MayRead": _OWN,
    "/grpc.health.v1.Health/Check": _read(_nothing, _ALL),
    "/grpc.health.v1.Health/List": _read(_nothing, _ALL),
    "/grpc.health.v1.Health/Watch": _read(_nothing, _ALL),
    METRICS: _read(_everywhere),
    "/orch.v1.Trust/ListAudit": _oversee(),
}
