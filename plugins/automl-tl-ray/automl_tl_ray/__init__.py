"""Runs the trials of automl-tl on a Ray cluster."""
