"""The model card: README.md in Hugging Face's form."""

import math

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from igla.evaluate.measurement import TITLES, Measurement


def render_card(
    *,
    name: str,
    base: str | None,
    part: str,
    model: Measurement,
    baseline: Measurement | None,
    temperature: float,
    max_length: int,
    elsewhere: bool,
    decisions: list[str],
) -> str:
    """The card of a classifier.

    base       the model it was tuned from, or None from scratch
    elsewhere  whether transformers opens it too
    """
    results = [
        EvalResult(
            task_type="text-classification",
            task_name="Text classification",
            dataset_type="own",
            dataset_name=name,
            dataset_split=part,
            metric_type=metric,
            metric_name=TITLES[metric],
            metric_value=round(model.figures[metric], 4),
        )
        for metric in TITLES
        if not math.isnan(model.figures[metric])
    ]
    data = ModelCardData(
        model_name=name,
        library_name="transformers" if elsewhere else "igla",
        pipeline_tag="text-classification",
        base_model=base,
        tags=["igla", "text-classification"],
        eval_results=results,
    )
    environment = Environment(
        loader=PackageLoader("igla.evaluate"),
        autoescape=False,  # the page is Markdown
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("card.md.j2").render(
        data=data.to_yaml(),
        name=name,
        base=base,
        part=part,
        titles=TITLES,
        measured=[model] if baseline is None else [model, baseline],
        model=model,
        temperature=temperature,
        max_length=max_length,
        elsewhere=elsewhere,
        decisions=decisions,
    )
