"""Every causal architecture of transformers, tiny and with random weights, against code that shares nothing with ours.

    .venv/bin/python benchmarks/architectures.py            # goes on where it was; writes docs/architectures.md

The reference is the model's own forward pass over each row alone, without a cache: greedy search and a search with two
beams written here, log-likelihoods, and gradients. Windows and chunks are of 8 tokens, rotations that depend on the
length switch at 16; rows are shorter and longer, and new tokens pass the switches. What is found is kept in
runs/architectures.jsonl, a line an architecture; `--again KIND ...` looks at some anew, `--table` only writes the
document.
"""

import argparse
import json
import signal
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from collapse_cli.config.tree import DecodeConfig, TrainConfig
from collapse_cli.data.dataset import Dataset
from collapse_cli.lm import fallback
from collapse_cli.lm.decode import try_out
from collapse_cli.lm.model import without_memory_of_lengths
from collapse_cli.lm.packing import Abilities, abilities
from collapse_cli.lm.sample import continue_rows
from collapse_cli.lm.score import score_blocks
from collapse_cli.lm.step import Work

ROOT = Path(__file__).parent.parent
FOUND, TABLE = ROOT / "runs" / "architectures.jsonl", ROOT / "docs" / "architectures.md"
VOCABULARY, PAD, END = 97, 1, 2
WINDOW, SWITCH = 8, 16
NEW = 24  # tokens a row
PROMPTS = (3, 20, 7, 12, 8, 9, 16, 5, 3, 11, 17, 4, 10, 6, 12, 20)
ROWS = (40, 3, 10, 16, 17, 30, 8, 9)  # lengths, to score and to train on
TIE = 1e-3  # nats, between tokens of which either is the likeliest
NATS = 1e-3  # of a row's score
SLOPES = 1e-2  # of a gradient's length
MOST_PARAMETERS = 20_000_000  # more: the architecture has other names for its sizes
SECONDS = 150  # for one architecture

# What settings are called in one architecture or another, and what makes them small.
SIZES: dict[str, Any] = {
    **dict.fromkeys(("vocab_size", "n_vocab", "vocab_size_per_layer_input"), VOCABULARY),
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "attention_hidden_size", "lru_width", "emb_dim"), 32),
    **dict.fromkeys(("embedding_size", "word_embed_proj_dim", "attention_head_size_total", "hidden_dim"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim", "n_inner", "dim_ff"), 48),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "ffn_hidden_size", "dff"), 48),
    **dict.fromkeys(("shared_intermediate_size", "intermediate_size_mlp", "moe_shared_expert_intermediate_size"), 48),
    **dict.fromkeys(("feed_forward_size", "expert_ffn_hidden_size", "block_ff_dim", "d_inner"), 48),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "decoder_layers", "encoder_layers", "n_layers"), 2),
    **dict.fromkeys(("num_encoder_layers", "num_decoder_layers", "depth"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "decoder_attention_heads", "num_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "num_encoder_attention_heads", "num_decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "num_global_key_value_heads"), 2),
    **dict.fromkeys(("head_dim", "v_head_dim", "qk_rope_head_dim", "qk_nope_head_dim", "global_head_dim", "d_kv"), 8),
    **dict.fromkeys(("rotary_dim", "mamba_d_head", "mamba_head_dim", "mamba_d_state", "ssm_state_size"), 8),
    **dict.fromkeys(("mamba_d_ssm",), 64),
    **dict.fromkeys(("linear_head_dim",), 8),
    **dict.fromkeys(("linear_num_heads",), 4),
    **dict.fromkeys(("num_experts_per_token",), 2),
    **dict.fromkeys(("num_expert_group", "n_groups"), 1),
    **dict.fromkeys(("chunk_size", "mamba_chunk_size"), WINDOW),
    **dict.fromkeys(("mamba_num_heads", "mamba_n_heads"), 8),
    **dict.fromkeys(("index_head_dim", "linear_key_head_dim", "linear_value_head_dim", "attention_head_size"), 8),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "qk_head_dim", "o_lora_rank", "hidden_size_per_layer_input"), 16),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "top_k_experts", "moe_k", "linear_num_value_heads"), 2),
    **dict.fromkeys(("linear_num_key_heads", "index_n_heads"), 2),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "num_shared_experts", "first_k_dense_replace"), 1),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "context_length", "max_seq_len"), 128),
    **dict.fromkeys(("max_target_positions", "max_source_positions", "seq_length", "max_sequence_length"), 128),
    **dict.fromkeys(("pad_token_id", "pad_idx", "pad_index"), PAD),
    **dict.fromkeys(("bos_token_id", "eos_token_id", "sep_token_id", "decoder_start_token_id"), END),
    **dict.fromkeys(("is_decoder", "use_cache"), True),
    **dict.fromkeys(("sliding_window", "attention_chunk_size", "attention_window_size", "window_size"), WINDOW),
    **dict.fromkeys(("local_attention", "local_window_size", "sliding_window_size"), WINDOW),
}
# Settings of an architecture's own.
THEIRS = {"rope_type": "default", "rope_theta": 10000.0}
OWN: dict[str, dict[str, Any]] = {
    "cohere_compass_text": {"rope_parameters": {"full_attention": THEIRS}},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 48},
    },
    "gemma3n_text": {"num_kv_shared_layers": 0, "activation_sparsity_pattern": [0.0, 0.0], "laurel_rank": 8},
    "reformer": {"axial_pos_embds": False, "attn_layers": ["local", "local"], "local_attn_chunk_length": WINDOW},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "attention_layers": ["global", "local"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "xmod": {"default_language": "en_XX"},
    "zaya": {"num_experts_per_tok": 1},
    "mamba2": {"num_heads": 8, "n_groups": 1},
}
SECOND = ("phi3", "phimoe", "llama", "minicpm3", "mistral", "qwen2", "olmo2", "falcon", "gpt_neox", "stablelm")
FIRST = ("opt", "gpt2", "llama", "phimoe", "rwkv", "recurrent_gemma", "mistral", "gemma3_text", "mamba", "bloom")


def small(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of an architecture's own settings those that have a small value here, in the parts of it, too."""
    made: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and "model_type" in value:
            made[name] = {**small(value), "model_type": value["model_type"]}
        elif name == "layer_types" and value and len(set(value)) > 1:
            made[name] = list(dict.fromkeys(value))[:2]
        elif name in SIZES and not isinstance(value, list):
            made[name] = SIZES[name]
        elif "drop" in name and isinstance(value, float):
            made[name] = 0.0
    if "kv_lora_rank" in settings:  # keys and values of all heads come from one vector
        made["num_key_value_heads"] = made["num_attention_heads"]
    return made


def configuration(kind: str, rope: str = "") -> Any:
    """Of a tiny model.

    Args:
        rope: `dynamic` or `longrope` for rotations whose frequencies depend on the length from `SWITCH` tokens on.
    """
    settings = small(transformers.AutoConfig.for_model(kind).to_dict())
    config = transformers.AutoConfig.for_model(kind, **merged(settings, OWN.get(kind, {})))
    if not rope:
        return config
    text = config.get_text_config()
    about = getattr(text, "rope_parameters", None)
    if not isinstance(about, Mapping) or "rope_theta" not in about:
        raise LookupError("its rotations have no such setting")
    heads = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    half = heads // 2
    about = {"rope_type": rope, "rope_theta": about["rope_theta"], "factor": 4.0, "partial_rotary_factor": 1.0}
    about["original_max_position_embeddings"] = SWITCH
    if rope == "longrope":
        about |= {"short_factor": [1.0] * half, "long_factor": [1.0 + 2 * place for place in range(half)]}
        if kind == "phimoe":
            about |= {"short_mscale": 1.0, "long_mscale": 1.0}
        settings["original_max_position_embeddings"] = SWITCH
    else:
        settings["max_position_embeddings"] = SWITCH
    return transformers.AutoConfig.for_model(kind, **merged(settings, OWN.get(kind, {})), rope_parameters=about)


def merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of both, those of `other` where both say something."""
    made = dict(one)
    for name, value in other.items():
        inside = made.get(name)
        made[name] = merged(inside, value) if isinstance(value, Mapping) and isinstance(inside, Mapping) else value
    return made


def tiny(kind: str, rope: str = "") -> Any:
    """A tiny model with random weights, large enough that its choices are far from ties."""
    config = configuration(kind, rope)
    with torch.device("meta"):
        count = sum(each.numel() for each in transformers.AutoModelForCausalLM.from_config(config).parameters())
    if count > MOST_PARAMETERS:
        raise ValueError(f"{count:,} parameters")
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, 0, 0.25)
    return without_memory_of_lengths(model)


def ragged(lengths: tuple[int, ...]) -> Dataset:
    """Random rows of these lengths."""
    tokens = np.random.default_rng(0).integers(4, VOCABULARY, (len(lengths), max(lengths))).astype(np.int32)
    arrays: dict[str, np.ndarray] = {
        "tokens": tokens,
        "lengths": np.array(lengths, np.int32),
        "stream": np.arange(len(lengths)),
    }
    return Dataset(arrays, np.zeros(len(lengths), np.int32))


def texts(data: Dataset) -> Iterator[torch.Tensor]:
    """Each row alone, (1, length)."""
    for tokens, length in zip(data.arrays["tokens"], data.arrays["lengths"], strict=True):
        yield torch.from_numpy(tokens[None, :length].astype(np.int64))


# --- the reference: each row alone, without a cache -------------------------------------------------------------------


def odds(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """(length, vocabulary) log-probabilities of what follows each token of `ids` (1, length)."""
    logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits[0].float()
    return logits.log_softmax(1)


@torch.no_grad()
def not_likeliest(model: Any, prompt: torch.Tensor, new: torch.Tensor) -> int:
    """How many of the `new` (n,) tokens after a prompt (1, length) are not the likeliest."""
    following = odds(model, torch.cat([prompt, new[None]], dim=1))[prompt.shape[1] - 1 : -1]
    if bool((following.amax(dim=1) - following.gather(1, new[:, None])[:, 0] <= TIE).all()):
        return 0  # what follows does not change what the model makes of a token, but for rotations that switch
    found = 0
    for step, token in enumerate(new.tolist()):
        following = odds(model, torch.cat([prompt, new[None, :step]], dim=1))[-1]
        found += not float(following.max() - following[token]) <= TIE  # nor is NaN
    return found


@torch.no_grad()
def two_beams(model: Any, prompt: torch.Tensor) -> tuple[torch.Tensor, float]:
    """(NEW,) the best of two beams, all of NEW tokens, and the smallest margin, in nats, of the choices made."""
    beams, margin = [(0.0, prompt)], float("inf")
    for _ in range(NEW):
        longer = []
        for score, row in beams:
            values, tokens = odds(model, row)[-1].topk(3)
            longer += [
                (score + value, row, token) for value, token in zip(values.tolist(), tokens.tolist(), strict=True)
            ]
        longer.sort(key=lambda one: -one[0])
        margin = min(margin, longer[0][0] - longer[1][0], longer[1][0] - longer[2][0])
        beams = [(score, torch.cat([row, torch.tensor([[token]])], dim=1)) for score, row, token in longer[:2]]
    return beams[0][1][0, prompt.shape[1] :], margin


def slopes(model: Any) -> list[torch.Tensor]:
    """The gradients that a backward pass left, of all weights."""
    found = [torch.zeros_like(each) if each.grad is None else each.grad.clone() for each in model.parameters()]
    model.zero_grad(set_to_none=True)
    return found


def slopes_alone(model: Any, data: Dataset) -> list[torch.Tensor]:
    """Gradients of the mean loss per predicted token, each row by itself."""
    predicted = int(data.arrays["lengths"].sum()) - len(data)
    model.zero_grad(set_to_none=True)
    for ids in texts(data):
        loss = -odds(model, ids)[:-1].gather(1, ids[0, 1:, None]).sum() / predicted
        loss.backward()  # type: ignore[no-untyped-call]
    return slopes(model)


def furthest(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> float:
    """The largest difference of gradients, as a share of their length; of small ones of a thousandth of the whole."""
    whole = torch.stack([each.double().norm() for each in wanted]).norm()
    shares = [
        (one - other).double().norm() / (other.double().norm() + 1e-3 * whole)
        for one, other in zip(found, wanted, strict=True)
    ]
    return float(torch.stack(shares).max())


# --- what collapse makes of it ----------------------------------------------------------------------------------------


def continued(model: Any, prompts: Dataset, beams: int) -> torch.Tensor:
    """(rows, NEW) tokens."""
    decode = DecodeConfig(beams=beams)
    with tempfile.TemporaryDirectory() as folder:
        made = continue_rows(
            model, prompts, NEW, decode, dtype="float32", end=None, pad=PAD, seed=0, scratch=Path(folder)
        )
    return torch.from_numpy(made.arrays["tokens"].astype(np.int64))


def sampling_faults(model: Any, rows: int = len(PROMPTS), searched: int = 3) -> dict[str, int]:
    """Rows with a token that is not the reference's, greedy and with two beams, in batches of 16 and of 1.

    Args:
        rows: how many are checked token by token.
        searched: how many are checked with two beams.
    """
    prompts = ragged(PROMPTS)
    faults = {"greedy": 0, "beams": 0, "greedy alone": 0, "beams alone": 0}
    together, searching = continued(model, prompts, 1), continued(model, prompts, 2)
    for row, prompt in enumerate(texts(prompts)):
        one = prompts.take(np.array([row]))
        one = Dataset({**one.arrays, "tokens": one.arrays["tokens"][:, : prompt.shape[1]]}, one.origin)
        if row < rows:
            faults["greedy"] += not_likeliest(model, prompt, together[row]) > 0
        if row < searched:
            alone = continued(model, one, 1)[0]
            if not torch.equal(alone, together[row]):
                faults["greedy alone"] += not_likeliest(model, prompt, alone) > 0
            wanted, margin = two_beams(model, prompt)
            if margin > TIE:
                faults["beams"] += not torch.equal(searching[row], wanted)
                faults["beams alone"] += not torch.equal(continued(model, one, 2)[0], wanted)
    return faults


@torch.no_grad()
def scoring_error(model: Any) -> float:
    """The largest difference, in nats, of a row scored among rows of unequal length from the row alone."""
    data = ragged(ROWS * 2)
    nll, _ = score_blocks(model, data)
    alone = [-float(odds(model, ids)[:-1].gather(1, ids[0, 1:, None]).sum()) for ids in texts(data)]
    return float(np.abs(nll - alone).max())


def training_error(model: Any) -> tuple[float, str]:
    """The largest difference of gradients from those of rows alone, as a share; and a note."""
    data, note = ragged(ROWS), ""
    model.train()
    wanted, again = slopes_alone(model, data), slopes_alone(model, data)
    if furthest(again, wanted) > SLOPES / 10:
        model.eval()
        note = "its training passes are random"
        wanted = slopes_alone(model, data)
    work = Work(model, TrainConfig(clip=0.0, dtype="float32"), max(ROWS))
    with work.ready():
        work.gradients(data, 0, work.rows_at_once)
    error = furthest(slopes(model), wanted)
    model.eval()
    return error, note


def way_of(able: Abilities) -> str:
    """In words."""
    rows = "packed" if able.packs else "padded" if able.mixes else "of one length" if able.together else "one by one"
    return f"{rows}, {'our' if able.attends else 'own'} attention"


def look(kind: str, rope: str = "", **fewer: int) -> dict[str, Any]:
    """What is found of an architecture; `fewer` are arguments of `sampling_faults`."""
    found: dict[str, Any] = {"kind": kind, "rope": rope}
    try:
        model = tiny(kind, rope)
        with torch.no_grad():
            first, second = (odds(model, ids) for ids in texts(ragged((40, 40))))
        if not first.isfinite().all() or torch.equal(first, second):
            raise ValueError("its logits are not finite, or do not depend on the tokens")
    except TimeoutError:
        raise
    except Exception as error:  # each fails in its own way
        return found | {"left out": said(error)}
    try:
        ids = next(texts(ragged((20,))))
        with torch.no_grad():
            found["causal"] = bool((odds(model, ids)[:10] - odds(model, ids[:, :10])).abs().max() < 1e-2)
        reach = max(PROMPTS) + NEW
        found["sampling"] = "engine"
        if try_out(model, reach).why_not:
            way = fallback.find_way(model, reach, 2, PAD)
            found["sampling"] = "refused" if way is None else ways_of(way)
        found["faults"] = {} if found["sampling"] == "refused" else sampling_faults(model, **fewer)
        found["scoring"] = way_of(abilities(model, max(ROWS)))
        found["nats"] = scoring_error(model)
        found["training"] = way_of(abilities(model, max(ROWS), gradients=True))
        found["slopes"], found["note"] = training_error(model)
    except TimeoutError:
        raise
    except Exception as error:
        found["failed"] = said(error)
    return found


def said(error: Exception) -> str:
    """In one short line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def ways_of(way: fallback.Way) -> str:
    """In words."""
    parts = ["generate"]
    if not way.mixes:
        parts.append("prompts of one length" if way.together else "one prompt at a time")
    return ", ".join(parts) + ("" if way.cache else ", no cache")


def faults_of(one: Mapping[str, Any]) -> list[str]:
    """What is not the reference's, in words."""
    if "failed" in one:
        return [f"failed: {one['failed']}"]
    said = [f"{count} rows {name}" for name, count in one["faults"].items() if count]
    if not one["nats"] <= NATS:
        said.append(f"scores differ by {one['nats']:.1e} nats")
    if not one["slopes"] <= SLOPES:
        said.append(f"gradients differ by {one['slopes']:.1%}")
    return said


# --- the document -----------------------------------------------------------------------------------------------------


def table(found: list[dict[str, Any]]) -> str:
    """The document."""
    good = sorted((one for one in found if "left out" not in one), key=lambda one: (one["kind"], one["rope"]))
    left = sorted((one for one in found if "left out" in one and not one["rope"]), key=lambda one: one["kind"])
    failed = sum("failed" in one for one in good)
    wrong = sum(bool(faults_of(one)) for one in good) - failed
    refused = sum(one.get("sampling") == "refused" for one in good)
    todo = [kind for kind, rope in tasks() if not rope and kind not in {one["kind"] for one in found}]
    kinds = {one["kind"] for one in good}
    lines = [
        "# Architectures",
        "",
        f"Made by `benchmarks/architectures.py` with transformers {transformers.__version__}: "
        f"{len(kinds)} of the {len(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)} causal architectures that it has, "
        f"{len(good)} configurations, {wrong} with a result that is not the reference's, {failed} that end with an error, {refused} that are refused "
        "when they are to be sampled.",
        "",
        f"Models are tiny, with random weights. Windows and chunks are of {WINDOW} tokens; *dynamic* and *longrope* are "
        f"rotations whose frequencies depend on the length from {SWITCH} tokens on. The reference is the model's own "
        "forward pass over each row alone, without a cache, and searches written for this purpose. *Sampling*: 16 prompts "
        f"of {min(PROMPTS)} to {max(PROMPTS)} tokens, {NEW} new tokens each, greedy and with two beams, in batches of 16 and "
        f"of 1; each token must be the likeliest, or tied with it within {TIE:g} nats. *Scoring*: the largest difference, in "
        f"nats, of a row among others of {min(ROWS)} to {max(ROWS)} tokens from the row alone. *Training*: the largest "
        "difference of a gradient, as a share of its length, from the mean over the rows alone. Rows are *packed* (several "
        "in one row of a batch), *padded* (unequal lengths in one batch), *of one length*, or *one by one*. Where a token depends on later ones, so do our reference and the results: "
        "what BERT's kinds and rotations that switch make of a row is not causal in the strict sense.",
        "",
        "| architecture | sampling | scoring | nats | training | gradients | agrees | notes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in good:
        name = f"{one['kind']}, {one['rope']}" if one["rope"] else one["kind"]
        notes = [
            *faults_of(one),
            one.get("note", ""),
            "" if one.get("causal", True) else "a token depends on later ones",
        ]
        numbers = (
            f"{one['nats']:.0e}" if "nats" in one else "",
            one.get("training", ""),
            f"{one['slopes']:.0e}" if "slopes" in one else "",
        )
        agrees = "no" if faults_of(one) else "yes, not sampled" if one["sampling"] == "refused" else "yes"
        cells = [name, one.get("sampling", ""), one.get("scoring", ""), *numbers, agrees]
        lines.append(f"| {' | '.join(cells)} | {'; '.join(filter(None, notes)).replace('|', ' ')} |")
    if left:
        lines += ["", "Not looked at, because no tiny model of them was made:", ""]
        lines += [f"- {one['kind']}: {one['left out']}" for one in left]
    if todo:
        lines += ["", f"Not looked at yet: {', '.join(todo)}."]
    return "\n".join([*lines, ""])


def tasks() -> list[tuple[str, str]]:
    """Architectures and rotations, in the order of work."""
    others = [kind for kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if kind not in FIRST]
    ropes = [(kind, rope) for kind in SECOND for rope in ("dynamic", "longrope")]
    return [(kind, "") for kind in FIRST] + [(kind, "") for kind in others] + ropes


def _too_long(*_: object) -> None:
    raise TimeoutError(f"more than {SECONDS} seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", nargs="*", default=[], metavar="KIND", help="look at these anew")
    parser.add_argument("--table", action="store_true", help="only write the document")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.utils.logging.set_verbosity_error()
    FOUND.parent.mkdir(exist_ok=True)
    lines = FOUND.read_text().splitlines() if FOUND.exists() else []
    known = {(one["kind"], one["rope"]): one for one in map(json.loads, lines)}  # the latest of each
    signal.signal(signal.SIGALRM, _too_long)
    for kind, rope in [] if args.table else tasks():
        if (kind, rope) not in known or kind in args.again:
            signal.alarm(SECONDS)
            try:
                known[kind, rope] = look(kind, rope)
            except TimeoutError as error:
                known[kind, rope] = {"kind": kind, "rope": rope, "left out": str(error)}
            signal.alarm(0)
            with FOUND.open("a") as file:
                file.write(json.dumps(known[kind, rope]) + "\n")
            print(json.dumps(known[kind, rope]), flush=True)
    TABLE.write_text(table(list(known.values())))


if __name__ == "__main__":
    main()
