"""Start trainings from the weights of a model of other data, as far as they fit.

`python -m tasks transfer ../nuclei/models/unet-0` (or `models:/NAME@champion` of the registry) fills start/unet/, a
dependency of the stages `train@unet-*`, which start from it until `--clear` removes it. Steps with a frozen encoder:
`train.common.freeze_encoder`.
"""

import argparse

from segcore import params
from segcore.errors import StageError
from tasks import console
from tasks.initial_weights import clear, place_transfer
from tasks.tracking.fetch import find_model


def _place(arguments: argparse.Namespace) -> None:
    if not arguments.models and not arguments.clear:
        raise StageError(
            "no model to start from",
            "name a bundle or an address: make transfer FROM=../nuclei/models/unet-0, or pass --clear",
        )
    if arguments.clear:
        clear()
    for address in arguments.models:
        folder = place_transfer(find_model(params.load(), address).bundle)
        print(f"transfer: copied {address} to {folder}; trainings of {folder.name} start from it", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tasks transfer", description=__doc__)
    parser.add_argument("models", nargs="*", help="folders of bundles, or models:/NAME@champion")
    parser.add_argument("--clear", action="store_true", help="remove the models that were placed before")
    console.run(_place, parser)


console.refuse_as_script(__name__)
