"""The components that an engine moves to its device."""

from __future__ import annotations

from lpw_sdxl.engine import Engine


def record_moves(engine: Engine) -> list[str]:
    """Note each component that is moved to the device, by what the offloader has as current."""
    moved: list[str] = []
    offloader = engine._loop.stages.offloader
    require = offloader.require

    def recording(name: str) -> None:
        if offloader.current != name:
            moved.append(name)
        require(name)

    offloader.require = recording  # type: ignore[method-assign]
    return moved
