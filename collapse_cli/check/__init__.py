"""A real text and a synthetic one side by side: what can be measured of both without training a model."""
