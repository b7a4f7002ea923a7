"""Stages, their keys, the store, and what brings planned stages into it. Knows no experiment."""
