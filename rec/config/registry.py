"""Classes found by the type of the message that configures them: no if-chain on type strings."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.message import Message

from rec.config.errors import ConfigError
from rec.config.imports import custom_kwargs, import_object
from rec.config.names import listed
from rec.config.options import members
from rec.config.proto import Proto

C = TypeVar("C", bound=Callable[..., Any])


class Registry:
    """Maps message types to classes; the package that registers them is imported at the first lookup.

    Args:
        what: what it holds, for messages ("model", "loss").
        package: its submodules hold the `register` calls, e.g. "rec.models". Adding a class is
            adding a file there.
    """

    def __init__(self, what: str, package: str) -> None:
        self.what = what
        self.package = package
        self._classes: dict[str, Callable[..., Any]] = {}
        self._types: dict[str, type[Proto]] = {}
        self._imported = False

    def register(self, message_type: type[Proto]) -> Callable[[C], C]:
        """Decorator: this class is built from `message_type`."""
        name = message_type.DESCRIPTOR.full_name

        def add(cls: C) -> C:
            known = self._classes.get(name)
            # A reload of the same module may register again.
            if known is not None and (known.__module__, known.__qualname__) != (
                cls.__module__,
                cls.__qualname__,
            ):
                raise ValueError(f"{self.what} {name} is already {known.__module__}.{known.__qualname__}")
            self._classes[name] = cls
            self._types[name] = message_type
            return cls

        return add

    def cls_of(self, message_type: type[Proto] | Proto) -> Callable[..., Any]:
        """The class registered for a message type (or for the type of a message)."""
        self._import()
        name = message_type.DESCRIPTOR.full_name
        if name not in self._classes:
            msg = message_type if isinstance(message_type, Message) else None
            raise ConfigError(
                f"no {self.what} is built from message {message_type.DESCRIPTOR.name}",
                msg,
                hint=f"available: {listed(t.DESCRIPTOR.name for t in self.types())}",
            )
        return self._classes[name]

    def types(self) -> list[type[Proto]]:
        """All registered message types, by name."""
        self._import()
        return [self._types[name] for name in sorted(self._types)]

    def build(self, msg: Proto, *args: Any, **kw: Any) -> Any:
        """An instance for a message: `cls(msg, *args, **kw)`.

        A `Custom` message gives `cls(*args, **kwargs of the message, **kw)` of the user's class; a
        message that holds a `Custom` in a field `custom` gives the same with the message first.
        """
        if msg.DESCRIPTOR.full_name == "rec.Custom":
            return _call(msg, args, kw)
        if "custom" in msg.DESCRIPTOR.fields_by_name:
            return _call(msg.custom, (msg, *args), kw)
        return self.cls_of(msg)(msg, *args, **kw)

    def _import(self) -> None:
        if self._imported:
            return
        # Set first: a submodule may look up while it is being imported.
        self._imported = True
        try:
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self.package}.{module.name}")
        except BaseException:
            self._imported = False
            raise


def _call(custom: Proto, args: tuple[Any, ...], kw: dict[str, Any]) -> Any:
    cls = import_object(custom.class_path, custom)
    kwargs = {**custom_kwargs(custom), **kw}
    try:
        signature = inspect.signature(cls)
    except ValueError:  # a builtin that does not tell
        return cls(*args, **kwargs)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as e:
        raise ConfigError(
            f"{custom.class_path} cannot be called with {_positional(args)}the keyword arguments "
            f"{listed(kwargs) or '(none)'}: {e}",
            custom,
            "kwargs" if custom.HasField("kwargs") else "class_path",
            hint=f"its signature is {signature}",
        ) from e
    return cls(*args, **kwargs)


def _positional(args: tuple[Any, ...]) -> str:
    """What is handed over by place, by type: nothing else tells a user what a plug-in is given."""
    return f"({', '.join(type(a).__name__ for a in args)}) and " if args else ""


def oneof(msg: Proto, name: str) -> Proto:
    """The set member of a oneof.

    Raises:
        ConfigError: when none is set, listing the members.
    """
    member = msg.WhichOneof(name)
    if member is None:
        raise ConfigError(
            f"{msg.DESCRIPTOR.name} sets no {name}", msg, hint=f"set one of {listed(members(msg, name), most=50)}"
        )
    return getattr(msg, member)
