"""Let trainings begin with a model of other data: what of it fits is taken over, and DVC sees where they begin.

`python -m tasks transfer ../nuclei/models/unet-0` (or `models:/NAME@champion` of the registry) fills start/unet/, and
`train@unet-*` begins with it until `--clear` takes it away. `train.common.freeze_encoder` lets the
encoder rest at first.
"""

import argparse

from segcore import params
from tasks import console
from tasks.initial_weights import clear, place_transfer
from tasks.tracking.fetch import find_bundle


def _place(arguments: argparse.Namespace) -> None:
    if arguments.clear:
        clear()
    for address in arguments.models:
        folder = place_transfer(find_bundle(params.load(), address))
        print(f"transfer: {folder} holds {address}; trainings of {folder.name} begin with it", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tasks transfer", description=__doc__)
    parser.add_argument("models", nargs="*", help="folders of models, or models:/NAME@champion")
    parser.add_argument("--clear", action="store_true", help="take away what was placed before")
    console.run(_place, parser)


console.refuse_as_script(__name__)
