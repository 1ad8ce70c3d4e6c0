"""The tables of docs/PROTOCOL.md as the code has them: types of message fields, the session, the models."""

from msgspec import inspect

from featherfed.wire.messages import Message
from featherfed.wire.session import TABLES, Role
from tests.layouts import LAYOUTS


def _number(value: float) -> str:
    power = value.bit_length() - 1 if isinstance(value, int) and value > 1 << 17 else 0
    return f"2^{power}" if power and value == 1 << power else f"{value:g}"


def spelled(kind: inspect.Type) -> str:
    """Return a type with its limits in words."""
    match kind:
        case inspect.IntType(ge=ge, le=le, lt=lt):
            high = "2^64 − 1" if le is None and lt is None else f"{_number(lt)} − 1" if lt else _number(le or 0)
            return f"int, {_number(ge or 0).replace('-', '−')} … {high}"
        case inspect.FloatType(ge=ge, le=le):
            return f"float, {ge or 0:g} … {le:g}"
        case inspect.StrType(min_length=least, max_length=most):
            return f"str, {least or 0} … {most} characters"
        case inspect.BytesType(min_length=least, max_length=most):
            return f"bin, {most} bytes" if least == most else f"bin, {least or 0} … {most} bytes"
        case inspect.BoolType():
            return "bool"
        case inspect.UnionType(types=types):
            return " or ".join(spelled(each) for each in types)
        case inspect.DictType(max_length=most):
            return f"map of 0 … {most}: name to setting"
        case inspect.ListType(item_type=inspect.StructType(), max_length=most):
            return f"array of 0 … {most}: tensors"
        case inspect.ListType(item_type=inspect.UnionType(types=types), max_length=most):
            draws = any(isinstance(each, inspect.ListType) for each in types)
            return f"array of 0 … {most}: {'draws' if draws else 'settings'}"
        case inspect.ListType(item_type=item, min_length=least, max_length=most):
            return f"array of {least} … {most}: {spelled(item)}"
    raise AssertionError(f"no words for {kind}")


def fields_of(message: type[Message]) -> list[tuple[str, str]]:
    """Return (name, type in words) of each field, in the order in which they travel."""
    info = inspect.type_info(message)
    assert isinstance(info, inspect.StructType)
    return [(field.name, spelled(field.type)) for field in info.fields]


def number_of(message: type[Message]) -> int:
    """Return the number that stands first in the message's array."""
    tag = message.__struct_config__.tag
    assert isinstance(tag, int)
    return tag


def session_rows() -> list[list[str]]:
    """Return (track, state, message, next state) of every move."""
    return [
        [role.value, state.value, message.__name__, following.value]
        for role in (Role.PHONE, Role.SERVER)
        for state, table in TABLES[role].items()
        for message, following in table.items()
    ]


def model_rows() -> list[list[str]]:
    """Return (model, parameters, tensors in their order)."""
    return [
        [name, f"{layout.size:,}", ", ".join(f"{t.name} {'×'.join(map(str, t.shape))}" for t in layout.tensors)]
        for name, layout in LAYOUTS.items()
    ]
