"""What is measured between the lineages of a run, of all families whose models predict tokens."""

from collapse_cli.families.description import Measure

BETWEEN = (
    Measure(
        "js_distance",
        "Distance between the lineages' models",
        "0–1",
        "Jensen-Shannon distance of their next-token distributions on real text, mean over the other lineages; 0: they predict the same.",
        "Models that become alike need not become worse, or better.",
        zero=True,
    ),
    Measure(
        "mixture_perplexity",
        "Perplexity of all lineages together",
        "perplexity",
        "On real test text, of the mean of all models' probabilities: what the lineages still hold between them.",
        "Nobody samples from the mixture: no model is trained on what it would say.",
    ),
    Measure(
        "mixture_gain",
        "What all know beyond one",
        "nats/token",
        "Mean loss of the single models less that of their mixture; falling to 0 as the models become one.",
        "Models that are wrong in different ways gain by their mixture, too.",
        zero=True,
    ),
    Measure(
        "others_perplexity",
        "Others' samples under this model",
        "perplexity",
        "Perplexity of what the other lineages' models write, given the prompts; geometric mean over the others.",
        "Falls as samples become alike, and also as they become simple.",
    ),
)
MIXTURE_UNSEEN = Measure(
    "mixture_unseen_share",
    "Test tokens without probability in any lineage",
    "share",
    "Share of real test tokens that no lineage's model gives a probability: what all of them have lost.",
    "One lineage that kept a token counts as all.",
    zero=True,
)
BETWEEN_NUMBERS = frozenset({"mixture_nll", "mixture_models"})  # other fields of rows that are numbers
# fields that hold a number for each lineage, by name
BY_LINEAGE = ("nll_on", "bits_per_byte_on", "js_distance_to", "cross_perplexity", "cross_bits_per_byte")
