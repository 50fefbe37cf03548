"""One step of the pipeline per file: paths in, paths out. `python -m tasks --help` lists the commands."""
