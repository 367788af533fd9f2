"""One small error tree.

SlipwayError
├── PermanentError    trying again will not help; the message says what to change
│   ├── InvalidInput  a person's input; carries the field it belongs to
│   ├── NotFound
│   └── Conflict      something else is in the way (an operation is running, a name is taken)
└── TemporaryError    trying again after `delay` seconds may help
    └── Unavailable   a driver, the router or a store cannot be reached

Each message says what happened, to what, and what to do. `code` is Azure's word for it where
Azure has one.
"""


class SlipwayError(Exception):
    """Root of the tree."""

    def __init__(self, message: str, *, code: str = "", evidence: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.evidence = evidence


class PermanentError(SlipwayError):
    """Trying again will not help."""


class InvalidInput(PermanentError):
    """A person's input is wrong; `field` names the form field, empty for the whole form."""

    def __init__(self, message: str, *, field: str = "", code: str = "InvalidInput") -> None:
        super().__init__(message, code=code)
        self.field = field


class NotFound(PermanentError):
    """What was asked for does not exist."""


class Conflict(PermanentError):
    """Something else is in the way."""


class TemporaryError(SlipwayError):
    """Trying again after `delay` seconds may help."""

    def __init__(
        self, message: str, *, delay: float = 5.0, code: str = "", evidence: str = ""
    ) -> None:
        super().__init__(message, code=code, evidence=evidence)
        self.delay = delay


class Unavailable(TemporaryError):
    """A driver, the router or a store cannot be reached."""
