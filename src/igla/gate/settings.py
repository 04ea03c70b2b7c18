"""What a gate is told: the settings of `igla serve`, and a section of its own."""

from typing import Annotated

from pydantic import Field, model_validator

from igla.gate.learner_settings import LearnerSettings
from igla.recipe import Count, Section
from igla.serve.settings import Settings

Probability = Annotated[float, Field(ge=0, le=1)]


class Thresholds(Section):
    allow: Probability | None = Field(
        None, description="Least probability of allow that is allowed; none: as for all else."
    )
    block: Probability | None = Field(
        None, description="Highest probability of allow that is blocked; none: as for all else."
    )

    @model_validator(mode="after")
    def _in_order(self) -> "Thresholds":
        if self.allow is not None and self.block is not None and self.block > self.allow:
            raise ValueError("block is above allow")
        return self


class GateSettings(Thresholds):
    """Settings of the gate.

    Where allow or block is not set, the probabilities count that the server's `decisions` name for
    the class, and the model's own threshold.
    """

    label: str | None = Field(
        None, description="The class that is to be blocked; none: the one TOXICITY stands for."
    )
    tools: dict[str, Thresholds] = Field(
        {}, description="Thresholds for the calls of single tools, by name."
    )
    feedback_per_hour: Count | None = Field(
        5_000, description="Feedbacks an hour that one API key may give; null: any number."
    )
    slices: Count = Field(
        200, description="Names of slices that clients may give; one more is refused."
    )
    log_seconds: Annotated[float, Field(gt=0)] = Field(
        2.0,
        description="So long a decision waits for the log; then it is answered with logged: false.",
    )


class GateServerSettings(Settings):
    """All that `igla gate serve --config` may hold."""

    gate: GateSettings = GateSettings()
    learner: LearnerSettings = LearnerSettings()
