"""Decide the settings that are `auto` in params.yaml from the data.

`python -m tasks plan` brings ingest and plan up to date, and prints each setting with its value and the reason; with
`--write` it also puts the values into params.yaml. As a stage of DVC it reads data/ingested and data/packed and writes
plan/plan.json.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd

from segcore import params
from segcore.errors import DataError
from segcore.files import atomic_folder
from segcore.params.planned import AUTO, FORMAT, PLANNED, get, put
from segcore.planning import fingerprint, rules
from tasks import console
from tasks.project import INGESTED, PARAMS, PLAN
from tasks.reporting.plan import plan_rows, plan_text


def plan(p: params.Params, ingested: Path = INGESTED, target: Path = PLAN) -> Path:
    """Write `target`/plan.json (`write`) for the items of a catalogue.

    Args:
        p: parameters.
        ingested: folder of the catalogue; packed items are in `packed` beside it.
        target: folder that is replaced.

    Raises:
        DataError: no catalogue, no accepted item, or a packed item is missing or damaged.
    """
    try:
        catalogue = pd.read_parquet(ingested / "catalog.parquet")
        links = pd.read_parquet(ingested / "links.parquet")
    except FileNotFoundError as error:
        raise DataError(f"{ingested}: contains no catalogue", "run `dvc repro ingest` first") from error
    if not (catalogue["status"] == "accepted").any():
        raise DataError(f"{ingested}: has no accepted item", "see quarantine.csv there, and correct the data")
    links = links[links["kind"].isin(p.split.links)]
    packed = ingested.parent / "packed"
    facts = fingerprint.fingerprint(catalogue, packed, p.data, later=p.retrain.replan, links=links)
    return write(p, facts, target)


def write(p: params.Params, facts: dict[str, Any], target: Path = PLAN) -> Path:
    """Write `target`/plan.json: name, values by key and (for DVC) by section, decisions, fingerprint.

    Args:
        p: parameters.
        facts: the fingerprint.
        target: folder that is replaced.
    """
    decisions = rules.plan(facts, p.data, asked(p))
    sections: dict[str, Any] = {}
    for decision in decisions:
        put(sections, decision.key, decision.value)
    content = {
        "format": FORMAT,
        "name": p.data.name,
        "values": {d.key: d.value for d in decisions},
        "sections": sections,
        "decisions": [d._asdict() for d in decisions],
        "fingerprint": facts,
    }
    with atomic_folder(target) as part:
        (part / "plan.json").write_text(json.dumps(content, indent=2) + "\n")
    by_hand = sum(d.by == "hand" for d in decisions)
    print(
        f"plan: {len(decisions) - by_hand} settings from the data, {by_hand} set in params.yaml", flush=True
    )
    return target


def asked(p: params.Params) -> dict[str, Any]:
    """By key of `PLANNED`: the value in params.yaml, or "auto"; and other settings that rules see."""
    common = params.TrainSettings.model_validate(p.train["common"]).model_dump()
    values = {**p.model_dump(include={"split", "prepare", "evaluate"}), "train": {"common": common}}
    by_hand = {key: get(values, key) for key in PLANNED}
    return {
        **{key: AUTO if key in p.auto else value for key, value in by_hand.items()},
        "train.common.budget": common["budget"],
        "split.given": p.split.given,
        "evaluate.ensemble": p.evaluate.ensemble,
        "seeds": p.seeds,
        "defaults": p.defaults,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tasks plan", description=__doc__)
    parser.add_argument("--params", type=Path, default=PARAMS, help="parameters file (default: %(default)s)")
    parser.add_argument(
        "--write", action="store_true", help="put the values into params.yaml in the place of auto"
    )

    def run(arguments: argparse.Namespace) -> None:
        if os.environ.get("DVC_STAGE") == "plan":
            plan(params.load(arguments.params))
            return
        from tasks.complete import complete, write_plan
        from tasks.networks import require_networks
        from tasks.versioning import stages

        complete(arguments.params)
        require_networks(params.load(arguments.params))
        stages.init_if_needed()
        for stage in ("ingest", "plan"):
            stages.reproduce(stage)
        print(plan_text(plan_rows()), flush=True)
        if arguments.write:
            write_plan(arguments.params)

    console.run(run, parser)


console.refuse_as_script(__name__)
