"""Evaluation over a datalist: prompts drawn from labels, answered, measured, reported."""
