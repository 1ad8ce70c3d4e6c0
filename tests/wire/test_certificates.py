"""Each file that TLS cannot use is told apart, with the way to make it usable."""

import ssl
import subprocess
from pathlib import Path

import pytest
import trustme

from featherfed.errors import ConfigError
from featherfed.wire.certificates import serving, trusting
from tests.programs import program


def refused(cert: Path, key: Path) -> str:
    with pytest.raises(ConfigError) as raised:
        serving(cert, key)
    return str(raised.value)


def openssl(*arguments: str | Path) -> None:
    path = program("openssl", "apt-get install openssl")
    subprocess.run([path, *map(str, arguments)], check=True, capture_output=True)


def test_certificate_with_its_key_is_taken(authority: dict[str, Path]) -> None:
    assert isinstance(serving(authority["cert"], authority["key"]), ssl.SSLContext)
    assert isinstance(trusting(str(authority["ca"])), ssl.SSLContext)


def test_encrypted_key_says_how_to_decrypt_it_and_asks_nobody(authority: dict[str, Path], tmp_path: Path) -> None:
    locked = tmp_path / "locked.pem"
    openssl("pkey", "-in", authority["key"], "-aes256", "-passout", "pass:secret", "-out", locked)
    told = refused(authority["cert"], locked)
    assert told.startswith(f"the key {locked} is encrypted")
    assert f"openssl pkey -in {locked} -out {locked}.plain" in told


def test_der_and_pkcs12_say_how_to_convert_them(authority: dict[str, Path], tmp_path: Path) -> None:
    der, key, bundle = tmp_path / "cert.der", tmp_path / "key.der", tmp_path / "both.p12"
    openssl("x509", "-in", authority["cert"], "-outform", "der", "-out", der)
    openssl("pkey", "-in", authority["key"], "-outform", "der", "-out", key)
    openssl(
        "pkcs12", "-export", "-in", authority["cert"], "-inkey", authority["key"], "-passout", "pass:", "-out", bundle
    )
    convert = (
        f"the certificate {der} is DER and not PEM; convert it with: openssl x509 -inform der -in {der} -out {der}.pem"
    )
    assert refused(der, authority["key"]) == convert
    with pytest.raises(ConfigError) as raised:
        trusting(str(der))
    assert str(raised.value) == convert
    assert f"openssl pkey -inform der -in {key}" in refused(authority["cert"], key)
    assert f"openssl pkcs12 -in {bundle}" in refused(bundle, authority["key"])
    # What the sentence says works.
    openssl("x509", "-inform", "der", "-in", der, "-out", f"{der}.pem")
    openssl("pkey", "-inform", "der", "-in", key, "-out", f"{key}.pem")
    serving(Path(f"{der}.pem"), Path(f"{key}.pem"))


def test_key_of_another_certificate_is_told(authority: dict[str, Path], tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().issue_cert("127.0.0.1").private_key_pem.write_to_path(other)
    assert "does not belong to the certificate" in refused(authority["cert"], other)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is empty"), (b"\n \n", "is empty"), (b"hello", "is not PEM"), (b"\0\1\2", "is not PEM")],
)
def test_file_that_is_no_certificate_is_told(
    content: bytes, words: str, authority: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert words in refused(path, authority["key"])
    assert words in refused(authority["cert"], path)
    with pytest.raises(ConfigError, match=words):
        trusting(str(path))


def test_certificate_and_key_that_changed_places_are_told(authority: dict[str, Path]) -> None:
    told = refused(authority["key"], authority["cert"])
    assert told == f"{authority['key']} is PEM, but there is no certificate in it"
    assert refused(authority["cert"], authority["ca"]) == f"{authority['ca']} is PEM, but there is no private key in it"


def test_pem_that_is_cut_off_or_garbled_is_a_sentence(authority: dict[str, Path], tmp_path: Path) -> None:
    whole = authority["cert"].read_bytes()
    for at in range(40, len(whole) - 30, 97):
        path = tmp_path / "cut.pem"
        path.write_bytes(whole[:at])
        assert "\n" not in refused(path, authority["key"])
        path.write_bytes(whole[:at] + b"!" + whole[at + 1 :])
        try:
            serving(path, authority["key"])
        except ConfigError as error:
            assert "\n" not in str(error)


def test_folder_in_place_of_a_file_is_told(authority: dict[str, Path], tmp_path: Path) -> None:
    assert refused(tmp_path, authority["key"]) == f"cannot read the certificate {tmp_path}: Is a directory"
