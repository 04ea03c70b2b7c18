"""Dynamic loss scaling for fp16, whose gradients underflow unscaled."""

from dataclasses import dataclass

GROWTH_STEPS = 2000


@dataclass
class LossScale:
    """The factor on the loss (Micikevicius et al. 2018, section 3.2).

    Halved when a gradient overflows (that step is left out), doubled after 2,000 steps without.
    With `dynamic` off the factor stays 1.
    """

    dynamic: bool
    factor: float = 1.0
    good_steps: int = 0

    @classmethod
    def for_precision(cls, name: str) -> "LossScale":
        return cls(True, 2.0**16) if name == "fp16" else cls(False)

    def update(self, finite: bool) -> None:
        if not self.dynamic:
            return
        if not finite:
            self.factor, self.good_steps = max(self.factor / 2, 1.0), 0
            return
        self.good_steps += 1
        if self.good_steps == GROWTH_STEPS:
            self.factor, self.good_steps = self.factor * 2, 0
