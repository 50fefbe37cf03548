"""Registered versions that were trained again to the same weights, such as by a later version of segflow."""

from collections.abc import Sequence

from tasks.promotion.candidates import Model
from tasks.promotion.context import PromotionContext
from tasks.promotion.history import write_copy, write_history
from tasks.promotion.model_card import model_card


def renew(context: PromotionContext, models: Sequence[Model]) -> None:
    """Give versions with a model's weights its description, the files of an MLflow model, and a model card.

    A decision leaves out models with the champion's weights, so that none of this depends on one. The records get the
    new hash of the description. The caller holds the lock; after a kill, a repeated call completes it.

    Args:
        context: of the promotion.
        models: the challengers.

    Raises:
        StageError: the store does not take the files.
    """
    registry, root, name = context.registry, context.root, context.params.data.name
    renewed = False
    for row in registry.history():
        for model in models:
            if model.weights != row.weights_sha256:
                continue
            if registry.is_current(row, model.folder) and registry.is_described(row.version):
                continue
            registry.renew(row.version, model.folder)
            registry.describe(row.version, model_card(model.folder, context.params, row.version, root))
            print(f"registry: version {row.version} of {name} has the description of {model.folder} now")
            renewed = True
    if renewed:
        rows = registry.history()
        write_copy(root, name, rows, "renewed")
        write_history(root, name, rows)
