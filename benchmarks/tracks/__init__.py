"""The tracks: one question each."""

from __future__ import annotations

from benchmarks.tracks import decode, frozen, growth, marginal, mixed, overhead, scale, tuned

TRACKS = {
    track.key: track
    for module in (frozen, marginal, tuned, mixed, decode, growth, overhead, scale)
    for track in module.TRACKS
}
"""By key, in order."""
