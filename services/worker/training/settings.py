"""The settings of a training that the worker reads of every model, whatever its code does with them."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Self

from optaic.plugins import InvalidConfig
from worker.builtin.parameters import Config, read_flag, read_number, read_whole

_LARGEST_SEED = 2**31 - 1


@dataclass(frozen=True)
class TrainingSettings:
    """Settings with their defaults, which never change."""

    validation_share: Decimal = Decimal("0.2")  # of the sessions, at the end
    embargo: int = 0  # sessions before the purged ones that nobody learns from
    refit: bool = True  # learn again from all rows after the measurement
    seed: int = 0  # of what is random here

    @classmethod
    def read(cls, config: Config) -> Self:
        """Read the settings of a model's configuration.

        Raises:
            InvalidConfig: naming the setting.
        """
        share = read_number(config, "validation_share", 0.2)
        if not 0 < share < 1:
            raise InvalidConfig(f"validation_share: must lie between 0 and 1, without both, not {share:g}")
        return cls(
            Decimal(str(share)),
            read_whole(config, "embargo", 0, minimum=0, maximum=1_000_000),
            read_flag(config, "refit") if config.get("refit") is not None else True,
            read_whole(config, "seed", 0, minimum=0, maximum=_LARGEST_SEED),
        )
