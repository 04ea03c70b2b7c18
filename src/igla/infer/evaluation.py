"""What `igla evaluate` does."""

import json

import numpy as np
from rich.progress import track

from igla.data.columns import choose_columns
from igla.data.labels import Labels, read_labels
from igla.data.rows import Rows, read_rows
from igla.data.source import open_source
from igla.errors import UserError
from igla.evaluate.measurement import Measurement, table_lines
from igla.evaluate.metrics import Scored
from igla.infer.classifier import Classifier, DecisionRule, model_folder
from igla.terminal import plain_console

ROWS_AT_ONCE = 2048


def evaluate_file(
    run: str,
    data: str,
    text_column: str | None,
    label_columns: tuple[str, ...] | None,
    encoding: str | None,
    *,
    as_json: bool,
) -> None:
    """Print how well a saved classifier labels the rows of a file, by its own threshold."""
    folder = model_folder(run)
    classifier = Classifier.load(folder)
    rule = classifier.rule
    source = open_source(data, encoding)
    if label_columns is None and rule.multi_label:
        label_columns = rule.classes
    columns = choose_columns(
        source.columns, text_column, label_columns, labels_required=True, where=data
    )
    console = plain_console(stderr=as_json)
    for line in (*source.said, columns.said):
        console.print(line)
    rows = read_rows(source, columns)
    labels = _in_the_models_classes(rows, read_labels(rows, columns.labels), rule, data)
    used = np.flatnonzero((rows.keys != 0) & (labels.values.reshape(len(rows), -1).min(1) >= 0))
    if len(used) < len(rows):
        console.print(f"left out: {len(rows) - len(used):,} rows without a text or a label")
    if len(used) == 0:
        raise UserError(f"{data}: no row has both a text and a label.")
    parts = [used[start : start + ROWS_AT_ONCE] for start in range(0, len(used), ROWS_AT_ONCE)]
    probabilities = [
        classifier.probabilities(rows.texts(part))
        for part in track(parts, "scoring", console=plain_console(stderr=True), transient=True)
    ]
    scored = Scored(
        rule.classes, labels.values[used], np.concatenate(probabilities), rule.multi_label
    )
    measurement = Measurement(folder.parent.name or "igla", scored, rule.threshold)
    if as_json:
        print(json.dumps(measurement.as_json(), ensure_ascii=False, indent=1))
        return
    console.print(f"{len(used):,} rows [95 % intervals]:")
    for line in table_lines([measurement]):
        console.print(f"  {line}")
    for name, one in measurement.figures["per_class"].items():
        console.print(
            f"  {name}: precision {one['precision']:.3f}, recall {one['recall']:.3f}, "
            f"F1 {one['f1']:.3f}, {one['support']:,} rows"
        )


def _in_the_models_classes(rows: Rows, labels: Labels, rule: DecisionRule, data: str) -> Labels:
    """The labels counted as the model counts its classes; UserError for one it does not know."""
    if labels.multi_label != rule.multi_label:
        kinds = ("one label a row", "several label columns")
        raise UserError(
            f"The model gives {kinds[rule.multi_label]}, but {data} is read with "
            f"{kinds[labels.multi_label]}; name the right ones with --label-column."
        )
    if rule.multi_label:
        if labels.classes != rule.classes:
            raise UserError(
                f"The model's labels are {', '.join(rule.classes)}, in this order; "
                f"{data} is read with {', '.join(labels.classes)}."
            )
        return labels
    for code, name in enumerate(labels.classes):
        if name not in rule.classes:
            place = rows.place(int(np.argmax(labels.values == code)))
            raise UserError(
                f"{place}: the model does not know the label '{name}'; "
                f"it knows {', '.join(rule.classes)}."
            )
    # The last entry serves a missing label, which is -1.
    table = np.array([rule.classes.index(name) for name in labels.classes] + [-1])
    return Labels(rule.classes, table[labels.values])
