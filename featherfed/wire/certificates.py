"""The files of TLS: read with a sentence for each way in which they are not what they should be.

OpenSSL would ask the terminal for a passphrase, and calls a file of another form an invalid argument.
"""

import ssl
from pathlib import Path

from featherfed.errors import ConfigError

PEM = b"-----BEGIN "
SEQUENCE = 0x30
VERSION_3 = b"\x02\x01\x03"
"""How PKCS#12 goes on after its outermost length; no certificate and no key does."""


def serving(cert: Path, key: Path) -> ssl.SSLContext:
    """Return the context of a server with this certificate chain and private key; raises `ConfigError`."""
    _check(cert, "certificate", "openssl x509 -inform der -in {0} -out {0}.pem")
    _check(key, "key", "openssl pkey -inform der -in {0} -out {0}.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)

    def encrypted() -> bytes:
        raise ConfigError(
            f"the key {key} is encrypted, and a server has nobody to ask for its passphrase; decrypt it once with:"
            f" openssl pkey -in {key} -out {key}.plain, and let nobody else read that file"
        )

    try:
        context.load_cert_chain(cert, key, password=encrypted)
    except (OSError, ValueError) as error:
        raise ConfigError(_refused(cert, key, error)) from error
    return context


def trusting(ca: str | None) -> ssl.SSLContext:
    """Return the context of a client that believes the authorities in a file, or the system's; raises `ConfigError`."""
    if ca is not None:
        _check(Path(ca), "certificate", "openssl x509 -inform der -in {0} -out {0}.pem")
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ValueError) as error:
        what = f"the certificate {ca}" if ca is not None else "the system's certificates"
        raise ConfigError(f"cannot use {what}: {_reason(error)}") from error


def _refused(cert: Path, key: Path, error: Exception) -> str:
    reason = getattr(error, "reason", None)
    if reason == "KEY_VALUES_MISMATCH":
        return f"the key {key} does not belong to the certificate {cert}: it has another public key"
    if reason in ("NO_START_LINE", "PEM_LIB", "BAD_OBJECT_HEADER") or isinstance(error, ssl.SSLError):
        for path, kind, marks in (
            (cert, "certificate", (b"CERTIFICATE-----",)),
            (key, "private key", (b"PRIVATE KEY-----",)),
        ):
            if not any(mark in path.read_bytes() for mark in marks):
                return f"{path} is PEM, but there is no {kind} in it"
    return f"cannot use the certificate {cert} with the key {key}: {_reason(error)}"


def _reason(error: Exception) -> str:
    name = getattr(error, "reason", None)
    return str(name).lower().replace("_", " ") if name else str(getattr(error, "strerror", None) or error)


def _check(path: Path, what: str, convert: str) -> None:
    """Raise `ConfigError` for a file that is not PEM, with the way to make it so."""
    try:
        head = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the {what} {path}: {error.strerror}") from error
    if PEM in head:
        return
    if not head.strip():
        raise ConfigError(f"the {what} {path} is empty")
    if head[0] == SEQUENCE:
        if VERSION_3 in head[2:10]:
            convert = "openssl pkcs12 -in {0} -out {0}.pem -nodes"
            raise ConfigError(f"the {what} {path} is PKCS#12 and not PEM; convert it with: {convert.format(path)}")
        raise ConfigError(f"the {what} {path} is DER and not PEM; convert it with: {convert.format(path)}")
    raise ConfigError(f"the {what} {path} is not PEM: it has no line that begins with {PEM.decode()}")
