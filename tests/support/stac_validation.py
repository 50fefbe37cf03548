"""Validation of STAC items by pystac, with the schemas of extensions that are stored in stac_schemas/."""

import json
from pathlib import Path
from typing import Any

import pystac
from pystac.validation.stac_validator import JsonSchemaSTACValidator

_SCHEMAS = Path(__file__).parent / "stac_schemas"


def schemas() -> dict[str, Any]:
    """The stored schemas by address."""
    found = {}
    for file in _SCHEMAS.glob("*.json"):
        extension, version = file.stem.split("-")
        address = f"https://stac-extensions.github.io/{extension}/{version}/schema.json"
        found[address] = json.loads(file.read_text())
    return found


def validate_item(path: Path) -> pystac.Item:
    """The item of a file, after it was validated without a network.

    Raises:
        pystac.STACValidationError: it is not as the core and its extensions demand.
    """
    validator = JsonSchemaSTACValidator()
    validator.schema_cache |= schemas()
    item = pystac.Item.from_file(str(path))
    item.validate(validator=validator)
    return item
