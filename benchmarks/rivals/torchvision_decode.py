"""The rival of A7: torchvision's ImageFolder, antialiased resize, uint8; one thread."""

from __future__ import annotations

import argparse
import json
import time

import torch
from torchvision import transforms
from torchvision.datasets import ImageFolder


def main() -> None:
    """Take every image of a folder; print images and seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--size", type=int, default=160)
    options = parser.parse_args()
    torch.set_num_threads(1)
    resize = transforms.Resize((options.size, options.size), antialias=True)
    folder = ImageFolder(options.folder, transforms.Compose([resize, transforms.PILToTensor()]))
    folder[0]
    wall, cpu = time.perf_counter(), time.process_time()
    for index in range(len(folder)):
        folder[index]
    spent = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    print(json.dumps({"images": len(folder), **spent}))


if __name__ == "__main__":
    main()
