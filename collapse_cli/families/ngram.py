"""n-grams by exact maximum likelihood."""

from pydantic import Field

from collapse_cli.families.beside import BETWEEN, BETWEEN_NUMBERS, MIXTURE_UNSEEN
from collapse_cli.families.description import SHARE, Description, Headline, Measure, Theory, always
from collapse_cli.families.section import Section


class NgramConfig(Section):
    """The learner `ngram`: exact maximum likelihood over tokens."""

    order: int = Field(default=2, ge=1, le=5)
    """Tokens of an n-gram; 1: unigrams."""
    floor: float = Field(default=1e-9, gt=0, lt=1)
    """Probability given, in scoring only, to what was never seen, so that losses stay finite. `nll`, `perplexity`,
    `bits_per_byte`, `word_perplexity`, `test_loss` and `kl_truth` hang on it; `unseen_share`, `missing_mass` and
    `seen_perplexity` do not."""


MEASURES = (
    Measure(
        "unseen_share",
        "Test tokens without probability",
        SHARE,
        "Share of real test tokens that the model gives no probability at all: there its loss is infinite.",
        "Whether it is sure or unsure of the rest; depends on the order and on how much real text there is.",
        zero=True,
    ),
    Measure(
        "missing_mass",
        "True mass without probability",
        SHARE,
        "Probability of the truth's next words that the model gives none at all.",
        "What is left may be wrong, too.",
        zero=True,
    ),
    Measure(
        "seen_perplexity",
        "Perplexity where there is probability",
        "perplexity",
        "Over the test tokens that the model gives a probability, so that no floor is in it.",
        "What is lost is left out: it can fall while the model forgets. Read it beside the share without probability.",
    ),
    Measure(
        "vocabulary_share",
        "Types that still have mass",
        SHARE,
        "Share of the real corpus' types that the model can still say; a type that is not sampled once is lost for good.",
        "A type with one occurrence left counts in full.",
        zero=True,
    ),
    Measure(
        "sample_entropy",
        "Entropy of samples",
        "nats",
        "Of the tokens the model samples; falling as few tokens carry the text.",
        "Blind to order.",
    ),
    Measure(
        "corpus_entropy",
        "Entropy of the corpus",
        "nats",
        "Of the tokens the model was fitted on; falling as few of them carry the corpus.",
        "Blind to order.",
    ),
)


NGRAM = Description(
    name="ngram",
    learner="collapse_cli.learners.ngram:NGram",
    settings=NgramConfig,
    reads=(
        "ngram",
        *("model.tokenizer", "model.tokenizer_sha256", "model.vocab_size"),
        *("sample.prompts", "sample.prompt_tokens", "sample.new_tokens", "sample.max_duplicates"),
        # all but the temperature must be off, and its error says so
        *(
            f"sample.decode.{name}"
            for name in ("beams", "temperature", "top_k", "top_p", "min_p", "repetition_penalty")
        ),
        "train.target",
        *("eval.protocol", "eval.block_size"),
        "foreign",
    ),
    rows="text",
    # not the perplexity: what a model by counting never saw has probability 0, and a floor would decide the number
    headline=Headline("unseen_share", "share of real test tokens that the model gives no probability"),
    measures=MEASURES,
    instruments={"between": (*BETWEEN, MIXTURE_UNSEEN)},
    numbers=frozenset({"types", "seen_nll"}) | BETWEEN_NUMBERS,
    light=False,  # it reads text as language models do
    perplexity="perplexity on real test text, the floor for what was never seen",
    floor="floor",
    starts_anew=always,
    theory=Theory(loop="collapse_cli.findings.predictions:counted_words"),
    own_title="What the n-grams still know",
)
