"""Decodes a folder with our decoder on one thread: ``python -m benchmarks.decoding FOLDER``."""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path

from automl_tl.data.decode import decode, quiet


def main() -> None:
    """Read, hash, decode and resize every file, as a search does; print images and seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=160)
    options = parser.parse_args()
    files = sorted(path for path in options.folder.rglob("*") if path.is_file())
    decode(files[0].read_bytes(), options.size, "squash")
    wall, cpu = time.perf_counter(), time.process_time()
    with quiet:
        for path in files:
            data = path.read_bytes()
            hashlib.sha256(data).digest()
            decode(data, options.size, "squash")
    spent = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    print(json.dumps({"images": len(files), **spent}))


if __name__ == "__main__":
    main()
