"""The one exception for mistakes that the user can fix."""

from __future__ import annotations


class UserError(Exception):
    """A mistake that the user can fix: a missing file, an impossible setting, damaged data.

    Commands print it as one message without a traceback and exit with code 2. The message says what is wrong, where,
    and what to do about it.
    """

    def __init__(self, what: str, *, where: str = "", do: str = "") -> None:
        """Builds the message from its three parts: what is wrong, where, and what to do."""
        self.what, self.where, self.do = what, where, do
        message = what if not where else f"{where}: {what}"
        super().__init__(message if not do else f"{message}\n  {do}")


class OtherProcessError(UserError):
    """Another process of this run has refused to go on; its own message was printed there."""
