"""Composes pictures of cut-out objects over painted backgrounds, and describes them."""
