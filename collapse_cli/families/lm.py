"""Causal language models of transformers."""

from collapse_cli.families.beside import BETWEEN, BETWEEN_NUMBERS
from collapse_cli.families.description import SHARE, Description, Grid, Headline, Measure

SAMPLES = (
    Measure(
        "sample_log_perplexity_median",
        "Median log-perplexity of samples",
        "nats/token",
        "Falling: the typical sample becomes what the first model already found likely.",
        "Says nothing about the ends of the distribution.",
    ),
    Measure(
        "low_share",
        "Pile-up at low perplexity",
        SHARE,
        "Share of samples below generation 0's 5% quantile; it starts near 5%, and rises as samples become predictable.",
        "Predictable is not always bad: boilerplate in the corpus is too.",
        zero=True,
    ),
    Measure(
        "high_share",
        "Long tail at high perplexity",
        SHARE,
        "Share of samples above generation 0's 99% quantile; it starts near 1%, and rises as samples drift to text the "
        "first model would not write.",
        "Cannot tell nonsense from something new and good.",
        zero=True,
    ),
    Measure(
        "sample_log_perplexity_variance",
        "Variance of log-perplexity",
        "nats²",
        "Falling: samples become alike. Rising: some drift far away.",
        "Pile-up and long tail move it in opposite directions and may cancel.",
        zero=True,
    ),
)

TAILS = (
    Measure(
        "tail_change",
        "Rare tokens (deciles 8–10)",
        "nats/token above gen. 0",
        "Loss on the rarest real tokens against generation 0; above 0 is worse. Early collapse shows here first.",
        "Rare by token type, not by meaning.",
    ),
    Measure(
        "head_change",
        "Frequent tokens (deciles 1–3)",
        "nats/token above gen. 0",
        "The same for the most frequent tokens; while this stays at 0 and the other rises, collapse is early.",
        "A model can keep function words and lose all content.",
    ),
    Measure(
        "vocabulary_coverage",
        "Vocabulary still in use",
        SHARE,
        "Share of the real corpus' token types that occur in the samples at all.",
        "Grows with the number of samples: compare equal numbers only.",
    ),
    Measure(
        "recall_by_decile",
        "Rarest types still in use",
        SHARE,
        "Of the types in the rarest tenth of the real corpus, the share that occurs in the samples.",
        "One occurrence counts as much as a hundred.",
        part=9,
    ),
)

DIVERSITY = (
    Measure(
        "distinct_1",
        "Distinct tokens (1-grams)",
        SHARE,
        "Distinct tokens over all tokens of an equal number of them.",
        "Blind to order.",
    ),
    Measure(
        "distinct_2",
        "Distinct 2-grams",
        SHARE,
        "Falling: the same pairs of tokens come again and again.",
        "Nonsense has many distinct pairs.",
    ),
    Measure(
        "distinct_3",
        "Distinct 3-grams",
        SHARE,
        "Falling: short phrases come again.",
        "Nonsense has many distinct phrases.",
    ),
    Measure(
        "distinct_4",
        "Distinct 4-grams",
        SHARE,
        "Falling: whole phrases come again across samples.",
        "Nonsense has many distinct phrases.",
    ),
    Measure(
        "self_bleu",
        "Self-BLEU",
        "0–100",
        "Overlap of samples with each other; rising means alike.",
        "Counts words, not meaning.",
    ),
    Measure(
        "unigram_entropy",
        "Entropy of tokens",
        "nats",
        "Falling: fewer tokens carry the text.",
        "Blind to order.",
    ),
    Measure(
        "next_token_entropy",
        "Entropy of the next token",
        "nats",
        "How open the next token is, given the one before, within the samples.",
        "Too low for few samples (plug-in estimate).",
    ),
    Measure(
        "mauve",
        "MAUVE against real text",
        "0–1",
        "1: samples are spread as real continuations are, seen by generation 0's model.",
        "Depends on that model and on the number of samples.",
    ),
)

REPETITION = (
    Measure(
        "rep_2",
        "Repeated 2-grams in a sample",
        SHARE,
        "Rising: a sample repeats its own pairs.",
        "Short samples repeat less.",
        zero=True,
    ),
    Measure(
        "rep_3",
        "Repeated 3-grams in a sample",
        SHARE,
        "Rising: a sample repeats its own short phrases.",
        "Does not see copies across samples.",
        zero=True,
    ),
    Measure(
        "rep_4",
        "Repeated 4-grams in a sample",
        SHARE,
        "Rising: loops within a sample.",
        "Does not see copies across samples.",
        zero=True,
    ),
    Measure(
        "prompt_overlap_4",
        "4-grams copied from the prompt",
        SHARE,
        "Rising: samples say again what their prompt says.",
        "What is said again in other words; not there where samples have no prompt.",
        zero=True,
    ),
    Measure(
        "longest_repeat",
        "Longest repeated phrase",
        "tokens",
        "Mean over samples of the longest phrase that occurs twice in it.",
        "Bounded by the samples' length.",
        zero=True,
    ),
    Measure(
        "near_duplicate_rate",
        "Near-duplicate samples",
        SHARE,
        "Share of samples much like an earlier one (Jaccard ≥ 0.8 of 3-token shingles).",
        "An estimate (MinHash).",
        zero=True,
    ),
    Measure(
        "exact_duplicate_rate",
        "Exact duplicates",
        SHARE,
        "Share of samples that repeat an earlier one token by token.",
        "One token of difference hides a copy.",
        zero=True,
    ),
)

MODEL = (
    Measure(
        "accuracy",
        "Right next tokens",
        SHARE,
        "Share of real test tokens that are the model's first guess.",
        "Blind to all but the first guess.",
    ),
    Measure(
        "calibration_error",
        "Calibration error",
        "0–1",
        "How far the model's confidence is from how often it is right; 0 is best.",
        "Of the first guess only, in 15 bins.",
        zero=True,
    ),
    Measure(
        "predictive_entropy",
        "Entropy of predictions",
        "nats",
        "How unsure the model is on real text; falling with rising loss means sure and wrong.",
        "Low entropy is good in a good model.",
    ),
)

TRUTH = (
    Measure(
        "kl_truth",
        "Distance from the truth",
        "nats/token",
        "Exact Kullback-Leibler divergence KL(truth ‖ model) on test contexts; 0 is perfect.",
        "Weighs contexts as the truth does, so rare ones count little.",
        zero=True,
    ),
    Measure(
        "tail_mass_recall",
        "Mass left to the true tail",
        "model / truth",
        "Probability the model gives to the truth's rarest types over what they have; 1 is right, 0 forgotten.",
        "Right in sum may be wrong type by type.",
        zero=True,
    ),
)

STATEMENTS = (
    Measure(
        "breeds_left",
        "Breeds still mentioned",
        "breeds",
        "Of the breeds of dogs of the real text, how many the samples mention at all; the rare ones go first.",
        "One mention counts as much as a hundred; grows with the number of samples, which is equal for all policies.",
        zero=True,
    ),
    Measure(
        "breeds_tv",
        "Breeds away from their true shares",
        SHARE,
        "Share of mentions that would have to be of another breed for the distribution to be the true one.",
        "Not 0 for few samples of the truth itself.",
        zero=True,
    ),
    Measure(
        "facts_left",
        "Facts still stated rightly",
        "facts",
        "How many of the facts of the real text the samples state rightly at least once.",
        "One right statement among many wrong ones counts.",
        zero=True,
    ),
    Measure(
        "facts_true",
        "Stated facts that are true",
        SHARE,
        "Of all statements of fact about people and towns that there are, the share that is true.",
        "A model that says little that is rare is right more often.",
    ),
    Measure(
        "facts_true_by_band",
        "True among the rarest fifth of facts",
        SHARE,
        "The same of the facts that real text states least often.",
        "Few statements, so it is noisy.",
        part=4,
    ),
    Measure(
        "sentences_accepted",
        "Sentences of the grammar",
        SHARE,
        "Share of sentences that real text could hold, be they true or not.",
        "A model that repeats one good sentence is at 1.",
    ),
    Measure(
        "documents_possible",
        "Texts that could be real",
        SHARE,
        "Share of samples that have a probability above 0 under the truth: all well formed, all true, in a right order.",
        "One wrong word counts as much as a text of nonsense.",
    ),
    Measure(
        "association",
        "Trades with their usual sex",
        SHARE,
        "How often a trade goes with the sex that is usual for it; above the true share a bias is amplified.",
        "All trades together: some may go up and others down.",
    ),
    Measure(
        "dates_unknown",
        "Dates that do not exist",
        SHARE,
        "Of dates in sentences of a known form, the share that is no day of the calendar.",
        "A wrong day that exists is a fact that is not true.",
        zero=True,
    ),
    Measure(
        "places_unknown",
        "Places that do not exist",
        SHARE,
        "Of towns and rivers named in sentences of a known form, the share that there is not.",
        "A wrong town that exists is a fact that is not true.",
        zero=True,
    ),
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

LM = Description(
    name="lm",
    learner="collapse_cli.learners.lm:LanguageModel",
    settings=None,
    reads=("model", "sample", "train", "eval", "foreign"),
    rows="text",
    headline=Headline("perplexity", "perplexity on real test text", log=True),
    measures=(),
    instruments={
        "samples": SAMPLES,
        "tails": TAILS,
        "diversity": DIVERSITY,
        "repetition": REPETITION,
        "model": MODEL,
        "truth": TRUTH,
        "statements": STATEMENTS,
        "between": BETWEEN,
    },
    numbers=frozenset(
        (
            *BETWEEN_NUMBERS,
            "perplexity",
            "type_token_ratio",  # the same number as `distinct_1`, which has the plot
            "nll",
            "predicted_tokens",
            "bits_per_byte",
            "word_perplexity",
            "train_loss",
            "train_objective",
            "replay_rows",
            "replay_tokens",
            "train_rows",
            "real_rows",
            "synthetic_rows",
            "real_weight",
            "sample_tokens",
            "sample_rows",
            "sample_perplexity",
            "sample_log_perplexity_mean",
            "sample_log_perplexity_std",
            "sample_log_perplexity_variance_se",
            "unseen_tokens",
            "nll_unseen",
            "head_change_se",
            "tail_change_se",
            "longest_repeat_max",
            "unigram_entropy_se",
            "duplicate_share",
            "special_token_share",
            "ended_share",
            "entropy_rate",
            "kl_truth_se",
            "sentences",
            "possible_nll",
            "breeds_expected",
            "breeds_kl",
            "breeds_unknown",
            "people_unknown",
            "facts_stated",
            "facts_expected",
            "associations",
            "association_truth",
        )
    ),
    needed=frozenset({"perplexity", "predicted_tokens", "protocol"}),
    grid=Grid(
        axes=("generator_rows", "size"),
        headline=Headline("nll", "loss on real test text, nats/token"),
        # a loss holds the language's own entropy, beside which all differences look small
        truth=Headline("kl_truth", "KL(truth ‖ model), nats/token", log=True),
        measures=(LOSS, PERPLEXITY, *TRUTH[:1]),
    ),
    light=False,
    diagnosed=True,
    begins_with_a_model=True,
    perplexity="perplexity on real test text",
    may_stand_still=False,
    by_test_row=True,
)
