"""Evaluates the pickle inside a torch checkpoint as plain data: dtype and shape of each tensor.

A pickle is a program, and Python's own machine for it would run whatever it says. This one knows only the
opcodes that `torch.save` writes for a dictionary of tensors, holds every global as a name, calls nothing, and
takes nothing but strings as keys (hashing a tuple nested a million times would overflow the stack).
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from controlplane.checks.problems import InvalidFile
from controlplane.checks.wording import shown

STORAGES = {
    "torch BoolStorage": "BOOL",
    "torch ByteStorage": "U8",
    "torch CharStorage": "I8",
    "torch ShortStorage": "I16",
    "torch IntStorage": "I32",
    "torch LongStorage": "I64",
    "torch HalfStorage": "F16",
    "torch BFloat16Storage": "BF16",
    "torch FloatStorage": "F32",
    "torch DoubleStorage": "F64",
}
ORDERED_DICT = "collections OrderedDict"
REBUILD_TENSOR = "torch._utils _rebuild_tensor_v2"
REBUILD_PARAMETER = "torch._utils _rebuild_parameter"
GLOBALS = frozenset({ORDERED_DICT, REBUILD_TENSOR, REBUILD_PARAMETER, *STORAGES})


@dataclass(frozen=True)
class Storage:
    dtype: str
    key: str
    elements: int


@dataclass(frozen=True)
class PickledTensor:
    storage: Storage
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Global:
    name: str


def read_pickled_tensors(pickled: bytes) -> dict[str, PickledTensor]:
    """The tensors of a `data.pkl`; raises `InvalidFile`, naming the first global that is not allowed."""
    try:
        content = _Machine().run(pickled)
    except (ValueError, IndexError, KeyError, TypeError, struct.error) as error:
        raise InvalidFile(f"data.pkl is not what torch.save writes: {error}") from None
    if type(content) is not dict:
        raise InvalidFile("the checkpoint must hold a dictionary of tensors")
    for name, tensor in content.items():
        if type(tensor) is not PickledTensor:
            raise InvalidFile(f"{shown(name)} is not a tensor; only a dictionary of tensors can be loaded")
    return content


class _Machine:
    """A stack, marks on it, and a memo. Wrong programs end in the exceptions that the caller catches."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, pickled: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name == "STOP":
                return self._stack.pop()
            step = _STEPS.get(opcode.name)
            if step is None:
                raise InvalidFile(f"the pickle uses {opcode.name}, which is not allowed")
            step(self, argument)
        raise ValueError("it does not stop")

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def mark(self, _: Any) -> None:
        self._marks.append(len(self._stack))

    def put(self, slot: Any) -> None:
        self._memo[slot] = self._stack[-1]

    def get(self, slot: Any) -> None:
        self._stack.append(self._memo[slot])

    def take_global(self, name: Any) -> None:
        if name not in GLOBALS:
            raise InvalidFile(f"the pickle refers to {str(name).replace(' ', '.')}, which is not allowed")
        self.push(_Global(name))

    def make_tuple(self, items: list[Any]) -> None:
        self.push(tuple(items))

    def set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict or any(type(key) is not str for key in items[::2]):
            raise ValueError("a dictionary whose keys are not strings")
        target.update(zip(items[::2], items[1::2], strict=True))

    def append(self, items: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise ValueError("an append to what is no list")
        self._stack[-1].extend(items)

    def load_storage(self, _: Any) -> None:
        reference = self._stack.pop()
        if type(reference) is not tuple or len(reference) != 5 or reference[0] != "storage":
            raise ValueError("a reference that is no storage")
        _, kind, key, _, elements = reference
        if type(kind) is not _Global or kind.name not in STORAGES:
            raise ValueError("a storage of unknown type")
        if type(key) is not str or type(elements) is not int or elements < 0:
            raise ValueError("a storage without name or size")
        self.push(Storage(STORAGES[kind.name], key, elements))

    def reduce(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if type(arguments) is not tuple or type(function) is not _Global:
            raise ValueError("a call of what is no function")
        if function.name == REBUILD_TENSOR:
            self.push(_tensor(*arguments))
        elif function.name == REBUILD_PARAMETER:
            self.push(arguments[0])
        elif function.name == ORDERED_DICT and not arguments:
            self.push({})
        else:
            raise ValueError(f"a call of {function.name}")

    def build(self, _: Any) -> None:
        """Attributes of a dictionary (torch keeps version numbers there) are of no use here."""
        self._stack.pop()

    def pop_marked(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def pop_some(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise ValueError("too few values")
        items = self._stack[-count:]
        del self._stack[-count:]
        return items


def _tensor(storage: Any, offset: Any, shape: Any, *_: Any) -> PickledTensor:
    if type(storage) is not Storage or type(shape) is not tuple or type(offset) is not int or offset < 0:
        raise ValueError("a tensor without storage or shape")
    if any(type(size) is not int or size < 0 for size in shape):
        raise ValueError("a tensor with a bad shape")
    return PickledTensor(storage, shape)


_Step = Callable[[_Machine, Any], None]
_STEPS: dict[str, _Step] = {
    "PROTO": lambda machine, argument: None,
    "MARK": _Machine.mark,
    "GLOBAL": _Machine.take_global,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.load_storage,
    "NONE": lambda machine, argument: machine.push(None),
    "NEWTRUE": lambda machine, argument: machine.push(True),
    "NEWFALSE": lambda machine, argument: machine.push(False),
    "EMPTY_DICT": lambda machine, argument: machine.push({}),
    "EMPTY_LIST": lambda machine, argument: machine.push([]),
    "EMPTY_TUPLE": lambda machine, argument: machine.push(()),
    "TUPLE": lambda machine, argument: machine.make_tuple(machine.pop_marked()),
    "TUPLE1": lambda machine, argument: machine.make_tuple(machine.pop_some(1)),
    "TUPLE2": lambda machine, argument: machine.make_tuple(machine.pop_some(2)),
    "TUPLE3": lambda machine, argument: machine.make_tuple(machine.pop_some(3)),
    "SETITEM": lambda machine, argument: machine.set_items(machine.pop_some(2)),
    "SETITEMS": lambda machine, argument: machine.set_items(machine.pop_marked()),
    "APPEND": lambda machine, argument: machine.append(machine.pop_some(1)),
    "APPENDS": lambda machine, argument: machine.append(machine.pop_marked()),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Machine.get),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"), _Machine.push),
}
