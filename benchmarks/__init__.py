"""Measures automl-tl beside what people write by hand; ``python -m benchmarks --help``."""
