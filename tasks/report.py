"""Write the report of a comparison.

Files in reports/<data.name>: index.html (one self-contained file), report.md (short form) and scores.md (verdict and
leaderboard without timings and dates: identical on every machine, hence one that DVC tracks). The folder plots/ has the
tables of `dvc plots`.
"""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from segcore.comparison.results import Comparison
from segcore.comparison.slices import worst_slice
from segcore.files import atomic_write
from segcore.params import Params, load
from segcore.plots import charts, gallery, object_gallery, style
from segcore.plots.calibration import calibration_curves
from tasks import console, formatting
from tasks.project import PARAMS, PREPARED, report_folder
from tasks.reporting import pictures
from tasks.reporting import rows as views
from tasks.reporting.annotators import annotators_view
from tasks.reporting.champion import retrain_view
from tasks.reporting.inputs import Inputs, gallery_cases, read_inputs
from tasks.reporting.objects import object_cases, object_figures, object_runs, objects_text, objects_view
from tasks.reporting.plan import plan_rows
from tasks.reporting.plot_tables import write_plot_tables
from tasks.reporting.slices import slices_markdown, slices_view

TEMPLATES = Path(__file__).parent / "templates"


def all_charts(inputs: Inputs) -> dict[str, Figure]:
    """Charts of the page by name."""
    titles = inputs.titles
    confusions: dict[str, pd.DataFrame] = {}
    for run in inputs.runs:
        total = confusions.get(run.architecture)
        confusions[run.architecture] = run.confusion if total is None else total + run.confusion
    calibrations = {name: run.calibration for name, run in inputs.first_runs.items()}
    return {
        "accuracy_cost": charts.accuracy_cost(inputs.comparison, inputs.costs),
        "metrics": charts.metric_bars(inputs.comparison),
        "classes": charts.class_bars(inputs.comparison),
        "learning": charts.learning_curves({run.name: run.history for run in inputs.trainings}, titles),
        "calibration": calibration_curves(calibrations, titles),
        "confusion": charts.confusion_matrices(confusions, titles),
        **object_figures(inputs, object_runs(inputs)),
        **_of_surfaces(inputs.comparison),
    }


def _of_surfaces(comparison: Comparison) -> dict[str, Figure]:
    """The chart of surfaces; empty for data without volumes."""
    return {"surfaces": charts.metric_bars(comparison, "surfaces")} if comparison.surfaces else {}


def figures(inputs: Inputs) -> dict[str, Figure]:
    """All charts and gallery pictures of the report by name, for the tracker."""
    data = inputs.params.data
    pictured = {
        f"gallery_{i:02d}_{case.kind}": gallery.gallery_image(
            case, data.colors, data.foreground, inputs.column_titles
        )
        for i, case in enumerate(gallery_cases(inputs), start=1)
    }
    outlines = {
        f"objects_{i:02d}_{case.kind.replace(' ', '_')}": object_gallery.object_gallery_image(
            case, inputs.column_titles
        )
        for i, case in enumerate(object_cases(inputs, object_runs(inputs)), start=1)
    }
    return all_charts(inputs) | pictured | outlines


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=lambda name: bool(name) and ".html" in str(name),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= formatting.FILTERS
    return environment


def scores_markdown(comparison: Comparison) -> str:
    """Verdict and leaderboard; depends on the comparison only, so that it is identical on every machine."""
    view = views.scores_view(comparison) | {"objects": objects_text(comparison)}
    return _environment().get_template("scores.md.j2").render(view)


def report_markdown(inputs: Inputs) -> str:
    """Short form of the report in Markdown, without pictures."""
    measured = {name: cost for name, cost in inputs.costs.items() if cost}
    view = views.scores_view(inputs.comparison, measured) | views.page_view(inputs)
    view |= {"slices": slices_markdown(inputs.comparison), "worst_slice": worst_slice(inputs.comparison)}
    view |= {"objects": objects_text(inputs.comparison)}
    return _environment().get_template("report.md.j2").render(view)


def report_html(inputs: Inputs, root: Path) -> str:
    """The report as one HTML file without network requests; decisions are read from the project folder `root`."""
    drawn = {name: style.svg(figure, name.replace("_", "-")) for name, figure in all_charts(inputs).items()}
    view = views.scores_view(inputs.comparison, inputs.costs) | views.page_view(inputs)
    view |= {"charts": drawn, "gallery": pictures.gallery_view(inputs, gallery_cases(inputs))}
    view |= {"data": pictures.data_view(inputs), "theme": formatting.theme()}
    view |= {"objects": objects_view(inputs, object_cases(inputs, object_runs(inputs)))}
    view |= {"slices": slices_view(inputs.comparison), "annotators": annotators_view(inputs.comparison)}
    view |= {"plan": plan_rows(root)}
    view |= {"retrain": retrain_view(root, inputs.params.data.name, inputs.facts["weights"])}
    return _environment().get_template("page.html.j2").render(view)


def measure_costs(params: Params, root: Path, again: bool = False) -> None:
    """Measure latencies of all architectures in turn and of their exports, unless done before; log the former to runs.

    Args:
        params: params.yaml.
        root: the project's folder.
        again: measure also if nothing has changed.

    Raises:
        StageError: a model could not be loaded or run.
    """
    # imported late: it loads torch, which the page alone does not need
    from tasks.runtime_speed import measure_runtimes
    from tasks.side_by_side import measure_side_by_side

    costs = measure_side_by_side(params, root, again)
    if costs:
        from tasks.tracking.runs import log_latencies
        from tasks.tracking.tracker import Tracker

        log_latencies(Tracker.open(params), costs)
    measure_runtimes(params, root, again)


def report(root: Path, params: Params, prepared: Any) -> Path:
    """Write the files of reports/<data.name> under `root`; returns the folder.

    Args:
        root: the project's folder, with the outputs of the earlier stages.
        params: params.yaml.
        prepared: segcore.data.prepared.PreparedData, or an object with the same interface.

    Raises:
        StageError: the output of an earlier stage is missing.
    """
    inputs = read_inputs(root, params, prepared)
    folder = root / report_folder(params.data.name)
    texts = {
        "index.html": report_html(inputs, root),
        "report.md": report_markdown(inputs),
        "scores.md": scores_markdown(inputs.comparison),
    }
    for name, text in texts.items():
        with atomic_write(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    write_plot_tables(inputs, folder / "plots")
    return folder


def _report_here(arguments: argparse.Namespace) -> None:
    from segcore.data.prepared import PreparedData

    root, params = arguments.params.parent, load(arguments.params)
    measure_costs(params, root, arguments.measure)
    folder = report(root, params, PreparedData(root / PREPARED))
    print(f"report: {folder / 'index.html'}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tasks report", description=__doc__)
    parser.add_argument("--params", type=Path, default=PARAMS, help="parameters file (default: %(default)s)")
    parser.add_argument("--measure", action="store_true", help="measure latencies again, on a quiet machine")
    console.run(_report_here, parser)


console.refuse_as_script(__name__)
