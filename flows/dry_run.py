"""What a round of retraining would do, without changing anything: `python -m flows.retrain --dry-run`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from flows import approval, run_state, steps
from segcore.comparison.text import value_text
from segcore.errors import SegflowError, StageError
from segcore.ingest import catalog
from segcore.metrics import METRICS
from segcore.params import Params
from tasks import batches, networks
from tasks.inbox_result import Received
from tasks.project import DVC_LOCK
from tasks.promotion import publish
from tasks.promotion.history import RegisteredVersion, read_history
from tasks.promotion.record import records
from tasks.tracking import store
from tasks.versioning import dvc_batches, git, stages
from tasks.versioning.status import survey

_INDENT = "  "


@dataclass
class Plan:
    """What a round would do.

    Attributes:
        lines: text for a terminal, one line per fact.
        obstacles: errors that would end the round, each with its remedy.
        summary: one sentence.
    """

    lines: list[str] = field(default_factory=list)
    obstacles: list[str] = field(default_factory=list)
    summary: str = ""

    def add(self, title: str, *facts: str) -> None:
        """Add a line, and indented lines below it."""
        self.lines += [title, *(f"{_INDENT}{fact}" for fact in facts)]

    def text(self) -> str:
        """All lines."""
        return "\n".join(["A round would do this (nothing is changed by --dry-run):", *self.lines])

    def require_no_obstacle(self) -> None:
        """Check that nothing would end the round.

        Raises:
            StageError: something would.
        """
        if self.obstacles:
            listed = "\n".join(f"- {obstacle}" for obstacle in self.obstacles)
            raise StageError(f"a round would stop:\n{listed}", "do what each of these lines names")

    def attempt(self, step: Callable[[], object]) -> bool:
        """Call a check, and note its error as an obstacle; returns whether there was none."""
        try:
            step()
        except SegflowError as error:
            self.obstacles.append(str(error))
            return False
        return True


def plan_of(p: Params) -> Plan:
    """What a round would do now in the current folder; no file, registry or repository is changed."""
    plan = Plan()
    folder = batches.folder_of(p)
    plan.attempt(lambda: run_state.require_sections(p))
    plan.attempt(p.require_one_split)
    plan.attempt(lambda: networks.require_networks(p))
    plan.attempt(lambda: git.require_usable(read_only=True, dataset=p.data.name))
    plan.attempt(lambda: approval.require_server(p))
    plan.attempt(lambda: batches.require_complete(p))
    plan.attempt(lambda: dvc_batches.require_unchanged_batches(folder, read_only=True))
    plan.attempt(lambda: _unfinished(plan, p))
    waiting = batches.waiting_text(p)
    if waiting:
        plan.add(f"{waiting}. What follows would happen then.")
    received: list[Received] = []
    if dvc_batches.missing_batches(folder):
        plan.add(
            f"Inbox {p.retrain.inbox}: would be compared with all batches once they are pulled (dvc pull)"
        )
    else:
        plan.attempt(lambda: received.append(_inbox(plan, p)))
    to_judge: list[str] = []
    if not plan.attempt(lambda: to_judge.extend(_to_judge(p, received))):
        plan.summary = "A round would stop."
        return plan
    if not to_judge and any(one.acted for one in records(Path(), p.data.name)):
        plan.add("Nothing would be trained: every batch has its decision.")
        plan.summary = "A round would train nothing."
    else:
        named = publish.batch_names(to_judge)
        plan.add(f"One decision would judge: {named}")
        plan.summary = f"A round would train, and decide on batch {named}."
        plan.attempt(lambda: _stages(plan, p, bool(to_judge)))
        plan.attempt(lambda: _champion(plan, p))
        plan.attempt(lambda: _commit(plan, p, to_judge))
    plan.attempt(lambda: _pushes(plan, p))
    return plan


def _unfinished(plan: Plan, p: Params) -> None:
    """What killed rounds have left."""
    for one in steps.uncommitted_decisions(p.data.name):
        plan.add(f"Decision of {one.decided} ({one.outcome}): report and commit would be completed")
    for name, folder in catalog.batch_folders(p.data).items():
        if not folder.with_name(f"{folder.name}.dvc").exists():
            plan.add(f"Batch {name}: would be recorded in DVC and git")
    for tracked in dvc_batches.missing_batches(batches.folder_of(p)):
        plan.add(f"Batch {tracked.stem}: would be pulled from DVC's remote")


def _inbox(plan: Plan, p: Params) -> Received:
    from tasks.receive import receive

    received = receive(p, dry_run=True)
    rows = received.quarantined.to_dict("records")
    plan.add(
        f"Inbox {p.retrain.inbox}: {received.text()}",
        *(f"would be quarantined: {row['reason']} (remedy: {row['remedy']})" for row in rows),
        *(f"would wait: {path}" for path in (*received.waiting, *received.future)),
        *(f"would wait for its image: {path}" for path in received.incomplete),
        *(f"would stay ({received.stray_reason}): {path}" for path in received.strays),
    )
    return received


def _to_judge(p: Params, received: list[Received]) -> list[str]:
    pulled = [tracked.stem for tracked in dvc_batches.missing_batches(batches.folder_of(p))]
    decided = {name for one in records(Path(), p.data.name) if one.acted for name in one.batches}
    present = [name for name in catalog.batch_folders(p.data) if name not in decided]
    new = [f"{one.batch or 'new'} (from the inbox)" for one in received if one.accepted]
    return [*(name for name in pulled if name not in decided), *present, *new]


def _stages(plan: Plan, p: Params, new_data: bool) -> None:
    names = [f"train@{architecture}-{seed}" for architecture in p.architectures for seed in p.seeds]
    if DVC_LOCK.exists():
        pipeline = survey(read_only=True)
        unchanged = set() if new_data else pipeline.unchanged
        # the others stand for batches, which DVC only compares
        graph = [stage for stage in pipeline.graph if not stage.name.endswith(".dvc")]
        names = [stage.name for stage in graph if stage.name not in unchanged]
        plan.add(f"{len(names)} of {len(graph)} stages would run: {', '.join(names) or 'none'}")
    else:
        plan.add("All stages would run: nothing has been computed here.")
    trainings = [name for name in names if name.startswith("train@")]
    counts = [p.for_architecture(name.removeprefix("train@").rpartition("-")[0]).steps for name in trainings]
    plan.add(
        f"{len(trainings)} trainings",
        *(f"{name}: {number} steps" for name, number in zip(trainings, counts, strict=True)),
    )
    warm = p.retrain.warm_start
    if warm.enabled and trainings:
        count = f"{warm.steps} steps" if warm.steps else "as many steps"
        plan.add(f"Trainings of the champion's architecture would start from its weights ({count}).")


def _champion(plan: Plan, p: Params) -> None:
    from tasks.tracking.registry import Registry
    from tasks.tracking.tracker import Tracker

    file, versions = store.file_of(store.uri(p)), read_history(Path(), p.data.name)
    is_new = file is not None and not (file.exists() and file.stat().st_size)
    if is_new and versions:
        raise StageError(
            f"{file}: is missing or empty, but decisions/{p.data.name} records a registry",
            "if it is lost, run `make registry OPTIONS=--rebuild`; else correct tracking.uri in params.yaml",
        )
    if not is_new:
        # opening a new store would create it
        Registry(Tracker.open(p)).require_agreement(Path(), dry_run=True)
    champion = next((one for one in versions if "champion" in one.aliases), None)
    if champion is None:
        plan.add("There is no champion: the model with the best validation score would become the first one.")
        return
    plan.add(
        f"Champion: {champion.title}, version {champion.version}{_score(champion)}",
        *(f"gate.{name} {value}: {text}" for name, value, text in _requirements(p)),
    )
    if p.gate.approval == "person":
        plan.add(f"A new champion would need a person's approval within {p.gate.approval_hours:g} hours.")


def _score(champion: RegisteredVersion) -> str:
    """The champion's score on the frozen test set at its decision, as the end of a clause."""
    value, metric = champion.scores.get("frozen"), METRICS.get(champion.scores.get("metric", ""))
    if value is None or metric is None:
        return ""
    return f", {value_text(value, metric.unit)} {metric.unit} ({metric.title}) on the frozen test set of its decision"


def _requirements(p: Params) -> list[tuple[str, object, str]]:
    """What is set in the section `gate`, without statistics and approval: (key, value, description)."""
    fields = type(p.gate).model_fields
    rows = []
    for name, value in p.gate.model_dump().items():
        shown = {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value
        if name not in ("bootstrap", "approval", "approval_hours") and shown not in (None, {}):
            rows.append((name, shown, fields[name].description or ""))
    return rows


def _commit(plan: Plan, p: Params, to_judge: list[str]) -> None:
    if not git.is_repository():
        plan.add("Nothing would be committed: this folder is in no git repository.")
        return
    plan.add(
        f"Commits on {git.branch() or 'a detached HEAD'}",
        *(f"Data of {p.data.name}: batch {name}" for name in to_judge if "inbox" in name),
        f"Retraining of {p.data.name} on batch {publish.batch_names(to_judge)}",
    )


def _pushes(plan: Plan, p: Params) -> None:
    if p.retrain.push_data:
        remote = stages.remote_name()
        plan.add(
            f"Push of data: to {remote}, DVC's default remote" if remote else "Push of data: no remote in DVC"
        )
    if p.retrain.push_git and git.is_repository():
        target = git.push_target()
        plan.add(f"Push of git: to {target}" if target else "Push of git: the branch has no remote")
        git.require_own_commits()
