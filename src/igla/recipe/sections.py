"""What a recipe may say: its sections, each field with its default and what it means."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Part = Annotated[float, Field(ge=0, allow_inf_nan=False)]

# The teacher that is no folder: TF-IDF and logistic regression.
BASELINE = "baseline"
# The base that is still to be chosen by the texts.
AUTO_BASE = "auto"


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, coerce_numbers_to_str=True
    )

    def differs(self, fields: Iterable[str]) -> bool:
        """Whether any of these fields is not at its default."""
        return any(getattr(self, name) != type(self).model_fields[name].default for name in fields)


class DataRecipe(Section):
    source: str | None = Field(
        None,
        description="File, folder or glob with the labelled rows; of sft and wedlm, with "
        "conversations; of a pretext task, texts beside those of corpus.",
    )
    validation: str | None = Field(
        None, description="Rows to validate on; otherwise a part of `source` is kept aside."
    )
    test: str | None = Field(
        None, description="Rows to test on; otherwise a part of `source` is kept aside."
    )
    encoding: str | None = Field(None, description="Encoding of the files; UTF-8 if not given.")
    text_column: str | None = Field(None, description="Column of the texts; found by its name.")
    label_columns: tuple[str, ...] = Field(
        (), description="Column of the labels, or several 0/1 columns for multi-label."
    )
    weight_column: str | None = Field(None, description="Column of how much each row counts.")
    prompt_column: str | None = Field(
        None, description="Of sft: column of what the assistant is asked, if not found by its name."
    )
    completion_column: str | None = Field(None, description="Of sft: column of what it answers.")
    validation_share: Share = Field(0.1, description="Share of the rows kept for validation.")
    test_share: Share = Field(0.1, description="Share of the rows kept for the test.")
    empty: Literal["refuse", "drop"] = Field(
        "refuse", description="What happens to rows without a text or a label."
    )
    rare: Literal["refuse", "drop"] = Field(
        "refuse", description="What happens to labels that occur fewer than three times."
    )
    conflicts: Literal["drop", "keep"] = Field(
        "drop", description="What happens to texts that carry different labels in different rows."
    )


class CorpusRecipe(Section):
    sources: dict[str, str] = Field(
        {}, description="Texts to learn from without labels: name → file, folder or glob."
    )
    shares: dict[str, Part | Annotated[tuple[Part, ...], Field(min_length=1)]] = Field(
        {},
        description="How much each source makes of what is seen, relative to the others; several "
        "numbers are a course over the run. None: by what there is of each.",
    )
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        1.0, description="Without shares: above 1, small sources are seen more than their size."
    )
    text_column: str | None = Field(
        None, description="Column of the texts in tables, if not found by its usual name."
    )
    encoding: str | None = Field(None, description="Encoding of the files; UTF-8 if not given.")
    documents: Literal["paragraphs", "files"] = Field(
        "paragraphs",
        description="What a document of a text file is: its lines up to an empty one, or all of "
        "it. A row of a table is one in any event.",
    )
    validation: str | None = Field(
        None, description="Texts to validate on; otherwise a part of the documents is kept."
    )
    validation_share: Share = Field(0.01, description="Share of the documents kept to validate on.")
    letters_share: Share = Field(
        0.5, description="Drop documents of which less than this share are letters."
    )
    language: Literal["any", "ru"] = Field(
        "any", description="ru: drop documents that are mostly not in Russian letters."
    )
    similar: Literal["drop", "keep"] = Field(
        "drop", description="What happens to documents that are nearly the same as another."
    )


class CurriculumRecipe(Section):
    by: str = Field(
        "none",
        description="Easy rows first: length, rarity (frequent words first), loss (what "
        "curriculum.judge knows first), or MODULE:FUNCTION from a list of texts to numbers.",
    )
    judge: str | None = Field(None, description="Folder of the classifier for curriculum.by=loss.")
    start: Annotated[float, Field(gt=0, le=1)] = Field(
        0.01, description="Share of the rows, the easiest, that the first step may hold."
    )
    until: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="Share of the run after which every row may come."
    )


class TextRecipe(Section):
    tokenizer: Literal["wordpiece", "bpe", "unigram", "byte_bpe"] = Field(
        "wordpiece",
        description="Kind of tokenizer to train when the base brings none; causal_lm: byte_bpe.",
    )
    vocabulary: Literal["base", "new"] = Field(
        "base",
        description="On a base, in pretraining: keep its tokenizer, or train one on the texts and "
        "move the base's body to it.",
    )
    vocab_size: Annotated[int, Field(ge=1, le=10_000_000)] | Literal["auto"] = Field(
        "auto", description="Size of the trained vocabulary; by the amount of text if auto."
    )
    lowercase: bool = Field(
        True, description="Whether the trained tokenizer lowers the case; causal_lm: no."
    )
    guard: bool = Field(
        False,
        description="Whether the tokenizer undoes evasive spellings (look-alikes, signs and spaces "
        "in words, repeats, invisible signs, marks on letters); it then lowers the case.",
    )
    latin: Literal["keep", "russian"] = Field(
        "keep",
        description="With guard: words in Latin letters stay as they are, or are read as Russian "
        "ones that are written so («suka»), which English ones then are as well.",
    )
    evasion: Share = Field(
        0.0,
        description="Share of the training texts shown with the spellings of those who evade "
        "filters, other ones in each epoch.",
    )
    max_length: Annotated[int, Field(ge=3)] = Field(
        128,
        description="Longest sequence in tokens, the two marks included; the rest is cut. "
        "causal_lm: 512, and what is longer goes on in a further window.",
    )


class ModelRecipe(Section):
    base: Annotated[str | None, BeforeValidator(lambda name: None if name == "none" else name)] = (
        Field(
            AUTO_BASE,
            description="Local folder or Hub name of a pretrained base, or minilm-ru, which comes "
            "with igla; none: from scratch. auto: minilm-ru for a classifier of texts that are "
            "mostly in Russian letters and whose shape and tokenizer are left as they are, else "
            "none.",
        )
    )
    size: str = Field(
        "minilm-l6-h384",
        description="Shape from scratch: tiny, mini, minilm-l6-h384, minilm-l12-h384 or base; of "
        "causal_lm, a decoder: igla-5m, igla-30m or larger (igla model show).",
    )
    hidden_size: Count | None = Field(None, description="Width, in place of the named shape's.")
    layers: Count | None = Field(None, description="Depth, in place of the named shape's.")
    heads: Count | None = Field(None, description="Attention heads, in place of the shape's.")
    kv_heads: Count | None = Field(
        None, description="A decoder's heads of keys and values, in place of the named shape's."
    )
    intermediate_size: Count | None = Field(
        None, description="Width of the feed-forward part, in place of the named shape's."
    )
    mixers: Annotated[
        tuple[Literal["attention", "window", "gla", "ssd"], ...], Field(min_length=1)
    ] = Field(
        ("attention",),
        description="What a decoder's layers have for attention, in turn and over again: "
        "attention, window (to sliding_window tokens), gla (gated linear attention) or ssd "
        "(Mamba-2's state space).",
    )
    sliding_window: Count | None = Field(
        None, description="How many tokens the layers named window attend to."
    )
    experts: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Experts in each layer of a decoder, in place of one feed-forward part; on a "
        "base without any, copies of that part. 0: none, or those of the base.",
    )
    experts_per_token: Count = Field(2, description="How many of the experts a token goes to.")
    shared_experts: Annotated[int, Field(ge=0)] = Field(
        0, description="Experts that every token goes to besides."
    )
    expert_weights: Literal["among_chosen", "among_all"] = Field(
        "among_chosen",
        description="Of a token's experts: their scores' softmax (top-k, then softmax), or their "
        "part in the softmax of all (softmax, then top-k).",
    )
    words: Literal["random", "cooccurrence", "pieces", "similar"] = Field(
        "random",
        description="Start of the word embedding from scratch: random, or cooccurrence, from which "
        "words stand near each other in the texts to train on. On a base with a new vocabulary: "
        "pieces, the mean of the base's pieces of a word, or similar, of the words most like it.",
    )
    ngrams: Annotated[int, Field(ge=0, le=2**24)] = Field(
        0,
        description="Rows of a table of n-grams of letters that is added to the embedding of "
        "words, on a base of BERT as well; 131072 suit most. 0: none, or those of the base.",
    )
    dropout: Share = Field(
        0.1, description="Dropout in an encoder's body and before its classifier; decoders: none."
    )


class ObjectiveRecipe(Section):
    task: Literal[
        "classify",
        "masked_lm",
        "replaced_token",
        "contrastive",
        "distill",
        "causal_lm",
        "wedlm",
        "sft",
    ] = Field(
        "classify",
        description="classify: the labels of data; the others: the texts of corpus, by masked "
        "words, by words that a small model replaced, by finding a text again among others, by "
        "a teacher's states, or, causal_lm, by each next word, which trains a decoder. wedlm: a "
        "decoder, the base, learns to fill masks as well, several words at once. sft: a decoder, "
        "the base, learns the assistant's turns of the conversations of data.",
    )
    balance: Part = Field(
        0.01, description="Weight of the loss that keeps each layer's experts in even use."
    )
    router_z: Part = Field(
        0.001, description="Weight of the loss that keeps the logits of routers small."
    )
    balance_bias: Part = Field(
        0.0,
        description="How far a step moves the bias of an expert that is used too much or too "
        "little, beside objective.balance or, with that at 0, in its place; 0: no biases.",
    )
    expert_capacity: Positive | None = Field(
        None,
        description="In training, an expert has room for so many times its even share of a "
        "batch; what later tokens send it beyond is dropped and counted. None: for all.",
    )
    teachers: tuple[str, ...] = Field(
        (),
        description="Folders of models to learn from: of distill, the encoder; of classify, "
        "classifiers, whose mean prediction is learned beside the labels. A classifier named "
        "baseline is TF-IDF + LR, on each row as trained on other rows.",
    )
    teacher_weight: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5, description="Of the teachers' predictions beside the labels."
    )
    teacher_temperature: Positive = Field(
        1.0, description="That softens the teachers' and the own predictions."
    )
    temperature: Positive = Field(
        0.05, description="Of contrastive: how much the nearest others count beside the rest."
    )
    mask_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.15, description="Share of the tokens that are masked."
    )
    mask_unit: Literal["token", "word", "span"] = Field(
        "token", description="What is masked as a whole."
    )
    loss: Literal["auto", "cross_entropy", "binary_cross_entropy", "focal"] = Field(
        "auto",
        description="auto: binary cross-entropy for several label columns, else cross-entropy.",
    )
    class_weights: Literal["auto", "none", "balanced"] | tuple[Positive, ...] = Field(
        "auto", description="auto: balanced where the rarest class is under half its even share."
    )
    label_smoothing: Share = Field(0.0, description="Share of the target spread over all classes.")
    focal_gamma: Annotated[float, Field(ge=0)] = Field(2.0, description="Focusing of focal loss.")
    word_dropout: Share = Field(
        0.0, description="Share of a text's tokens hidden by the mask while classifying is learned."
    )
    r_drop: Annotated[float, Field(ge=0)] = Field(
        0.0, description="Weight of agreement between two passes that drop other elements."
    )
    mixup: Annotated[float, Field(ge=0)] = Field(
        0.0, description="Mix pairs of sequences by shares of Beta(mixup, mixup); 0: none."
    )
    adversary: Literal["none", "fgm", "pgd"] = Field(
        "none",
        description="Learn at embeddings moved for the worse as well: by one step, or by three.",
    )
    adversary_reach: Positive = Field(
        0.01, description="How far, as a share of the length of the sequence's embeddings."
    )
    ewc: Part = Field(
        0.0,
        description="Weight of elastic weight consolidation: of causal_lm, masked_lm and sft on a "
        "base, what it costs to move weights that the texts of ewc_corpus need; 0: none.",
    )
    ewc_corpus: tuple[str, ...] = Field(
        (), description="Texts of the old task, which is to be kept: files, folders or globs."
    )
    ewc_rows: Count = Field(256, description="Windows of these texts that are gone through for it.")


class OptimRecipe(Section):
    optimizer: Literal["adamw", "adam", "sgd", "lion"] = Field("adamw", description="Update rule.")
    learning_rate: Positive | Literal["auto"] = Field(
        "auto",
        description="Peak rate; auto: 2e-5 on a pretrained base, 1e-4 on minilm-ru, 2e-4 of an "
        "adapter and from scratch, there of causal_lm 1e-3.",
    )
    schedule: Literal["cosine", "linear", "constant", "cosine_restarts", "wsd"] = Field(
        "cosine", description="Course of the learning rate after the warmup."
    )
    warmup_steps: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        "auto", description="Steps of linear warmup; auto: 100, but a tenth of a short run."
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        0.01,
        description="Decoupled decay of matrices; biases and norms have none. causal_lm: 0.1.",
    )
    betas: tuple[Share, Share] = Field(
        (0.9, 0.999), description="Decay of the two moments; causal_lm: 0.9 and 0.95."
    )
    epsilon: Positive = Field(1e-8, description="Adam's epsilon.")
    momentum: Share = Field(0.9, description="Momentum of SGD.")
    clip_norm: Positive | None = Field(1.0, description="Largest norm of the gradient.")
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="Factor on the learning rate from each layer to the one below it."
    )
    ema: Share = Field(0.0, description="Decay of the weights' moving average; 0: none.")


class AdaptRecipe(Section):
    method: Literal["none", "lora", "dora", "qlora"] = Field(
        "none",
        description="What is trained of a base: none: all of it; lora: small matrices beside its "
        "own; dora: these and the lengths of its rows; qlora: lora on a base in four bits.",
    )
    rank: Count = Field(16, description="Rank of the small matrices.")
    alpha: Positive = Field(32.0, description="They count alpha/rank times.")
    rank_stabilised: bool = Field(False, description="They count alpha/√rank times instead.")
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        ("all-linear",),
        description="Which layers have them, by components of their Hugging Face names, as "
        "[q_proj, v_proj] or [layers.0]; all-linear: all inside the layers.",
    )
    whole: tuple[str, ...] = Field(
        (), description="Layers that are trained as they are, named likewise; classifiers always."
    )
    dropout: Share = Field(0.0, description="Dropout of what goes into the small matrices.")
    rate_ratio: Positive = Field(
        1.0, description="How much faster the second of the two matrices learns (LoRA+: 16)."
    )


class TrainRecipe(Section):
    epochs: Positive | Literal["auto"] = Field(
        "auto", description="Passes over the data; auto: 3, and more where rows are few."
    )
    steps: Count | None = Field(None, description="Optimizer steps, in place of epochs.")
    batch_size: Count = Field(32, description="Rows in an optimizer step.")
    batch_tokens: Count | None = Field(
        None,
        description="Tokens in an optimizer step, about, in place of batch_size rows; causal_lm: "
        "8192.",
    )
    micro_batch_size: Count | None = Field(
        None, description="Rows in one forward pass; gradients are accumulated up to batch_size."
    )
    precision: Literal["auto", "float32", "bf16", "fp16"] = Field(
        "auto", description="Arithmetic of the matrix products; auto: by measurement."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where the model runs.")
    activation_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass: less memory, more time."
    )
    seed: Annotated[int, Field(ge=0)] = Field(
        1, description="Seed of splits, weights, data order and dropout."
    )
    evaluations_per_epoch: Count = Field(1, description="Validations per epoch.")
    patience: Count | None = Field(
        None, description="Stop after so many validations without an improvement."
    )
    save_steps: Count | None = Field(None, description="Save a version every so many steps.")
    save_minutes: Positive = Field(10, description="Save a version at least so often.")
    keep_last: Count = Field(2, description="How many versions are kept besides the best.")
