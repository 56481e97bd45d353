"""Models of several files travel as one uncompressed zip with a model.json that describes them."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from typing import Any


def unzip_model(
    model: bytes, kind: str = "ncnn", names: Sequence[str] = ("model.param", "model.bin")
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return a zipped model's facts and its files by name; ValueError when it isn't such a model."""
    rule = f"a model for {kind} must be an uncompressed zip of {', '.join(names)} and model.json"
    try:
        with zipfile.ZipFile(io.BytesIO(model)) as archive:
            packed = [entry.filename for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
            if packed:  # a small upload must not unfold into a large one
                raise ValueError(f"{rule}, but {packed[0]} is compressed; export it again")
            files = {name: archive.read(name) for name in names}
            facts = json.loads(archive.read("model.json"))
            wanted = {"input": str, "output": str, "shape": list, "layers": list}
            given = facts if isinstance(facts, dict) else {}
            wrong = [key for key, kind in wanted.items() if not isinstance(given.get(key), kind)]
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"{rule}, but: {error}; export it again") from None
    if wrong:
        raise ValueError(f"{rule}, but model.json gives no {wrong[0]}; export it again")
    return facts, files
