"""Self-signed certificates of this machine's loopback address."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def self_signed(folder: Path, name: str = "hub") -> tuple[Path, Path]:
    """Make a certificate and its key; return both files."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is missing; apt install openssl")
    certificate, key = folder / f"{name}.pem", folder / f"{name}-key.pem"
    wanted = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=127.0.0.1"]
    wanted += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", "req", "-x509", "-days", "2", *wanted], check=True, capture_output=True)
    return certificate, key
