"""What pydantic found wrong, in words for whoever wrote the file."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel

from metaprotocol.diagnostics import Diagnostic, Origin, Severity, did_you_mean, join_path, shorten
from metaprotocol.resources.base import Model, Problem, known_fields
from metaprotocol.resources.match import StringMatch
from metaprotocol.resources.yaml_positions import Position, parse_path
from metaprotocol.resources.yaml_reader import plain_value

__all__ = ["explain", "explain_made_in_code", "warnings"]

Path = tuple[str | int, ...]
Keys = Mapping[Path, int] | None
"""Where some keys are in a document, as in ``Value.keys``; None: that is not known."""

# Beyond as many different words a file is no file with mistakes, and comparing takes time.
_SUGGESTIONS = 500


def explain(
    model: type[BaseModel],
    errors: Sequence[Any],
    document: _Written,
    name: str,
) -> Iterator[Diagnostic]:
    """Diagnostics for pydantic's errors about an object, in the order of the errors.

    `name` is the object's, as in ``Diagnostic.object``."""
    teller = _Teller(model, document, name)
    for error in errors:
        yield from teller.tell(error)


def explain_made_in_code(
    model: type[BaseModel], problem: ValidationError, given: Mapping[str, Any]
) -> list[Diagnostic]:
    """The same of an object, or a part of one, that was to be made in code from these fields."""
    name = model.__name__
    metadata = given.get("metadata")
    if isinstance(own := getattr(metadata, "name", None), str):
        name = f"{name} {shorten(getattr(metadata, 'namespace', 'default'))}/{shorten(own)}"
    return list(explain(model, problem.errors(include_url=False), _InCode(given), name))


class _Written(Protocol):
    """Where an object's values are written, and how."""

    @property
    def file(self) -> str: ...

    def position(self, path: Path) -> Position | None: ...

    def origin_of(self, _field: str | Path, /) -> Origin | None: ...

    def origin_of_one(self, _path: Path, _keys: Keys, /) -> Origin | None: ...


class _InCode:
    """Values that are in no file: they have no place, and are shown as Python shows them."""

    file = ""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given

    def position(self, path: Path) -> Position | None:
        value: Any = self._given
        for step in path:
            if isinstance(value, BaseModel):
                value = value.__dict__
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                if not isinstance(value, Mapping) or not isinstance(step, str):
                    return None
                # By its Python name, while the path has that of YAML.
                known = {to_camel(str(key)): item for key, item in value.items()}
                if step not in known:
                    return None
                value = known[step]
        if not isinstance(value, str | int | float | bool | None):
            return None
        return Position(0, 0, 0, 0, str(value), not isinstance(value, str), {})

    def origin_of(self, _field: str | Path) -> None:
        return None

    def origin_of_one(self, _path: Path, _keys: Keys) -> None:
        return None


class _Teller:
    def __init__(self, model: type[BaseModel], document: _Written, name: str) -> None:
        self._model = model
        self._document = document
        self._name = name
        self._words: set[str] = set()

    def tell(self, error: Any) -> Iterator[Diagnostic]:
        kind: str = error["type"]
        path: Path = tuple(error["loc"])
        context: dict[str, Any] = error.get("ctx", {})
        if path and path[-1] == "[key]":
            path = path[:-1]
            context = {**context, "is_key": True}
        if kind == "problems":
            for problem in context["problems"]:
                where = (*path, *parse_path(problem.field))
                yield self._diagnostic(where, problem.code, problem.message, problem.fix)
        elif kind == "extra_forbidden":
            yield self._unknown_field(path)
        elif kind == "missing":
            yield self._missing(path)
        elif "text" in context:
            yield self._diagnostic(path, kind, context["text"], context.get("fix", ""))
        else:
            yield self._wrong(kind, path, context, error.get("input"), error["msg"])

    def _position(self, path: Path) -> Position | None:
        """Where a value is written, without what is written if nobody is to see that."""
        found = self._document.position(path)
        if found is not None and found.text is not None and _confidential(self._model, path):
            return found._replace(text=None)
        return found

    def _diagnostic(
        self, path: Path, code: str, message: str, fix: str = "", *, value: str | None = None
    ) -> Diagnostic:
        position = self._position(path)
        if value is None:
            value = shorten(position.text) if position and position.text is not None else ""
        if value and code not in _WITHOUT_VALUE:
            message = f"{_shown(value, position)} {message}"
        return Diagnostic(
            Severity.ERROR,
            message,
            self._origin(path, position),
            self._name,
            join_path(path),
            value,
            fix,
            code,
        )

    def _origin(self, path: Path, position: Position | None) -> Origin | None:
        if position is None or not position.line:
            return self._document.origin_of(path)
        if not position.children and position.text is not None:
            return Origin(self._document.file, position.line, position.column)
        return self._document.origin_of(path)

    def _unknown_field(self, path: Path) -> Diagnostic:
        word = str(path[-1])
        owner = _model_at(self._model, path[:-1])
        fix = ""
        if owner is not None:
            if issubclass(owner, Model) and word in owner.reserved:
                message = "is not there yet"
                return self._diagnostic(path, "not-yet", message, owner.reserved[word], value="")
            known = known_fields(owner)
            if (near := self._near(word, known)) is not None:
                fix = f'did you mean "{near}"?'
            elif place := self._elsewhere(word, path):
                fix = f"it belongs in {place}"
            elif len(known) <= 12:
                fix = f"known: {', '.join(known)}"
        position = self._position(path)
        return Diagnostic(
            Severity.ERROR,
            "unknown field",
            self._document.origin_of(path),
            self._name,
            join_path(path),
            shorten(position.text) if position and position.text is not None else "",
            fix,
            "unknown-field",
        )

    def _near(self, word: str, known: Sequence[str]) -> str | None:
        if len(self._words) >= _SUGGESTIONS and word not in self._words:
            return None
        self._words.add(word)
        return did_you_mean(word, known)

    def _elsewhere(self, word: str, path: Path) -> str:
        """The enclosing or enclosed part that does have a field of this name."""
        for length in range(len(path) - 2, -1, -1):
            model = _model_at(self._model, path[:length])
            if model is not None and word in known_fields(model):
                return join_path(path[:length]) or "the object itself"
        owner = _model_at(self._model, path[:-1])
        for child in known_fields(owner) if owner is not None else ():
            below = (*path[:-1], child)
            for steps, text in ((below, ""), ((*below, 0), "an entry of ")):
                model = _model_at(self._model, steps)
                if model is not None and word in known_fields(model):
                    return text + join_path(below)
        return ""

    def _missing(self, path: Path) -> Diagnostic:
        enclosing = join_path(path[:-1])
        return Diagnostic(
            Severity.ERROR,
            "is missing",
            self._document.origin_of(path[:-1]),
            self._name,
            join_path(path),
            "",
            f"add {path[-1]} to {enclosing}" if enclosing else f"add {path[-1]}",
            "missing-field",
        )

    def _wrong(
        self, kind: str, path: Path, context: dict[str, Any], given: Any, said: str
    ) -> Diagnostic:
        code, message = _message(kind, context, said)
        fix = ""
        position = self._position(path)
        text = position.text if position is not None else None
        if kind in ("string_type", "string_sub_type"):
            if isinstance(given, bool | int | float) and text is not None:
                fix = f'put it in quotes: "{shorten(text)}"'
        elif kind in ("int_type", "float_type", "bool_type"):
            if isinstance(given, str) and text is not None:
                fix = f"without quotes: {text}" if _is_plain(given, kind) else ""
        elif kind == "literal_error":
            allowed = _allowed(context)
            near = did_you_mean(given, allowed) if isinstance(given, str) else None
            fix = f'did you mean "{near}"?' if near else ""
        elif kind in ("model_type", "dict_type"):
            target = _model_at(self._model, path)
            if target is StringMatch and isinstance(given, str):
                fix = f'write {{exact: "{shorten(given)}"}}'
            elif isinstance(given, list):
                fix = "take the '-' away"
        elif kind == "list_type" and given is not None:
            fix = "begin each entry with '- '"
        if context.get("is_key"):
            message = f"as a key, {message}"
        value = None if text is not None else ("null" if given is None else "")
        return self._diagnostic(path, code, message, fix, value=value)


def _shown(value: str, position: Position | None) -> str:
    """As written: text in quotes; what is a number, true, false or null as it is."""
    plain = position is not None and position.plain and not isinstance(plain_value(value), str)
    return value if plain or (position is None and value == "null") else f'"{value}"'


# Of these the message speaks for itself.
_WITHOUT_VALUE = frozenset(
    {"duplicate-port", "missing-field", "bad-weights", "not-yet", "no-destination"}
)


def _is_plain(text: str, kind: str) -> bool:
    if kind == "bool_type":
        return text.lower() in ("true", "false")
    try:
        float(text)
    except ValueError:
        return False
    return True


def _allowed(context: dict[str, Any]) -> list[str]:
    words = str(context.get("expected", "")).replace(" or ", ", ").split(", ")
    return [word.strip("'") for word in words]


def _plural(count: int, word: str, words: str = "") -> str:
    return f"{count:,} {word if count == 1 else words or word + 's'}"


_MESSAGES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "string_type": ("wrong-type", lambda _: "must be text"),
    "int_type": ("wrong-type", lambda _: "must be a whole number"),
    "int_from_float": ("wrong-type", lambda _: "must be a whole number"),
    "float_type": ("wrong-type", lambda _: "must be a number"),
    "bool_type": ("wrong-type", lambda _: "must be true or false"),
    "list_type": ("wrong-type", lambda _: "must be a list"),
    "dict_type": ("wrong-type", lambda _: "must be a mapping of keys to values"),
    "model_type": ("wrong-type", lambda _: "must have fields"),
    "finite_number": ("wrong-value", lambda _: "must be a number, not infinite"),
    "literal_error": ("wrong-value", lambda c: f"must be {' or '.join(_allowed_text(c))}"),
    "greater_than": ("out-of-range", lambda c: f"must be more than {c['gt']:g}"),
    "greater_than_equal": ("out-of-range", lambda c: f"must be at least {c['ge']:,}"),
    "less_than": ("out-of-range", lambda c: f"must be less than {c['lt']:,}"),
    "less_than_equal": ("out-of-range", lambda c: f"must be at most {c['le']:,}"),
    "string_too_short": ("empty", lambda _: "must not be empty"),
    "string_too_long": (
        "too-long",
        lambda c: f"must have at most {_plural(c['max_length'], 'character')}",
    ),
    "too_short": (
        "empty",
        lambda c: f"must have at least {_plural(c['min_length'], 'entry', 'entries')}",
    ),
    "too_long": (
        "too-long",
        lambda c: f"must have at most {_plural(c['max_length'], 'entry', 'entries')}",
    ),
}


def _allowed_text(context: dict[str, Any]) -> list[str]:
    allowed = _allowed(context)
    return [", ".join(allowed[:-1]), allowed[-1]] if len(allowed) > 1 else allowed


def _message(kind: str, context: dict[str, Any], said: str) -> tuple[str, str]:
    if kind in _MESSAGES:
        code, write = _MESSAGES[kind]
        return code, write(context)
    return kind.replace("_", "-"), said[:1].lower() + said[1:]


# --- models by path


def _confidential(model: type[BaseModel], path: Path) -> bool:
    """Whether a value at that path is in a field of which no message shows what is written."""
    for length, step in enumerate(path):
        owner = _model_at(model, path[:length])
        if owner is not None and issubclass(owner, Model) and step in owner.confidential:
            return True
    return False


def _model_at(model: type[BaseModel], path: Iterable[str | int]) -> type[BaseModel] | None:
    """The model of a part, by its path in YAML names; None if it is no model."""
    annotation: Any = model
    for step in path:
        annotation = _step(annotation, step)
        if annotation is None:
            return None
    annotation = _plain(annotation)
    return annotation if _is_model(annotation) else None


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _plain(annotation: Any) -> Any:
    """Without Annotated and `| None`."""
    while True:
        origin = typing.get_origin(annotation)
        if origin is typing.Annotated:
            annotation = typing.get_args(annotation)[0]
        elif origin in (types.UnionType, typing.Union):
            parts = [arg for arg in typing.get_args(annotation) if arg is not type(None)]
            if len(parts) != 1:
                return annotation
            annotation = parts[0]
        else:
            return annotation


@functools.cache
def _fields(model: type[BaseModel]) -> dict[str, Any]:
    return {info.alias or name: info.annotation for name, info in model.model_fields.items()}


def _step(annotation: Any, step: str | int) -> Any:
    annotation = _plain(annotation)
    if _is_model(annotation):
        return _fields(annotation).get(str(step))
    arguments = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if origin is list and isinstance(step, int):
        return arguments[0]
    if origin is dict:
        return arguments[1]
    return None


# --- what is taken, but likely not as it was meant

_NO_MEANING = "no-meaning"
_FEW = 2
"""Places of a document that are looked for one by one."""


def warnings(
    model: BaseModel, document: _Written, name: str, keys: Keys = None
) -> Iterator[Diagnostic]:
    """Warnings for fields that are given and that nothing here honours, and for the models'
    ``doubts``. ``keys`` of the document spare reading it again for those."""
    found: list[tuple[Path, Problem]] = []
    if _may_be_doubted(type(model)):
        _doubts(model, (), found)
    few = len(found) <= _FEW
    for path, problem in found:
        where = (*path, *parse_path(problem.field))
        yield Diagnostic(
            Severity.INFO if problem.code == _NO_MEANING else Severity.WARNING,
            problem.message,
            document.origin_of_one(where, keys) if few else document.origin_of(where),
            name,
            join_path(where),
            "",
            problem.fix,
            problem.code,
        )


class _Doubted(NamedTuple):
    """About which attributes of a model there may be something to say."""

    itself: bool
    """The model has doubts of its own."""
    fields: tuple[tuple[str, str, Problem | None], ...]
    """Attribute, name in YAML, and what is to be said if it is given; None: what is in it may have
    something said about it."""
    names: frozenset[str]
    """The attributes."""


def _doubts(model: BaseModel, path: Path, found: list[tuple[Path, Problem]]) -> None:
    """Adds what is to be said about a part, and what is in it. Every part of every resource is
    looked at, so this is short."""
    doubted = _doubted(type(model))
    if doubted.itself and isinstance(model, Model):
        for problem in model.doubts():
            found.append((path, problem))
    given = model.__pydantic_fields_set__
    if given.isdisjoint(doubted.names):
        return
    values = model.__dict__
    for attribute, alias, said in doubted.fields:
        if attribute not in given:
            continue
        value = values[attribute]
        if said is not None:
            if value not in (None, "", [], {}):
                found.append(((*path, alias), said))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, BaseModel):
                    _doubts(item, (*path, alias, index), found)
        elif isinstance(value, BaseModel):
            _doubts(value, (*path, alias), found)


@functools.cache
def _doubted(model: type[BaseModel]) -> _Doubted:
    said: dict[str, Problem] = {}
    if issubclass(model, Model):
        for attribute, why in model.no_meaning.items():
            said[attribute] = Problem("", _NO_MEANING, "has no meaning here", why)
        for attribute, why in model.no_effect.items():
            said[attribute] = Problem("", "no-effect", "has no effect here", why)
    fields = tuple(
        (attribute, info.alias or attribute, said.get(attribute))
        for attribute, info in sorted(model.model_fields.items())
        if attribute in said or any(map(_may_be_doubted, _models_in(info.annotation)))
    )
    itself = issubclass(model, Model) and model.doubts is not Model.doubts
    return _Doubted(itself, fields, frozenset(attribute for attribute, _, _ in fields))


@functools.cache
def _may_be_doubted(model: type[BaseModel]) -> bool:
    if issubclass(model, Model) and (
        model.no_effect or model.no_meaning or model.doubts is not Model.doubts
    ):
        return True
    return any(
        _may_be_doubted(part)
        for info in model.model_fields.values()
        for part in _models_in(info.annotation)
    )


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    annotation = _plain(annotation)
    if _is_model(annotation):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _models_in(part)
