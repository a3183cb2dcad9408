from __future__ import annotations

import threading

from lpw_sdxl.engine.noise_drawers import NoiseDrawers


class Supply:
    """A supply that notes which threads draw it."""

    def __init__(self) -> None:
        self.threads: list[str] = []
        self.was_drawn = threading.Event()

    def draw_next(self) -> bool:
        self.threads.append(threading.current_thread().name)
        self.was_drawn.set()
        return True


def test_noise_is_drawn_by_a_thread_of_its_own() -> None:
    drawers, supply = NoiseDrawers(), Supply()
    drawers.ask(supply)
    assert supply.was_drawn.wait(60)
    drawers.close()
    assert supply.threads[0].startswith("lpw-sdxl-noise")


def test_one_supply_that_fails_stops_no_other() -> None:
    class Failing(Supply):
        def draw_next(self) -> bool:
            raise MemoryError

    drawers, supply = NoiseDrawers(), Supply()
    for _ in range(4):
        drawers.ask(Failing())
    drawers.ask(supply)
    assert supply.was_drawn.wait(60)
    drawers.close()


def test_nothing_is_drawn_once_it_is_closed() -> None:
    drawers, supply = NoiseDrawers(), Supply()
    drawers.close()
    drawers.ask(supply)
    drawers.close()
    assert not supply.threads
