"""A run from its configuration to its end: preparation, costs, scheduling, evaluation, clearing up."""
