"""Measures of model families that are no language models: what `catalogue.py` is for those."""

from collapse_cli.findings.expectations import COORDINATES
from collapse_cli.metrics.families import headline
from collapse_cli.report.catalogue import NUMBERS as OF_TEXT
from collapse_cli.report.catalogue import SHARE, TRUTH, Measure

TEST_LOSS = Measure(
    "test_loss",
    "Loss on real test rows",
    "loss a row",
    "Mean loss of the model on real rows that it never saw; rising as the model leaves the real distribution.",
    "An average: what is lost in a rare corner moves it little.",
)
ERROR = Measure(
    "error",
    "Test error",
    "|ŵ − w|²",
    "Squared distance of the fitted function from the true one, exactly (the truth is known), without the labels' noise.",
    "Errors in directions where inputs vary little count little.",
)

GAUSSIAN = (
    Measure(
        "variance",
        "Fitted variance",
        "of the truth's",
        "1 is right. Mean over trials and dimensions; models that are refitted to their own samples lose variance.",
        "A mean over trials: a few that grow can hide that most have collapsed. Read it with the share collapsed.",
    ),
    Measure(
        "std",
        "Fitted standard deviation",
        "of the truth's",
        "Falls even where the mean variance stands still, for it weighs the few large trials less.",
        "Still a mean: see the logarithm for the typical trial.",
    ),
    Measure(
        "log_variance",
        "Log-variance",
        "ln(v / truth)",
        "That of the typical trial: a straight line down is collapse at a constant rate.",
        "A single trial near 0 weighs heavily.",
    ),
    Measure(
        "mean_shift_squared",
        "Drift of the mean",
        "v₀",
        "Squared distance of the fitted mean from the true one, in units of the true variance; a random walk.",
        "Says nothing about the shape.",
        zero=True,
    ),
    Measure(
        "w2_squared",
        "Wasserstein distance to the truth",
        "W₂², v₀",
        "Drift of the mean and loss of variance in one number.",
        "Does not tell the two apart.",
        zero=True,
    ),
    Measure(
        "log_det",
        "Log-determinant",
        "ln det C/C₀",
        "Volume of the fitted ellipsoid; falls in every dimension at once.",
        "One lost dimension alone sends it down.",
    ),
    Measure(
        "collapsed_share",
        "Trials collapsed",
        SHARE,
        "Share of trials whose variance is below 1% of the start.",
        "The threshold is a convention.",
        zero=True,
    ),
    TEST_LOSS,
)

GMM = (
    Measure(
        "l2_squared",
        "Distance to generation 0",
        "L2², squared",
        "Squared L2 distance between the two densities, exactly; generation 0's own is 0 and has no place on a "
        "logarithmic axis.",
        "Where the two have come apart, distance no longer counts: it then grows with how thin components are.",
    ),
    Measure(
        "component_std_min",
        "Narrowest component",
        "std",
        "Root of the smallest mean variance of a component over dimensions; towards 0 a component becomes a point.",
        "A component that is thin in one direction only; and says nothing about its weight.",
        zero=True,
    ),
    Measure(
        "component_std_max",
        "Widest component",
        "std",
        "The same of the widest; falling with the narrowest, the whole mixture shrinks.",
        "One component that swallows the others is wide, too.",
        zero=True,
    ),
    Measure(
        "largest_weight",
        "Largest component",
        SHARE,
        "Weight of the heaviest component; towards 1 the others are lost.",
        "Two components on the same place share their weight.",
        zero=True,
    ),
    Measure(
        "iterations",
        "EM steps",
        "steps",
        "Steps until the likelihood stood still; many where components overlap.",
        "Not a quality: a bad optimum may be found fast.",
        zero=True,
    ),
    Measure(
        "log_likelihood",
        "Likelihood of its own corpus",
        "nats a row",
        "Rising: the corpus becomes easier to fit, because it varies less.",
        "High is not good: it is of the corpus, not of the truth.",
    ),
    TEST_LOSS,
)

NGRAM = (
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

VAE = (
    Measure(
        "latent_spread",
        "Spread of latents",
        "std",
        "How far apart generation 0's encoder finds the images that were generated; falling: they become alike.",
        "Seen by that encoder alone: what it cannot tell apart does not count.",
        zero=True,
    ),
    Measure(
        "latent_std_all",
        "Spread of all latents together",
        "std",
        "Standard deviation of all latents of all generated images at once; which of the two spreads the paper shows is "
        "UNCONFIRMED.",
        "Latents with different means look spread though images are alike.",
        zero=True,
    ),
    Measure(
        "reconstruction",
        "Reconstruction of real images",
        "nats an image",
        "What is lost of a real test image on the way through the latents; rising as the model forgets what real ones are.",
        "Blurred averages reconstruct well.",
    ),
    Measure(
        "kl",
        "Information in the latents",
        "KL, nats",
        "How much an image says about its latents; near 0 the decoder no longer listens.",
        "Not a quality by itself.",
        zero=True,
    ),
    TEST_LOSS,
)

MLP = (
    Measure(
        "error",
        "Test error",
        "squared",
        "Mean squared error on true one-hot labels of real test images.",
        "Confident and right counts little more than right.",
    ),
    Measure(
        "accuracy",
        "Test accuracy",
        SHARE,
        "Share of real test images whose largest output is the right class.",
        "Blind to how sure the model is.",
    ),
    TEST_LOSS,
)

LOSS = Measure(
    "nll",
    "Loss on real test text",
    "nats/token",
    "Mean over tokens of real test text; its exponential is the perplexity.",
    "An average: rare tokens may be lost before it moves.",
)
PERPLEXITY = Measure(
    "perplexity", "Perplexity on real test text", "perplexity", "The exponential of the loss.", "As the loss."
)

FAMILIES: dict[str, tuple[Measure, ...]] = {
    "gaussian": GAUSSIAN,
    "gmm": GMM,
    "vae": VAE,
    "ridge": (ERROR, TEST_LOSS),
    "projections": (ERROR, TEST_LOSS),
    "mlp": MLP,
    "ngram": NGRAM,
}
MIXTURES: dict[str, tuple[Measure, ...]] = {**FAMILIES, "lm": (LOSS, PERPLEXITY, *TRUTH[:1])}
OWN = {measure for measures in FAMILIES.values() for measure in measures}

# fields of which anything but a finite number is damage
NUMBERS = (
    OF_TEXT
    | {measure.name for measure in OWN}
    | {f"{measure.name}_se" for measure in OWN}
    | set(COORDINATES)
    | {
        "types",
        "seen_nll",
        "latent_std_all",
        "latent_spread_real",
        "latent_spread_scatter",
        "latent_std_all_real",
        "log10_l2_squared",
        "converged",
        "epochs",
    }
)


def measures_of(learner: str) -> tuple[Measure, ...]:
    """Those of a family over generations, its headline measure first; of an unknown one its loss."""
    return FAMILIES.get(learner, (TEST_LOSS,))


def headline_measure(learner: str, kind: str, name: str = "") -> Measure:
    """The headline measure with how to read it; `name` where the data decide which it is."""
    name = name or headline(learner, kind).name
    known = MIXTURES.get(learner, ()) if kind == "mixture" else measures_of(learner)
    return next((measure for measure in known if measure.name == name), TEST_LOSS)
