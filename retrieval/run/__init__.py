"""Retrieval with a run's network: embed splits, open queries, answer photos, fit a re-ranker, serve a web app.

This half of retrieval imports loader, model and preprocess; the other takes arrays only.
"""
