"""Data sources, decoding, splits and the integrity check."""
