"""Logs the searches of automl-tl for TensorBoard."""
