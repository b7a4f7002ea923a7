"""What each family is judged by: the measure that stands first in tables, and in which words."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Headline:
    """The first measure of a family.

    Attributes:
        name: its field in `metrics.jsonl`.
        title: in words.
        log: whether it changes by factors, and belongs on a logarithmic axis.
        better: whether less or more of it is better; "" where neither is.
    """

    name: str
    title: str
    log: bool = False
    better: str = "less"


HEADLINES = {
    "lm": Headline("perplexity", "perplexity on real test text", log=True),
    # not the perplexity: what a model by counting never saw has probability 0, and a floor would decide the number
    "ngram": Headline("unseen_share", "share of real test tokens that the model gives no probability"),
    "gaussian": Headline("variance", "fitted variance, truth 1", better="more"),
    "gmm": Headline("l2_squared", "squared L2 distance to generation 0", log=True),
    "vae": Headline("latent_spread", "spread of latents under generation 0's encoder", better="more"),
    "ridge": Headline("error", "test error |ŵ - w|² (without noise)", log=True),
    "projections": Headline("error", "test error |ŵ - w|² (without noise)", log=True),
    "mlp": Headline("error", "squared test error", log=True),
}
MIXTURES = {**HEADLINES, "lm": Headline("nll", "loss on real test text, nats/token")}


KNOWN_TRUTH = Headline("kl_truth", "KL(truth ‖ model), nats/token", log=True)


def headline(learner: str, kind: str, source: str = "") -> Headline:
    """The first measure of an experiment; of an unknown learner (of a newer version) its test loss.

    Args:
        source: `data.source`. Of a language whose truth is known, a mixture of language models is judged by its distance
            from it: a loss holds the language's own entropy, beside which all differences look small.
    """
    if (learner, kind, source) == ("lm", "mixture", "zipf"):
        return KNOWN_TRUTH
    known = MIXTURES if kind == "mixture" else HEADLINES
    return known.get(learner, Headline("test_loss", "loss on real test rows"))
