"""The language-model engine: models and tokenizers, training, sampling, scoring."""
