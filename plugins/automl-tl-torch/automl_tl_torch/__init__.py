"""PyTorch backend and torchvision backbones for automl-tl."""
