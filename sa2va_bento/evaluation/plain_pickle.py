"""Data sets of Python 2's days are pickles of lists, dictionaries, strings and numbers. Here they are read as such: a
pickle's instructions are followed (those of protocols 0 to 4) as long as they make one of these, and none that names a
class or calls something is known at all."""

import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sa2va_bento.errors import BadRequestError

MARK = object()
VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
GROUPS: dict[str, Callable[[list[Any]], Any]] = {"LIST": list, "TUPLE": tuple, "DICT": lambda parts: _pairs(parts)}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
LITERALS = ("INT", "LONG", "FLOAT", "STRING", "UNICODE", "BININT", "BINFLOAT", "BINSTRING", "BINUNICODE", "SHORT_BIN")


def read(path: Path) -> Any:
    """The value in a file.

    Raises:
        BadRequestError: it holds anything else, or is damaged.
    """
    stack: list[Any] = []
    memory: dict[int, Any] = {}
    try:
        for instruction, argument, _ in pickletools.genops(path.read_bytes()):
            if instruction.name == "STOP":
                return stack.pop()
            _follow(instruction.name, argument, stack, memory)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise BadRequestError(f"{path}: not plain data: {error}") from None
    raise BadRequestError(f"{path}: it ends too early")


def _follow(name: str, argument: Any, stack: list[Any], memory: dict[int, Any]) -> None:
    if name in ("PROTO", "FRAME"):
        return
    if name in VALUES:
        stack.append(VALUES[name])
    elif name in EMPTY:
        stack.append(EMPTY[name]())
    elif name == "MARK":
        stack.append(MARK)
    elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
        memory[len(memory) if argument is None else argument] = stack[-1]
    elif name in ("GET", "BINGET", "LONG_BINGET"):
        stack.append(memory[argument])
    elif name.startswith(LITERALS):
        stack.append(argument)
    else:
        _gather(name, stack)


def _gather(name: str, stack: list[Any]) -> None:
    if name in GROUPS:
        stack.append(GROUPS[name](_since_mark(stack)))
    elif name in TUPLES:
        count = TUPLES[name]
        stack[-count:] = [tuple(stack[-count:])]
    elif name in ("APPEND", "APPENDS"):
        parts = [stack.pop()] if name == "APPEND" else _since_mark(stack)
        stack[-1].extend(parts)
    elif name in ("SETITEM", "SETITEMS"):
        parts = _since_mark(stack) if name == "SETITEMS" else [stack.pop(), stack.pop()][::-1]
        stack[-1].update(_pairs(parts))
    else:
        raise ValueError(f"{name} makes something else")


def _since_mark(stack: list[Any]) -> list[Any]:
    place = next(place for place in range(len(stack) - 1, -1, -1) if stack[place] is MARK)
    parts = stack[place + 1 :]
    del stack[place:]
    return parts


def _pairs(parts: list[Any]) -> dict[Any, Any]:
    return dict(zip(parts[::2], parts[1::2], strict=True))
