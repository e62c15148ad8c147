"""What the shop sells."""

import random
import threading

from shop.settings import Settings

PRICES = {"anvil": 89.00, "hammer": 24.50, "tongs": 31.20}


class PriceLookupFailed(Exception):
    """The price could not be found out."""


class Catalogue:
    """Knows the prices; safe to use from many threads."""

    def __init__(self, settings: Settings, chance: random.Random | None = None) -> None:
        self._settings = settings
        self._chance = chance or random.Random()
        self._served = 0
        self._lock = threading.Lock()

    def prices(self) -> dict[str, float]:
        """Return the price of every product. Raises PriceLookupFailed as often as the build's settings say."""
        with self._lock:
            self._served += 1
            unlucky = self._served > self._settings.fault_after and self._chance.random() < self._settings.fault_rate
        if unlucky:
            raise PriceLookupFailed("the price service did not answer")
        return dict(PRICES)
