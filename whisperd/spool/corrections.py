"""Publishes transcripts that were rendered again, as safely as those of a job: a crash leaves the old files or the new ones.

A correction has a directory `.work/.correct-<id>`. The process that renders writes into it. Then a plan is recorded there,
durably, from which the files are replaced one by one; before that nothing has happened, and after that the next start carries
the plan out. A file is replaced only if it is what whisperd wrote, by the SHA-256 in the status file: it is moved into the
directory and looked at again there, so what a user saves at the last moment goes back into the outbox. A file that somebody
has changed stays, and the new one gets a number.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import logging
import os
import re
import secrets
import stat
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from whisperd.core.correction import OUTPUTS, REPORT, REQUEST, RenderRequest
from whisperd.core.display import printable
from whisperd.core.errors import CorrectionRefused
from whisperd.core.job import UNDER_WAY, Signature, Status, original_url, utc_now
from whisperd.core.options import FORMATS, to_json
from whisperd.core.transcript import About
from whisperd.settings.correction import output_options
from whisperd.spool import names, status_file
from whisperd.spool.durable import NOT_THERE, Folder, failpoint, move, remove_tree, write
from whisperd.spool.publish import place

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from whisperd.core.correction import Correction
    from whisperd.core.job import Ticket
    from whisperd.settings.config import Config
    from whisperd.spool.layout import Layout
    from whisperd.spool.names import Naming
    from whisperd.spool.status_file import StatusFiles

PREFIX = ".correct-"
PLAN = "plan.json"
RECORDED = "json"  # the format that is the recorded transcript
KEPT_MAX = 100  # corrections in a status file, the latest
NUMBERS_MAX = 1000  # of files that were numbered because somebody had changed others
_BLOCK_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Completed:
    """The transcripts of a completed job, as its status file describes them.

    Attributes:
        place: of the job.
        document: the status file.
        files: the name of the file of each format, in the folder of the place.
    """

    place: str
    document: dict[str, Any]
    files: dict[str, str]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done once everything is rendered; recorded, so that it survives a crash.

    Attributes:
        place: of the completed job.
        document: its status file as it was.
        entry: what the status file will say of this correction.
        digests: SHA-256 of the new files by format.
        files: the name of each new file.
        kept: the files that somebody had changed, by format.
        ticket: the ticket in the inbox that asked for this; empty: none.
        ticket_signature: of that ticket when it was read.
    """

    place: str
    document: dict[str, Any]
    entry: dict[str, Any]
    digests: dict[str, str]
    files: dict[str, str]
    kept: dict[str, str] = field(default_factory=dict)
    ticket: str = ""
    ticket_signature: Signature | None = None

    def encode(self) -> bytes:
        """Write the plan as ASCII JSON."""
        return json.dumps(self, default=to_json).encode("ascii")

    @classmethod
    def decode(cls, data: bytes) -> Plan:
        """Read what `encode` has written.

        Raises:
            ValueError: it is damaged.
        """
        try:
            fields = json.loads(data)
            signature = fields.pop("ticket_signature")
            return cls(ticket_signature=signature and Signature(**signature), **fields)
        except (TypeError, AttributeError, KeyError) as error:
            raise ValueError("this is not a plan") from error


class Corrections:
    """The corrections of one spool. Only the process that has its lock may do more than `find` and `request`."""

    def __init__(self, layout: Layout, naming: Naming, status_files: StatusFiles) -> None:
        self._layout = layout
        self._naming = naming
        self._status_files = status_files

    def directory(self, number: str) -> Path:
        """The private directory of a correction."""
        return self._layout.work / f"{PREFIX}{number}"

    def find(self, place: str) -> Completed:
        """Find the completed job of a place.

        Raises:
            CorrectionRefused: there is none, or it cannot be corrected.
        """
        folders, file = names.split(place)
        shown = printable(place)
        document = None
        with contextlib.suppress(OSError), Folder(self._layout.outbox, folders) as outbox:
            document = status_file.decode(outbox.read(names.status_file(file)))
        if document is None:
            raise CorrectionRefused(f"no completed job is called {shown}", hint="see outbox/ for names", is_early=True)
        if document["status"] != Status.COMPLETED or self._is_ending(document):
            is_early = document["status"] in UNDER_WAY or document["status"] == Status.COMPLETED
            raise CorrectionRefused(f"{shown} is not completed: {document['status']}", is_early=is_early)
        if document.get("duplicate_of") is not None:
            raise CorrectionRefused(f"{shown} is a duplicate", hint=f"correct {document['duplicate_of']} instead")
        files = _files(document, folders, file)
        if RECORDED not in files:
            raise CorrectionRefused(
                f"the transcript of {shown} was not recorded: json was not among its formats",
                hint="add json to output.formats, and transcribe it again with `whisperd retry --done`",
            )
        return Completed(place, document, files)

    def request(self, config: Config, completed: Completed, correction: Correction) -> RenderRequest:
        """Make the request to render the transcripts of a completed job again, with a correction."""
        folders, file = names.split(completed.place)
        document = completed.document
        options = _mapping(document, "options")
        earlier = [each.get("options", {}) for each in _entries(document)]
        return RenderRequest(
            outbox=str(self._layout.outbox),
            folders=folders,
            file=completed.files[RECORDED],
            output=output_options(
                config,
                completed.place,
                [options, *earlier, correction.options],
                [*completed.files, *correction.formats],
            ),
            correction=correction,
            sha256=str(document.get("sha256")),
            about=About(
                title=printable(file),
                link=original_url(completed.place),
                duration_seconds=float(document.get("duration_seconds") or 0.0),
                task=str(options.get("task", "transcribe")),
                made_by=f"{document.get('engine')}, model {os.path.basename(str(document.get('model')))}",
                made_at=str(document.get("finished_at") or ""),
            ),
        )

    def begin(self, request: RenderRequest) -> str:
        """Make the directory in which a request is rendered; returns the id of the correction.

        Raises:
            OSError: the disk is full, ...
        """
        number = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(3)}"
        with Folder(self._layout.work) as work:
            os.mkdir(PREFIX + number, 0o700, dir_fd=work.fd)
            try:
                with Folder(self.directory(number)) as own:
                    write(own, REQUEST, request.encode())
            except BaseException:
                remove_tree(work, PREFIX + number)
                raise
        return number

    def plan(self, number: str, completed: Completed, correction: Correction, ticket: Ticket | None = None) -> None:
        """Record what is to be published of what was rendered: from now on the correction is made, whatever happens.

        Raises:
            CorrectionRefused: it could not be rendered; its directory is removed.
            OSError: the disk is full, ...
        """
        try:
            with Folder(self.directory(number)) as own:
                digests, replacements = _report(own, [*completed.files, *correction.formats])
        except CorrectionRefused:
            self.remove(number)
            raise
        _, file = names.split(completed.place)
        plan = Plan(
            place=completed.place,
            document=completed.document,
            entry={
                "at": utc_now(),
                "by": printable(correction.by),
                "speakers": correction.speakers,
                "replacements": [each for each in replacements if each["wrong"] in correction.replacements],
                "formats": list(correction.formats),
                "options": correction.options,
                **({"segments": len(correction.segments)} if correction.segments else {}),
            },
            digests=digests,
            files={kind: completed.files.get(kind) or names.output(file, kind) for kind in digests},
            ticket=ticket.name if ticket else "",
            ticket_signature=ticket.signature if ticket else None,
        )
        with Folder(self.directory(number)) as own:
            write(own, PLAN, plan.encode())
        failpoint("correct.after_plan")

    def carry_out(self, number: str) -> Generator[None, None, Plan]:
        """Publish what is planned, in small steps; may be interrupted anywhere and repeated. Returns the plan as carried out.

        Raises:
            OSError: the disk is full, ...: nothing is lost, call it again.
        """
        with Folder(self.directory(number)) as own:
            plan = Plan.decode(own.read(PLAN, 1 << 30))
            folders, _ = names.split(plan.place)
            with (
                Folder(self._layout.outbox, folders, create=True) as outbox,
                Folder(self.directory(number), (OUTPUTS,), create=True) as rendered,
            ):
                for kind in plan.digests:
                    while rendered.exists(kind):
                        yield
                        plan = yield from self._place(plan, kind, own, rendered, outbox)
        self._describe(plan)
        failpoint("correct.after_status_file")
        self._move_ticket(plan)
        failpoint("correct.after_ticket")
        self.remove(number)
        return plan

    def unfinished(self) -> list[str]:
        """List the corrections that an earlier process has planned and not finished; those without a plan are removed."""
        planned = []
        with Folder(self._layout.work) as work:
            for entry in sorted(os.listdir(work.fd)):
                if not entry.startswith(PREFIX):
                    continue
                number = entry.removeprefix(PREFIX)
                try:
                    with Folder(self.directory(number)) as own:
                        Plan.decode(own.read(PLAN, 1 << 30))
                    planned.append(number)
                except (FileNotFoundError, ValueError):
                    remove_tree(work, entry)
                except OSError as error:
                    _log.warning("a correction in .work/%s cannot be read: %s", entry, error.strerror)
        return planned

    def remove(self, number: str) -> None:
        """Remove the directory of a correction; may be repeated."""
        with Folder(self._layout.work) as work:
            remove_tree(work, PREFIX + number)

    def _is_ending(self, document: dict[str, Any]) -> bool:
        """Whether the job is being published, so that its status file may be written once more."""
        with contextlib.suppress(OSError), Folder(self._layout.work) as work:
            return work.exists(str(document["id"]))
        return False

    def _place(
        self, plan: Plan, kind: str, own: Folder, rendered: Folder, outbox: Folder
    ) -> Generator[None, None, Plan]:
        """Take one step towards the new file of a format in the outbox; returns the plan, in which its name may have changed."""
        file, written = plan.files[kind], _mapping(plan.document, "digests").get(kind)
        replaced = f"replaced-{kind}"
        removed = yield from _digest(own, replaced)
        if removed not in {None, written}:  # somebody has saved it between the look and the move
            name = file if not outbox.exists(file) else self._free(plan.place, kind, outbox)
            with contextlib.suppress(FileExistsError):
                move(own, replaced, outbox, name)
            return plan
        current = yield from _digest(outbox, file)
        if current == plan.digests[kind]:
            os.unlink(kind, dir_fd=rendered.fd)
        elif current is None and not self._is_held(plan.place, file):
            with contextlib.suppress(FileExistsError):
                place(rendered, kind, outbox, file)
            failpoint("correct.after_output")
        elif current is not None and current == written:
            if removed is not None:
                os.unlink(replaced, dir_fd=own.fd)
            with contextlib.suppress(FileNotFoundError):
                move(outbox, file, own, replaced)
            failpoint("correct.after_removal")
        else:
            kept = {kind: file} if kind in plan.document["outputs"] and current is not None else {}
            files = plan.files | {kind: self._free(plan.place, kind, outbox)}
            plan = dataclasses.replace(plan, files=files, kept=plan.kept | kept)
            write(own, PLAN, plan.encode())
        return plan

    def _is_held(self, place: str, file: str) -> bool:
        folders, _ = names.split(place)
        return self._naming.is_held("outbox/" + names.join(folders, file))

    def _free(self, place: str, kind: str, outbox: Folder) -> str:
        """Choose the first numbered name that is free."""
        _, file = names.split(place)

        def name(number: int) -> str:
            return names.output(names.numbered(file, number), kind)

        def is_taken(number: int) -> bool:
            return outbox.exists(name(number)) or self._is_held(place, name(number))

        return name(names.first_free(is_taken))

    def _describe(self, plan: Plan) -> None:
        """Write the status file: which files there are now, and what was corrected."""
        folders, _ = names.split(plan.place)
        old = plan.document
        shown = {kind: printable("outbox/" + names.join(folders, file)) for kind, file in plan.files.items()}
        kept = {kind: printable("outbox/" + names.join(folders, file)) for kind, file in plan.kept.items()}
        kinds = [*old["outputs"], *(kind for kind in plan.files if kind not in old["outputs"])]
        document = old | {
            "outputs": {kind: shown.get(kind, old["outputs"].get(kind)) for kind in kinds},
            "digests": _mapping(old, "digests") | plan.digests,
            "corrections": [*_entries(old), plan.entry | {"kept": kept}][-KEPT_MAX:],
            "updated_at": plan.entry["at"],
        }
        try:
            self._status_files.write(plan.place, document, sync=True)
        except FileExistsError:
            _log.warning("%s: somebody has put another file in the place of its status file", printable(plan.place))

    def _move_ticket(self, plan: Plan) -> None:
        """Move the ticket to done/, unless it has changed since it was read: then it asks for something else."""
        if not plan.ticket:
            return
        folders, file = names.split(plan.ticket)
        with contextlib.suppress(FileNotFoundError), Folder(self._layout.inbox, folders) as inbox:
            if Signature.of(os.stat(file, dir_fd=inbox.fd, follow_symlinks=False)) != plan.ticket_signature:
                return
            with Folder(self._layout.done, folders, create=True) as done:
                number = names.first_free(lambda number: done.exists(names.numbered(file, number)))
                move(inbox, file, done, names.numbered(file, number))


def _entries(document: dict[str, Any]) -> list[dict[str, Any]]:
    entries = document.get("corrections") or []
    return [each for each in entries if isinstance(each, dict) and isinstance(each.get("options", {}), dict)]


def _mapping(document: dict[str, Any], key: str) -> dict[str, Any]:
    """A field of a status file that people may have edited; an older release has not written all of them."""
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def _files(document: dict[str, Any], folders: tuple[str, ...], file: str) -> dict[str, str]:
    """The name of the file of each format; the status file has it in a form that cannot always be turned back."""
    found: dict[str, str] = {}
    for kind, shown in _mapping(document, "outputs").items():
        for number in range(1, NUMBERS_MAX + 1):
            name = names.output(names.numbered(file, number), kind)
            if kind in FORMATS and shown == printable("outbox/" + names.join(folders, name)):
                found[kind] = name
                break
        else:
            raise CorrectionRefused(
                f"its status file names a file that is not its own: {kind}", hint="undo what was changed in it by hand"
            )
    return found


def _report(own: Folder, kinds: list[str]) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Read what the process that renders reports; it may have been taken over, so it is not trusted."""
    try:
        report = json.loads(own.read(REPORT, 64 << 20))
        if refusal := report.get("refusal"):
            raise CorrectionRefused(str(refusal["message"]), hint=str(refusal["hint"]))
        digests = {kind: str(report["digests"][kind]) for kind in dict.fromkeys(kinds)}
        replacements = [
            {"wrong": str(each["wrong"]), "right": str(each["right"]), "count": int(each["count"])}
            | ({} if each["is_complete"] else {"complete": False})
            for each in report["replacements"]
        ]
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorrectionRefused("it could not be rendered", hint="see the journal for the reason") from error
    if not all(map(_SHA256.fullmatch, digests.values())):
        raise CorrectionRefused("it could not be rendered", hint="see the journal for the reason")
    return digests, replacements


def _digest(folder: Folder, name: str) -> Generator[None, None, str | None]:
    """SHA-256 of a file, read in steps; None if there is none, empty if it is not a regular file."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder.fd)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            return None
        if error.errno in NOT_THERE | {errno.EACCES}:  # a symlink, or a file that somebody keeps to themselves
            return ""
        raise
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return ""
        digest = hashlib.sha256()
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            yield
        return digest.hexdigest()
