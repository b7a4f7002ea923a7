"""Chats, and tokenizers with the kinds of chat templates that models on the Hub have."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from collapse_cli.data.dialogues import Dialogue, Turn

WORDS = [
    "the",
    "sea",
    "a",
    "hill",
    "green",
    "old",
    "when",
    "river",
    "where",
    "it",
    "goes",
    "by",
    "day",
    "and",
    "night",
    "over",
    "stone",
]
# as SmolLM2's, Llama 2's, Gemma's and Qwen 3's are, in what matters here
TEMPLATES = {
    "chatml": "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful"
    " assistant<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "llama2": "{% if messages[0]['role'] == 'system' %}{% set told = messages[0]['content'] %}{% set messages = messages[1:] %}"
    "{% else %}{% set told = false %}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and told %}{% set content = '<<SYS>>\\n' + told + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% else %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
    "gemma": "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}",
    "thinking": "{% for message in messages %}{% if message.role == 'assistant' and loop.last %}{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n'"
    " + message.content.lstrip('\n') + '<|im_end|>\n' }}{% elif message.role == 'assistant' %}{{ '<|im_start|>assistant\n' +"
    " message.content.split('</think>')[-1] + '<|im_end|>\n' }}{% else %}{{ '<|im_start|>' + message.role + '\n' + message.content +"
    " '<|im_end|>\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "dated": "Today is {{ strftime_now('%d %b %Y') }}.\n{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "endless": "{% for message in messages %}{{ message['role'] + '> ' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant>' }}{% endif %}",
}
SPECIAL = ["<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>", "<s>", "</s>"]


@cache
def _backend(kind: str) -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    text = [" ".join(WORDS), *TEMPLATES.values()]
    if kind == "bytes":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:  # as sentencepiece: a blank is put before a text, and only there
        made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        made.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        alphabet = [chr(code) for code in range(32, 127)]
        text = [*text, *alphabet]
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=alphabet, special_tokens=[*SPECIAL, "<unk>"], show_progress=False
    )
    made.train_from_iterator(text, trainer)
    if kind == "bytes":
        return str(made.to_str())
    written = json.loads(made.to_str())
    vocabulary = written["model"]["vocab"]
    for code in range(256):
        vocabulary.setdefault(f"<0x{code:02X}>", len(vocabulary))
    return json.dumps(written)


def chat_tokenizer(template: str | None = "chatml", kind: str = "bytes") -> Any:
    """A tokenizer of 700 tokens at most, with a template of `TEMPLATES`; `kind`: `bytes`, or `blank` for one that puts a blank before a text."""
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerFast

    begin, end = (
        ("<s>", "</s>")
        if template in ("llama2", "endless", None)
        else ("<s>", "<end_of_turn>")
        if template == "gemma"
        else ("<|im_start|>", "<|im_end|>")
    )
    backend = Tokenizer.from_str(_backend(kind))
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=begin,
        eos_token=end,
        clean_up_tokenization_spaces=False,
        extra_special_tokens=SPECIAL,
    )
    if template == "thinking":  # added, and not special
        made.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in ("<think>", "</think>")])
    if template:
        made.chat_template = TEMPLATES[template]
    return made


def said(*contents: str, system: str = "") -> Dialogue:
    """User and assistant in turn."""
    turns = [Turn(("user", "assistant")[number % 2], content) for number, content in enumerate(contents)]
    return Dialogue([*([Turn("system", system)] if system else []), *turns])


def messages(dialogue: Dialogue) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.content} for turn in dialogue.turns]


def chats_of(count: int, *, seed: int = 0) -> list[list[dict[str, str]]]:
    """So many chats, of one or two exchanges, of different lengths."""
    import random

    draw = random.Random(seed)
    made = []
    for number in range(count):
        talk = [" ".join(draw.choices(WORDS, k=draw.randint(2, 6))) for _ in range(draw.choice((2, 2, 4)))]
        made.append(messages(said(f"{number}: {talk[0]}?", *talk[1:])))
    return made


def write_chats(folder: Path, count: int = 60) -> Path:
    """A folder with training and test chats."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, many, seed in (("train", count, 1), ("test", count // 4, 2)):
        lines = (json.dumps({"messages": talk}) + "\n" for talk in chats_of(many, seed=seed))
        (folder / f"{split}.jsonl").write_text("".join(lines))
    return folder


def chat_model(folder: Path, template: str | None = "chatml", *, seed: int = 0) -> Path:
    """A folder with a tiny llama of random weights and a tokenizer with a chat template."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = chat_tokenizer(template)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.3,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
