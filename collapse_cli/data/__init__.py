"""Rows as named arrays, and where real rows come from: text, images, and distributions."""
