"""The process that talks to Ray for one search; see ``automl_tl.engines.apart``."""

from __future__ import annotations

from automl_tl.engines.apart import serve


def main() -> None:
    """Run the engine as a process."""
    from automl_tl_ray.engine import RayEngine

    serve(RayEngine)


if __name__ == "__main__":
    main()
