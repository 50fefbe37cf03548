"""Costs of the gate's candidates, measured on this machine."""

import json
from collections.abc import Sequence
from typing import Any

from segcore.cache import CODE, Cache, code_digest
from segcore.files import atomic_write, cached_json
from segcore.gate_rules import Costs
from tasks import console
from tasks.measure import measure
from tasks.project import GATE_COSTS
from tasks.promotion.candidates import Model
from tasks.promotion.context import PromotionContext


def costs(context: PromotionContext, models: Sequence[Model]) -> list[Costs]:
    """Latency, memory and size of each bundle, cached by bundles, tile, code and machine.

    Memory is measured with one model per process, latency with all models in turn, so that other programs that run at
    the same time affect all alike. Models that are the same network with other weights cost the same, so one of them
    is measured: a difference between them would be noise.
    """
    import torch

    from segcore.inference.device import default_device

    p, root = context.params, context.root
    machine = f"{default_device()} {torch.get_num_threads()}"
    how = (p.evaluate.tile, p.evaluate.overlap, p.evaluate.flips)
    networks = [_network(m) for m in models]
    one_each = [models[networks.index(network)] for network in dict.fromkeys(networks)]
    code = code_digest(*CODE["speed"], *(f"models/{m.architecture}.py" for m in one_each))
    cache = Cache(root / GATE_COSTS, json.dumps(how), machine, code, *(m.weights for m in one_each))
    path = cache.folder / "costs.json"
    rows: list[dict[str, Any]] | None = cached_json(path, list)
    if rows is None:
        single = [measure([m.folder], *how)[0] for m in console.progress(one_each, "measure memory")]
        timed = single
        if len(one_each) > 1:
            print("promote: measuring latency, the models in turn", flush=True)
            timed = measure([m.folder for m in one_each], *how)
        rows = [t | {"peak_memory_mb": s["peak_memory_mb"]} for t, s in zip(timed, single, strict=True)]
        cache.start()
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(rows, indent=2) + "\n")
    row_of = dict(zip(dict.fromkeys(networks), rows, strict=True))
    return [
        Costs(
            row["latency_ms"],
            row["peak_memory_mb"],
            m.size_mb,
            row.get("latency_low_ms"),
            row.get("latency_high_ms"),
        )
        for row, m in ((row_of[network], m) for network, m in zip(networks, models, strict=True))
    ]


def _network(model: Model) -> str:
    """The network without its weights, and the precision of its predictions; equal for models that cost the same."""
    keys = ["architecture", "settings", "in_channels", "num_classes"]
    # an instance network may predict in windows of this size
    facts = [model.description.get(key) for key in keys + ["tile"] * (model.kind == "instance")]
    precision = model.description.get("parameters", {}).get("precision")
    return json.dumps([*facts, precision], sort_keys=True)
