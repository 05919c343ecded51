"""Arrays that are computed once: decoded pixels and activations."""
