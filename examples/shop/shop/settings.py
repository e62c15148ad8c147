"""What a build of the shop carries with it: `shop.toml`, baked into the archive."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).parent.parent / "shop.toml"


@dataclass(frozen=True)
class Settings:
    """`fault_rate`: the share of requests for prices that fail once `fault_after` of them have been served."""

    version: str
    currency: str = "EUR"
    fault_rate: float = 0.0
    fault_after: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.fault_rate <= 1:
            raise ValueError(f"fault_rate is {self.fault_rate}, not between 0 and 1")


def read(file: Path = FILE) -> Settings:
    """Return the settings in `file`. Raises TypeError for a key that is not known."""
    return Settings(**tomllib.loads(file.read_text(encoding="utf-8")))
