"""Tiny models of sequence classification."""

from pathlib import Path

import torch

WORDS = ["real", "made", "by", "a", "model", "of", "text"]


def saved(folder: Path, labels: int = 2, kind: str = "bert") -> Path:
    """A tiny classifier with random weights, and its tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        GPT2Config,
        GPT2ForSequenceClassification,
        PreTrainedTokenizerFast,
        RobertaConfig,
        RobertaForSequenceClassification,
    )

    words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1} | {w: n + 2 for n, w in enumerate(WORDS)}, "[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "[PAD]"} if kind != "gpt2" else {"eos_token": "[PAD]"}
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", **special).save_pretrained(folder)
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    common = {"vocab_size": 20, "num_labels": labels, "initializer_range": 0.5, **small}
    if kind == "bert":
        BertForSequenceClassification(BertConfig(max_position_embeddings=16, **common)).save_pretrained(folder)
    elif kind == "roberta":  # its positions begin behind that of the padding: a table of 17 holds 16
        table = RobertaConfig(max_position_embeddings=17, pad_token_id=0, **common)
        RobertaForSequenceClassification(table).save_pretrained(folder)
    else:
        config = GPT2Config(vocab_size=20, n_embd=16, n_layer=1, n_head=2, n_positions=16, num_labels=labels)
        GPT2ForSequenceClassification(config).save_pretrained(folder)
    return folder
