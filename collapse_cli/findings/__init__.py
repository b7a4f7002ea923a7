"""From rows of `metrics.jsonl` to what they mean: verdicts, laws, comparisons, forecasts."""
