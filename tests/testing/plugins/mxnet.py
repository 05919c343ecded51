"""Stands in for a framework that takes long to import."""
