"""Renderers: conversation to tokens and back, one module a model family."""
