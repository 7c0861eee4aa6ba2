"""What a connection authenticates with: read from its files at each connection, as files are renewed while it runs."""

from __future__ import annotations

import ssl
from pathlib import Path

from consumer.errors import KafkaError, SettingsError
from consumer.settings.files import read_value
from consumer.settings.sections import Security

FILES = ("ca_file", "certificate_file", "key_file", "password_file", "oauth_client_secret_file", "token_file")

State = tuple[tuple[int, int, int] | None, ...]
"""Inode, size and time of change of each file; None for one that is not there."""


class UnusableFileError(SettingsError, KafkaError):
    """A file of credentials cannot be used. At start a settings error, and later a failure that may pass."""


def secret(security: Security, name: str) -> str:
    """Return a secret, such as ``password``, from its setting or from its file as that is now."""
    file = getattr(security, f"{name}_file")
    return read_file(f"{name}_file", file) if file else getattr(security, name)


def read_file(name: str, file: str) -> str:
    """Return the text of a file without its line end. Raises UnusableFileError.

    The error does not repeat the path: by mistake the setting may hold the secret itself.
    """
    try:
        text = read_value(Path(file))
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UnusableFileError(f"kafka.security.{name}: cannot read the file that it names: {why}") from None
    if not text:
        raise UnusableFileError(f"kafka.security.{name}: the file that it names is empty")
    return text


def tls_context(security: Security) -> ssl.SSLContext:
    """Return a context with the files as they are now: TLS 1.2 or later, names checked. Raises UnusableFileError."""
    try:
        context = ssl.create_default_context(cafile=security.ca_file or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Python 3.13 refuses what 3.12 takes, such as a certificate that does not name its authority's key.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if security.certificate_file:
            # With a password, even an empty one, OpenSSL does not ask for that of an encrypted key on the terminal.
            context.load_cert_chain(security.certificate_file, security.key_file, password="")
    except (OSError, ValueError) as error:
        used = " or ".join(name for name in ("ca_file", "certificate_file", "key_file") if getattr(security, name))
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        # no path and no cause: by mistake a setting may hold the key itself
        raise UnusableFileError(f"kafka.security: cannot use the file of {used}: {why}") from None
    return context


def state_of_files(security: Security) -> State:
    """Return what changes whenever one of the files is replaced or written."""
    return tuple(_state(file) for file in (getattr(security, name) for name in FILES) if file)


def _state(file: str) -> tuple[int, int, int] | None:
    try:
        found = Path(file).stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
