"""What a comparison shows on the page of its flow run: report, leaderboard, two pictures, and its run in MLflow."""

from pathlib import Path

from flows import environment  # noqa: F401  isort: skip  (before prefect is imported)
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from flows import mlflow_pages
from segcore.comparison.leaderboard import leaderboard
from segcore.comparison.results import Comparison
from segcore.metrics import is_of_objects
from segcore.params import Params
from tasks.reporting.gallery_rows import GalleryRow, gallery_rows

# kinds of gallery pictures, those that say most first
_KINDS = ("typical", "worst", "best")
_SHOWN = 2


def publish(comparison: Comparison, folder: Path, params: Params, run: str) -> None:
    """Show a comparison on the page of the present flow run.

    Args:
        comparison: its results.
        folder: of the report.
        params: all of params.yaml.
        run: id of the comparison's run in MLflow.
    """
    name = comparison.dataset
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    create_markdown_artifact(key=f"report-{name}", markdown=markdown, description=comparison.verdict)
    publish_leaderboard(comparison)
    create_link_artifact(
        link=mlflow_pages.page(params, run=run),
        link_text=f"Comparison {name} in MLflow",
        key=f"mlflow-{name}",
        description=comparison.verdict if mlflow_pages.is_served(params) else "Answers while `make ui` runs",
    )
    for row in _shown(gallery_rows(folder / "index.html")):
        # a table: an image artifact also shows its address, which is the whole picture as text
        create_markdown_artifact(
            key=f"gallery-{name}-{row.kind}",
            markdown=_table(row),
            description=f"From the gallery of the report: {(folder / 'index.html').resolve().as_uri()}",
        )


def publish_leaderboard(comparison: Comparison) -> None:
    """Show the leaderboard as a table."""
    board = leaderboard(comparison)
    # hundreds of columns
    details = {c.key for c in board.columns if c.part == "detail" and is_of_objects(c.key)}
    rows = [
        {
            key: round(value, 4) if isinstance(value, float) else value
            for key, value in record.items()
            if key not in details
        }
        for record in board.records()
    ]
    create_table_artifact(
        key=f"leaderboard-{comparison.dataset}", table=rows, description=comparison.headline
    )


def _shown(rows: list[GalleryRow]) -> list[GalleryRow]:
    """The first row of each kind, at most two."""
    first = {row.kind: row for row in reversed(rows)}
    return [first[kind] for kind in _KINDS if kind in first][:_SHOWN]


def _table(row: GalleryRow) -> str:
    heads = [caption.replace("|", r"\|") for caption, _ in row.cells]
    pictures = [
        " ".join(f"![{head}]({uri})" for uri in uris)
        for head, (_, uris) in zip(heads, row.cells, strict=True)
    ]
    lines = [heads, ["---"] * len(heads), pictures]
    return "\n".join([f"### {row.title}", "", *(f"| {' | '.join(cells)} |" for cells in lines)])
