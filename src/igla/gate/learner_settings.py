"""Settings of what a gate learns, apart from the learner, so that a server need not import it."""

from typing import Annotated

from pydantic import Field

from igla.recipe import Count, Positive, Section, Share


class Learning(Section):
    """When a copy is trained, on what, and how."""

    count: Count = Field(200, description="New lessons after which a round begins by itself.")
    minutes: Positive = Field(60, description="After so long a round begins with fewer.")
    fewest: Count = Field(32, description="New lessons without which no round begins.")
    drift: bool = Field(True, description="Whether drift begins a round with the fewest lessons.")
    most: Count = Field(4096, description="New lessons in a round; the latest.")
    kept_share: Share = Field(
        0.2, description="Share of the contexts, by their digest, never learned from: to judge by."
    )
    recent: Count = Field(500, description="Of these, the latest that a copy is judged by.")
    replay: Annotated[float, Field(ge=0)] = Field(
        2.0, description="Old rows for each new lesson in a round."
    )
    epochs: Positive = Field(2, description="Passes over a round's rows.")
    batch_size: Count = Field(32, description="Rows in an optimizer step.")
    micro_batch_size: Count = Field(
        16, description="Rows in one forward pass; gradients are accumulated up to batch_size."
    )
    learning_rate: Positive = Field(1e-4, description="Peak rate of a round.")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.01, description="Decoupled decay.")
    clip_norm: Positive = Field(1.0, description="Largest norm of the gradient.")
    elasticity: Annotated[float, Field(ge=0)] = Field(
        10.0, description="λ of elastic weight consolidation; 0: none."
    )
    fisher_rows: Count = Field(256, description="Old rows that the Fisher diagonal is the mean of.")
    threads: Count = Field(1, description="Threads of the learner's process.")
    niceness: Annotated[int, Field(ge=0, le=19)] = Field(
        19, description="How far the learner steps back behind the server (nice)."
    )
    save_seconds: Positive = Field(30, description="The state of a round is saved so often.")
    keep: Count = Field(20, description="Versions that are kept.")


class Trust(Section):
    """Whose feedback counts for how much. A voice is an API key, or without keys the name given."""

    per_hour: Count = Field(
        200, description="Feedback of one voice, in an hour of the clock, that is learned from."
    )
    voices: Count = Field(
        2,
        description="Voices that have to say the same of a context before it counts more than "
        "`alone`, and before feedback against all that is like it is learned from at all.",
    )
    alone: Count = Field(2, description="The most that feedback of fewer voices weighs.")
    similarity: Share = Field(
        0.5, description="Cosine of the TF-IDF of words from which a text is a neighbour."
    )
    neighbours: Count = Field(
        3,
        description="So many with the other label, and none with its own, make an outlier.",
    )
    evidence: Count = Field(
        6,
        description="Lessons that have to say the opposite of what is older of their kind before "
        "the policy is taken to have changed; half of them without the loudest voice.",
    )
    odd: Share = Field(
        0.25,
        description="A voice of whose lessons a larger share are outliers is not learned from.",
    )
    fewest_odd: Count = Field(5, description="So many outliers make a voice odd, at least.")


class Rules(Section):
    """What a copy has to keep to."""

    fall: Positive = Field(
        0.005,
        description="The lower bound of the change in PR-AUC on the holdout is above minus this.",
    )
    recent_fall: Positive = Field(
        0.03,
        description="The change on recent feedback is above 0, and its lower bound above minus "
        "this: of few rows a rise may be chance.",
    )
    false_rise: Positive = Field(
        0.01, description="The most by which a slice's false-positive rate may rise."
    )
    fewest: Count = Field(20, description="Rows of either kind that the holdout needs.")
    fewest_slice: Count = Field(
        100,
        description="Rows to be allowed from which a slice is judged: with fewer, one alone would "
        "be more than false_rise.",
    )
    contested: Share = Field(
        0.3,
        description="The most of the holdout that feedback of several voices may contradict: with "
        "more, it takes an operator's word, or a new gate with a new holdout.",
    )
    fewest_recent: Count = Field(
        20, description="Rows of recent feedback that are needed; for PR-AUC, half of either kind."
    )


class LearnerSettings(Section):
    """learning  when a copy is trained, on what, and how
    trust     whose feedback counts for how much
    rules     what a copy has to keep to
    """

    learning: Learning = Learning()
    trust: Trust = Trust()
    rules: Rules = Rules()
