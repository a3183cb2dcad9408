"""Textual inversions: vectors that stand for words in front of both text encoders."""
