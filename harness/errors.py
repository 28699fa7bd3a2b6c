"""The one exception that means "the user can mend this", and how a command shows it."""

from __future__ import annotations


class UserError(Exception):
    """A mistake that the user can mend: a missing file, an impossible setting, damaged data.

    Commands print it as one message without a traceback and exit non-zero. The message says what is wrong, where,
    and what to do about it.
    """

    def __init__(self, what: str, *, where: str = "", do: str = "") -> None:
        """Joins the three parts of a helpful message: what is wrong, where it is, what to do."""
        self.what, self.where, self.do = what, where, do
        message = what if not where else f"{where}: {what}"
        super().__init__(message if not do else f"{message}\n  {do}")
