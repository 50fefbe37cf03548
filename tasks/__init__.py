"""Stages and commands of the pipeline, one per file; `python -m tasks --help` lists them."""
