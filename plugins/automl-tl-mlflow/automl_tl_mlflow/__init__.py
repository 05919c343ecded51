"""Logs the searches of automl-tl with MLflow."""
