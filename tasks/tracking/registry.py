"""Champion and challengers in MLflow's registry: one registered model per data set, one version per set of weights.

The aliases are `champion`, `challenger` and `previous` (the champion before). A registry has no transactions, so
aliases change in an order in which every intermediate state has a champion, and a repeated call completes the change.
"""

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from segcore.errors import StageError
from segcore.files import sha256
from segcore.models.base.bundle import Hashes, verified
from tasks.promotion import agreement
from tasks.promotion.history import CHALLENGER, CHAMPION, PREVIOUS, RegisteredVersion, holder, now
from tasks.promotion.model_card import CARD
from tasks.promotion.record import DecisionTags
from tasks.tracking import versions as calls
from tasks.tracking.fetch import fetch_model
from tasks.tracking.logged_models import name_version
from tasks.tracking.tracker import Tracker

__all__ = ["DecisionTags", "Registry"]

_ALIASES = (PREVIOUS, CHALLENGER, CHAMPION)


class Registry:
    """The registered model of one data set. Each bundle is verified once per object.

    Args:
        tracker: tracker of the data set.
    """

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self._fetched: dict[int, Path] = {}

    @property
    def name(self) -> str:
        """Name of the registered model, which is that of the data set."""
        return self.tracker.dataset

    def require_agreement(self, root: Path = Path(), dry_run: bool = False) -> None:
        """Check that the registry and the records in decisions/ name the same versions and champion.

        What a kill of a promotion, rollback or registration left unfinished is completed.

        Args:
            root: the project's folder.
            dry_run: complete nothing; what a kill left unfinished is then no error.

        Raises:
            StageError: they disagree; the error names both, and what to do.
            DataError: a record cannot be read.
        """
        agreement.require(self, root, dry_run)

    def require_champion(self, root: Path = Path()) -> None:
        """Check that the champion is the one that the records in decisions/ name, if they name one.

        Raises:
            StageError: it is another one, or there is none.
            DataError: a record cannot be read.
        """
        agreement.require_champion(self, root)

    def fetch(self, version: int, target: Path) -> Path:
        """Download the bundle of a version to the folder `target` unless it is there, and verify it.

        Raises:
            ModelError: there is no such version, its bundle is damaged, or the registry does not answer.
        """
        if self._fetched.get(version) != target:
            address = f"models:/{self.name}/{version}"
            self._fetched[version] = fetch_model(self.tracker.client, address, target)
        return self._fetched[version]

    def register(self, bundle: Path, run_id: str | None, tags: Mapping[str, object]) -> int:
        """Register a bundle, and return its version; the same weights always have the same version.

        A version whose files are damaged, have another description or are no MLflow model gets those of the bundle. The
        stored files are read back and verified before the version is created.

        Args:
            bundle: folder with model.json and model.safetensors.
            run_id: run of its training. If this store has no such run, or the run has other weights, the bundle is
                logged to a new run.
            tags: tags of the version, besides architecture, seed, title and the hashes; None values are omitted.

        Raises:
            ModelError: there is no bundle, or its weights do not match its model.json.
            StageError: the store does not answer, or does not return the files that were written.
        """
        description = verified(bundle)
        weights = description["weights_sha256"]
        same_weights = [v for v in self.history() if v.weights_sha256 == weights]
        if same_weights:
            row = min(same_weights, key=lambda row: row.version)
            if not (self.is_current(row, bundle) and self.is_stored(row)):
                self.renew(row.version, bundle)
            calls.name_in_model(self.tracker.client, self.name, row.version)
            return row.version
        return self.add(bundle, description, run_id, tags)

    def add(
        self, bundle: Path, description: Mapping[str, Any], run_id: str | None, tags: Mapping[str, object]
    ) -> int:
        """Create a version of a bundle, also if another version has its weights; returns its number.

        Args:
            bundle: folder of the bundle.
            description: its model.json.
            run_id: as in `register`.
            tags: as in `register`.

        Raises:
            StageError: the store does not return the files that were written.
        """
        weights = description["weights_sha256"]
        facts = {"weights_sha256": weights, "description_sha256": sha256(bundle / "model.json")}
        facts |= {k: description.get(k) for k in ("architecture", "seed", "title")}
        hashes = Hashes(weights, facts["description_sha256"])
        model = calls.stored_model(self.tracker, run_id, bundle, hashes) if run_id else None
        model = model or calls.log_bundle(self.tracker, bundle, facts)
        all_tags = facts | {k: v for k, v in tags.items() if v is not None}
        return self.create(model.artifact_location, model.source_run_id, all_tags, model.model_id)

    def add_without_files(self, tags: Mapping[str, object]) -> int:
        """Create a version that has a number and tags, but no files; returns its number."""
        run = self.tracker.create("files lost", "registration")
        self.tracker.client.set_terminated(run.id, "FINISHED")
        return self.create(calls.source_of(self.tracker.client, run.id), run.id, tags)

    def create(
        self, source: str, run_id: str | None, tags: Mapping[str, object], model_id: str | None = None
    ) -> int:
        """Create a version of the files at an artifact address; returns its number, one above the highest so far.

        Version and tags are created in one call, so that no version is without tags.
        """
        client = self.tracker.client
        all_tags = {k: str(v) for k, v in tags.items() if v is not None}
        calls.ensure_model(client, self.name)
        created = client.create_model_version(self.name, source, run_id, tags=all_tags, model_id=model_id)
        version = int(created.version)
        if model_id is not None:
            name_version(client, model_id, self.name, version)
        return version

    def promote(self, version: int, decision: DecisionTags) -> None:
        """Make a version the champion, and the old champion `previous`; a repeated call changes nothing.

        `previous` is set first: after a kill in between, the old champion has two aliases, and a repeated call
        completes the promotion.

        Args:
            version: its number, from `register`.
            decision: decision on the version, stored as its tags.

        Raises:
            StageError: there is no such version.
        """
        client, name = self.tracker.client, self.name
        calls.finish_exchange(client, name)
        calls.require_version(client, name, version)
        calls.tag_version(client, name, version, decision.as_tags() | {"promoted": decision.decided})
        aliases = calls.aliases_of(client, name)
        old = aliases.get(CHAMPION)
        if old is not None and old != version:
            client.set_registered_model_alias(name, PREVIOUS, str(old))
        if old != version:
            client.set_registered_model_alias(name, CHAMPION, str(version))
        if CHALLENGER in aliases:
            # it was compared with the old champion
            client.delete_registered_model_alias(name, CHALLENGER)

    def set_challenger(self, version: int, decision: DecisionTags | None = None) -> None:
        """Give a version the alias `challenger`, and the decision as tags.

        Raises:
            StageError: there is no such version.
        """
        client, name = self.tracker.client, self.name
        calls.require_version(client, name, version)
        if decision is not None:
            calls.tag_version(client, name, version, decision.as_tags())
        client.set_registered_model_alias(name, CHALLENGER, str(version))

    def set_aliases(self, wanted: Mapping[str, int]) -> None:
        """Set champion, challenger and previous to these versions, the champion last; those not given are removed."""
        client, present = self.tracker.client, calls.aliases_of(self.tracker.client, self.name)
        for alias in _ALIASES:
            if alias in wanted and present.get(alias) != wanted[alias]:
                client.set_registered_model_alias(self.name, alias, str(wanted[alias]))
            elif alias not in wanted and alias in present:
                client.delete_registered_model_alias(self.name, alias)

    def rollback(self) -> tuple[int, int]:
        """Exchange champion and previous; returns the version numbers (restored, demoted).

        Both numbers are first stored in a tag, so that a call after a kill completes that exchange and does not start
        another one.

        Raises:
            StageError: there is no previous champion, or its files are gone.
        """
        client, name = self.tracker.client, self.name
        finished = calls.finish_exchange(client, name)
        if finished:
            return finished
        aliases = calls.aliases_of(client, name)
        restored, demoted = aliases.get(PREVIOUS), aliases.get(CHAMPION)
        if restored is None or demoted is None or restored == demoted:
            raise StageError(
                f"{name}: the registry at {self.tracker.address} has no previous champion to go back to",
                "promote a second model first; after an interrupted promotion run `make promote` again",
            )
        if not self.has_files(restored):
            raise StageError(
                f"{name}: the files of version {restored}, the previous champion, are gone from the store",
                "run `make registry OPTIONS=--rebuild`, which looks for them on this machine",
            )
        client.set_registered_model_tag(name, calls.EXCHANGE, f"{restored},{demoted}")
        calls.finish_exchange(client, name)
        return restored, demoted

    def finish_exchange(self) -> tuple[int, int] | None:
        """Complete a rollback that was killed; returns (restored, demoted), or None if there was none."""
        return calls.finish_exchange(self.tracker.client, self.name)

    def has_exchange(self) -> bool:
        """Whether a rollback was begun and not completed."""
        model = calls.model_of(self.tracker.client, self.name)
        return bool(model and model.tags.get(calls.EXCHANGE))

    def champion(self) -> RegisteredVersion | None:
        """The champion's version; None without a champion."""
        return holder(self.history(), CHAMPION)

    def history(self) -> list[RegisteredVersion]:
        """All versions, newest first."""
        client, name = self.tracker.client, self.name
        aliases = calls.aliases_of(client, name)
        newest_first = sorted(calls.versions_of(client, name), key=lambda v: -int(v.version))
        return [
            calls.row_of(v, [a for a, number in aliases.items() if number == int(v.version)])
            for v in newest_first
        ]

    def source(self, version: int) -> str:
        """Artifact address of a version's files."""
        return str(self.tracker.client.get_model_version_download_uri(self.name, str(version)))

    def has_files(self, version: int) -> bool:
        """Whether the store has the files of a version; they are not read."""
        return calls.has_files(self.tracker.client, self.source(version))

    def is_stored(self, row: RegisteredVersion) -> bool:
        """Whether the files of a version have the hashes in a row of the history; they are downloaded."""
        hashes = Hashes(row.weights_sha256, row.description_sha256)
        return calls.is_stored(self.tracker, self.source(row.version), hashes)

    def restore_files(self, version: int, bundle: Path) -> None:
        """Store a bundle again at the address of a version."""
        calls.upload(
            self.tracker.client, calls.require_version(self.tracker.client, self.name, version), bundle
        )

    def is_current(self, row: RegisteredVersion, bundle: Path) -> bool:
        """Whether a version has the description of a bundle and is an MLflow model; its files are not read."""
        return row.description_sha256 == sha256(bundle / "model.json") and self.is_model(row.version)

    def is_model(self, version: int) -> bool:
        """Whether MLflow can load the files of a version; those of earlier versions of segflow are bundles alone."""
        return calls.has_files(self.tracker.client, self.source(version), ["MLmodel"])

    def renew(self, version: int, bundle: Path) -> None:
        """Replace the files of a version by a bundle with the same weights, and the hash of its description.

        After a kill in between, a repeated call completes it.
        """
        self._fetched.pop(version, None)
        self.restore_files(version, bundle)
        self.tag(version, {"description_sha256": sha256(bundle / "model.json")})

    def copies_of(self, weights: str) -> Generator[Path]:
        """Download what versions of this store, also of other registered models, have as bundle with these weights.

        Each folder exists until the next one is asked for.
        """
        client = self.tracker.client
        for version in client.search_model_versions(f"tags.weights_sha256 = '{weights}'"):
            source = str(client.get_model_version_download_uri(version.name, version.version))
            if calls.has_files(client, source):
                with calls.downloaded(client, source) as folder:
                    yield folder

    def tag(self, version: int, tags: Mapping[str, object]) -> None:
        """Set tags of a version, except those with the value None."""
        calls.tag_version(self.tracker.client, self.name, version, tags)

    def describe(self, version: int, card: str) -> None:
        """Store a model card, Markdown, beside the files of a version and as its description.

        Raises:
            StageError: the file cannot be written.
        """
        calls.describe(self.tracker.client, self.name, version, card)

    def is_described(self, version: int) -> bool:
        """Whether a version has a model card."""
        described = calls.require_version(self.tracker.client, self.name, version).description
        return bool(described) and calls.has_files(self.tracker.client, self.source(version), [CARD])

    def delete(self, version: int) -> None:
        """Delete a version; its number is not used again."""
        self.tracker.client.delete_model_version(self.name, str(version))

    def set_aside(self) -> str:
        """Rename the registered model, so that a new one can have its name; returns the new name."""
        name = f"{self.name}-before-{now().translate(str.maketrans('', '', ':.-'))}"
        self.tracker.client.rename_registered_model(self.name, name)
        return name
