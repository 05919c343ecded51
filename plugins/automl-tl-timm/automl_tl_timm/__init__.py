"""The classification models of timm as backbones for automl-tl."""
