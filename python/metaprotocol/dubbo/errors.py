"""What a Dubbo call can end with besides a value."""

from __future__ import annotations

from metaprotocol.dubbo.hessian2 import JavaObject, Value
from metaprotocol.errors import Error


class DubboError(Error):
    """The call failed below the service: a response whose status is not OK.

    ``status`` is the response's status byte, ``message`` the text that came with it.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"status {status}: {message}")
        self.status = status
        self.message = message


class DubboException(Error):
    """The service itself threw: ``value`` is the exception as it was serialized."""

    def __init__(self, value: Value, attachments: dict[str, Value] | None = None) -> None:
        self.value = value
        self.attachments = attachments or {}
        if isinstance(value, JavaObject):
            self.class_name = value.class_name
            self.message = str(value.get("detailMessage"))
        else:
            self.class_name = ""
            self.message = str(value)
        super().__init__(f"{self.class_name}: {self.message}" if self.class_name else self.message)


class DubboTimeout(Error, TimeoutError):
    """No reply came in the time that the caller was willing to wait."""
