"""What can go wrong, said so that it can be acted on. Each error is also the builtin one that its name suggests."""


class EventProcError(Exception):
    """Any answer of the event processing service, or the lack of one, that stops a call."""


class NoServer(EventProcError, ConnectionError):
    """Nobody answered at the address, or not in time."""


class UntrustedCertificate(EventProcError, ConnectionError):
    """A server answered, and its TLS certificate is not trusted; BTRDB_CA_BUNDLE names the CA to trust."""


class WrongKey(EventProcError, PermissionError):
    """The service does not know the API key."""


class NotYours(EventProcError, PermissionError):
    """The handler or the run belongs to somebody else."""


class InvalidRequest(EventProcError, ValueError):
    """The service refuses a value, or does not do that now. The message says which, and what would be right."""


class InvalidRegistration(InvalidRequest):
    """The service refuses to register this: an unknown hook, a bad name, a bad email address. The message says which."""


class NotFound(EventProcError, LookupError):
    """There is no such thing. The message says what was asked for."""


class UnknownHandler(NotFound):
    """There is no handler with that id or name, or it has no such version."""


class UnknownRun(NotFound):
    """There is no run with that id."""


class OlderPlatform(EventProcError, NotImplementedError):
    """The platform is older than this package, and does not do that yet. What it does goes on as ever."""


class CannotPickle(EventProcError, TypeError, ValueError):
    """The function refers to something that cannot travel to where it will run. The message names it."""


class ServiceFailed(EventProcError, RuntimeError):
    """The service answered with an error that is not yours to mend; the message carries its code."""
