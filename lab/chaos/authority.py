"""A certificate authority of one chaos run, for the server, the tollgate and the phones."""

import ssl
from pathlib import Path

from featherfed.errors import LocalError


class Authority:
    """Certificates for 127.0.0.1 as files in a folder."""

    def __init__(self, folder: Path) -> None:
        try:
            import trustme
        except ImportError as error:
            raise LocalError("a schedule with tls = true needs trustme; pip install trustme") from error
        self.ca, self.cert, self.key = (folder / f"{name}.pem" for name in ("ca", "cert", "key"))
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        authority.cert_pem.write_to_path(self.ca)
        issued.private_key_pem.write_to_path(self.key)
        self.cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))

    def server_side(self) -> ssl.SSLContext:
        """Return what shows the certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        return context

    def client_side(self) -> ssl.SSLContext:
        """Return what believes the authority."""
        return ssl.create_default_context(cafile=str(self.ca))
