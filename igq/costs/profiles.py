"""Latency tables as JSON, read strictly: every field is there and as it must be."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from enum import StrEnum
from typing import Any, TypeVar

from igq.costs.latency import TIMED, Machine, Operator, Profile, Timing, check_duration
from igq.errors import InvalidArgumentError, ProfileError
from igq.layer import Kind
from igq.scheme import Assignment, InputMethod, Rotation, Scheme, SoftmaxMethod, WeightMethod
from igq.settings import Setting

SCHEMA = 1
MOST_OPERATORS, MOST_TIMINGS = 10_000, 100_000
"""Bounds of a table that is read (our choice)."""

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)


def profile_json(profile: Profile) -> dict[str, Any]:
    """Return a profile as plain data; `profile_of` reads it.

    >>> from igq.costs.latency import Machine
    >>> machine = Machine("AMD EPYC", "avx512", 1)
    >>> made = Profile("server", machine, "0.2.0", "vit_tiny", Scheme.BEST, (), rest_ms=0.5)
    >>> profile_of(profile_json(made)) == made
    True
    """
    return {
        "schema": SCHEMA,
        "target": profile.target,
        "machine": asdict(profile.machine),
        "runtime": profile.runtime,
        "model": profile.model,
        "scheme": {name: value.value for name, value in vars(profile.scheme).items()},
        "rest_ms": profile.rest_ms,
        "operators": [_operator_json(operator) for operator in profile.operators],
    }


def _operator_json(operator: Operator) -> dict[str, Any]:
    return {
        "kind": operator.kind.value,
        "shape": list(operator.shape),
        "layers": list(operator.layers),
        "timings": {
            str(setting): {
                "median_ms": timing.median_ms,
                "spread_ms": timing.spread_ms,
                **({"fitted": True} if timing.fitted else {}),
            }
            for setting, timing in operator.timings.items()
        },
    }


def profile_of(content: object) -> Profile:
    """Return the profile that plain data holds.

    Raises:
        ProfileError: a field is missing, unknown, of another type or out of bounds.

    >>> profile_of([])
    Traceback (most recent call last):
    igq.errors.ProfileError: a latency table must be a mapping, but got [].
    """
    fields = _mapping("a latency table", content)
    if type(schema := fields.get("schema")) is not int or schema != SCHEMA:
        raise ProfileError(f"`schema` of a latency table must be {SCHEMA}, but got {schema!r}.")
    names = ("schema", "target", "machine", "runtime", "model", "scheme", "rest_ms", "operators")
    _check_names("a latency table", fields, names)
    operators = _list("operators", fields["operators"], MOST_OPERATORS)
    return Profile(
        _text("target", fields["target"]),
        _machine(fields["machine"]),
        _text("runtime", fields["runtime"]),
        _text("model", fields["model"]),
        _scheme(fields["scheme"]),
        tuple(_operator(f"operators[{i}]", operator) for i, operator in enumerate(operators)),
        check_duration("rest_ms", fields["rest_ms"]),
    )


def _machine(content: object) -> Machine:
    fields = _mapping("`machine`", content)
    _check_names("`machine`", fields, ("processor", "instructions", "threads"))
    return Machine(
        _text("machine.processor", fields["processor"]),
        _text("machine.instructions", fields["instructions"]),
        _count("machine.threads", fields["threads"]),
    )


def _scheme(content: object) -> Scheme:
    fields = _mapping("`scheme`", content)
    _check_names("`scheme`", fields, ("inputs", "softmax", "assignment", "rotation", "weights"))
    return Scheme(
        _one_of("scheme.inputs", fields["inputs"], InputMethod),
        _one_of("scheme.softmax", fields["softmax"], SoftmaxMethod),
        _one_of("scheme.assignment", fields["assignment"], Assignment),
        _one_of("scheme.rotation", fields["rotation"], Rotation),
        _one_of("scheme.weights", fields["weights"], WeightMethod),
    )


def _operator(name: str, content: object) -> Operator:
    fields = _mapping(f"`{name}`", content)
    _check_names(f"`{name}`", fields, ("kind", "shape", "layers", "timings"))
    kind = _one_of(f"{name}.kind", fields["kind"], Kind)
    if kind not in TIMED:
        raise _refused(f"{name}.kind", f"one of {', '.join(TIMED)}", kind.value)
    shape = _list(f"{name}.shape", fields["shape"], most=3)
    if len(shape) != 3:
        raise _refused(f"{name}.shape", "three numbers", shape)
    tokens, channels, outputs = (_count(f"{name}.shape", number) for number in shape)
    layers = _list(f"{name}.layers", fields["layers"], MOST_OPERATORS)
    timings = _mapping(f"`{name}.timings`", fields["timings"])
    if len(timings) > MOST_TIMINGS:
        raise _refused(f"{name}.timings", f"at most {MOST_TIMINGS} settings", len(timings))
    return Operator(
        kind,
        (tokens, channels, outputs),
        tuple(_text(f"{name}.layers", layer) for layer in layers),
        {_setting(name, key): _timing(f"{name}.timings.{key}", t) for key, t in timings.items()},
    )


def _timing(name: str, content: object) -> Timing:
    fields = _mapping(f"`{name}`", content)
    _check_names(f"`{name}`", {**fields, "fitted": None}, ("median_ms", "spread_ms", "fitted"))
    fitted = fields.get("fitted", False)
    if not isinstance(fitted, bool):
        raise _refused(f"{name}.fitted", "true or false", fitted)
    median, spread = (check_duration(f"{name}.{n}", fields[n]) for n in ("median_ms", "spread_ms"))
    return Timing(median, spread, fitted)


def _setting(name: str, label: str) -> Setting:
    try:
        return Setting.parse(label)
    except InvalidArgumentError as error:
        raise ProfileError(f"`{name}.timings`: {error}") from None


def _check_names(what: str, fields: Mapping[str, object], names: tuple[str, ...]) -> None:
    odd = sorted(set(fields) ^ set(names))
    if odd:
        state = "is unknown" if odd[0] in fields else "is missing"
        raise ProfileError(f"{what} must have {', '.join(names)}, but {odd[0]} {state}.")


def _mapping(what: str, content: object) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise ProfileError(f"{what} must be a mapping, but got {content!r:.100}.")
    return content


def _list(name: str, content: object, most: int) -> list[Any]:
    return _checked(name, f"a list of at most {most}", content, list, lambda x: len(x) <= most)


def _text(name: str, content: object) -> str:
    return _checked(name, "a text", content, str, bool)


def _count(name: str, content: object) -> int:
    return _checked(name, "a whole number from 1", content, int, lambda x: x >= 1)


def _checked(name: str, rule: str, content: object, kind: type[T], holds: Callable[[T], bool]) -> T:
    if not isinstance(content, kind) or isinstance(content, bool) or not holds(content):
        raise _refused(name, rule, content)
    return content


def _one_of(name: str, content: object, kind: type[E]) -> E:
    try:
        return kind(_text(name, content))
    except ValueError:
        raise _refused(name, f"one of {', '.join(kind)}", content) from None


def _refused(name: str, rule: str, value: object) -> ProfileError:
    return ProfileError(f"`{name}` must be {rule}, but got {value!r:.100}.")
