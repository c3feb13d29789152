"""Random histories of a spool: uploads, transitions cut off anywhere, restarts, and users who are in the way.

Whatever happens, every upload is in exactly one place and nothing is overwritten.
"""

import contextlib
import itertools
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.spool import FAILURE, FORMATS, SEEN_AT, Spool, text

from whisperd.core.display import printable
from whisperd.core.job import Job
from whisperd.spool import claim, job_directory, names, publish, recover, status_file, store
from whisperd.spool.durable import Folder

MAX_ATTEMPTS = 3
WAITING_MAX = 3  # so that most steps are about a job's end
ROOMS = ("inbox", ".work", "done", "failed")
# Few names, chosen to collide: with each other's transcripts, sidecars, numbered names and folders.
UPLOADS = ["a.mp3", "a.wav", "a", "a-2.mp3", "b", "b/a.mp3", "b/a.wav", "a.mp3.status.wav", "\udcff/\n.mp3", "c" * 255]
STRANGERS = ["outbox/a.txt", "outbox/a.mp3.status.json", "outbox/b", "done/a-2.wav", "failed/b"]
CUTS = (
    st.none() | st.none() | st.integers(0, 16)
)  # the longest transition takes so many steps, when it must choose names again


class PowerCut(BaseException):
    """Nothing that the daemon was about to do happens any more, cleaning up included."""


class Power:
    """Lets every durable step of the store be the first that is not taken."""

    def __init__(self, patch):
        self.left = None
        for module, call in [
            (store, "move"),
            (job_directory, "move"),
            (publish, "move"),
            (publish, "failpoint"),
            (status_file, "write"),
            (store, "remove_tree"),
            (store, "failpoint"),
            (job_directory, "write"),
            (recover, "remove_tree"),
            (claim, "remove_tree"),
        ]:
            patch.setattr(module, call, self.fused(getattr(module, call)))

    def fused(self, step):
        def step_or_cut(*arguments, **options):
            if self.left == 0:
                raise PowerCut
            if self.left is not None:
                self.left -= 1
            return step(*arguments, **options)

        return step_or_cut

    @contextlib.contextmanager
    def cut_after(self, steps):
        """Give `steps` more steps, or as many as it takes; says whether they were enough."""
        self.left = steps
        try:
            with contextlib.suppress(PowerCut):
                yield
        finally:
            self.left = None


class StoreMachine(RuleBasedStateMachine):
    """The model: what each file of a user must hold, and where each upload is as long as the daemon lives."""

    @initialize()
    def start_anew(self):
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(os, "fsync", lambda fd: None)  # what it is for, a power cut, cannot be had here
        self.power = Power(self.patch)
        self.root = Path(tempfile.mkdtemp(prefix="whisperd-store-"))
        self.spool = Spool(self.root / "spool")
        self.dead = False
        self.queued, self.running = {}, {}
        self.uploaded = set()  # the content of every upload that nobody has taken away
        self.where = {}  # content -> room/path, or .work/id
        self.kept = {}  # room/path -> content, of everything that must never change: strangers' files and ended jobs'
        self.refused = set()  # contents of uploads that were taken in order to fail
        self.taken_away = set()  # paths, as they are shown, and contents
        self.fresh = itertools.count()

    def teardown(self):
        self.patch.undo()
        shutil.rmtree(self.root)

    # --- the daemon ---

    @precondition(lambda self: not self.dead and len(self.queued) < WAITING_MAX)
    @rule(name=st.sampled_from(UPLOADS), cut=CUTS)
    def take(self, name, cut):
        self.upload(name)
        if name in self.on_disk("inbox"):
            self.claim(name, cut)

    @precondition(lambda self: not self.dead and any(self.on_disk("inbox")))
    @rule(data=st.data(), cut=CUTS)
    def take_what_waits(self, data, cut):
        self.claim(data.draw(st.sampled_from(sorted(self.on_disk("inbox"))), label="upload"), cut)

    def claim(self, name, cut):
        content = self.on_disk("inbox")[name]
        with self.living(cut):
            job = self.spool.claim(name)
            self.queued[job.id] = job
            self.where[content] = f".work/{job.id}"
            self.spool.store.show(job)

    @precondition(lambda self: not self.dead and any(self.on_disk("inbox")))
    @rule(data=st.data(), cut=CUTS)
    def refuse_what_waits(self, data, cut):
        """It is taken in order to fail."""
        name = data.draw(st.sampled_from(sorted(self.on_disk("inbox"))), label="upload")
        content = self.on_disk("inbox")[name]
        with self.living(cut):
            job = self.spool.store.claim(name, self.spool.seen(name), FORMATS, created_at=SEEN_AT, failure=FAILURE)
            self.where[content] = f".work/{job.id}"
            job = self.spool.store.fail(job, FAILURE)
            self.where[content] = f"failed/{job.place}"
        if content not in self.on_disk("inbox").values():
            self.refused.add(content)

    @precondition(lambda self: not self.dead and self.queued)
    @rule(data=st.data(), cut=CUTS)
    def start(self, data, cut):
        job = self.pick(data, self.queued)
        with self.living(cut):
            self.running[job.id] = self.spool.store.start(job)
            del self.queued[job.id]

    @precondition(lambda self: not self.dead and self.running)
    @rule(data=st.data(), cut=CUTS, transition=st.sampled_from([Job.given_back, Job.failed_once, Job.suspected]))
    def queue_again(self, data, cut, transition):
        job = self.pick(data, self.running)
        with self.living(cut):
            self.queued[job.id] = self.spool.store.record(transition(job))
            del self.running[job.id]

    @precondition(lambda self: not self.dead and self.running)
    @rule(data=st.data(), cut=CUTS)
    def give_back(self, data, cut):
        job = self.pick(data, self.running)
        with self.living(cut):
            try:
                name = self.spool.store.release(job)
            except NotADirectoryError:  # a file where the upload's folder was
                pass
            else:
                self.ended(job, f"inbox/{name}")

    @precondition(lambda self: not self.dead and (self.queued or self.running))
    @rule(data=st.data(), cut=CUTS, in_the_way=st.booleans())
    def finish(self, data, cut, in_the_way):
        job = self.pick_running(data)
        if in_the_way:
            self.stranger(data, self.paths_of(job))
        result = self.spool.render(job)
        with self.living(cut):
            job = self.spool.store.finish(job, result)
            self.ended(job, f"done/{job.place}")
            assert self.spool.sidecar(job.place)["status"] == "completed"
            folders, file = names.split(job.place)
            for kind in FORMATS:
                output = names.join(folders, names.output(file, kind))
                assert self.on_disk("outbox")[output] == text(job.id, kind)

    @precondition(lambda self: not self.dead and (self.queued or self.running))
    @rule(data=st.data(), cut=CUTS, in_the_way=st.booleans())
    def fail(self, data, cut, in_the_way):
        job = self.pick_running(data)
        if in_the_way:
            self.stranger(data, self.paths_of(job))
        with self.living(cut):
            job = self.spool.store.fail(job, FAILURE)
            self.ended(job, f"failed/{job.place}")
            assert self.spool.sidecar(job.place)["status"] == "failed"

    @precondition(lambda self: self.dead or self.running)
    @rule(cut=CUTS)
    def restart(self, cut):
        """A new daemon; the old one is dead, or is killed between two steps."""
        self.dead = False
        with self.living(cut):
            recovery = self.spool.restart(MAX_ATTEMPTS)
            for job, result in recovery.to_finish:
                self.spool.store.finish(job, result)
            for job, failure in recovery.to_fail:
                self.spool.store.fail(job, failure)
            self.queued, self.running = {job.id: job for job in recovery.queued}, {}
            assert self.spool.jobs() == set(self.queued)
            assert not self.refused & {content for path, content in self.everything() if path.startswith(".work/")}
            self.where = {content: path for path, content in self.everything() if content in self.uploaded}

    # --- the users ---

    @precondition(lambda self: len(self.on_disk("inbox")) < WAITING_MAX)
    @rule(name=st.sampled_from(UPLOADS))
    def upload(self, name):
        content = f"upload {next(self.fresh)}".encode()
        if self.create(f"inbox/{name}", content):
            self.uploaded.add(content)
            self.where[content] = f"inbox/{name}"

    @precondition(lambda self: self.dead and self.spool.jobs())
    @rule(data=st.data())
    def put_in_the_way(self, data):
        self.stranger(data, [path for job in self.in_work() for path in self.paths_of(job)])

    def stranger(self, data, wanted):
        path = data.draw(st.sampled_from(wanted + STRANGERS), label="put in the way")
        content = f"stranger {next(self.fresh)}".encode()
        # not where a transcript was taken away from a job that has not ended: `retract` knows its files by name alone
        if printable(path) not in self.taken_away and self.create(path, content):
            self.kept[path] = content

    @precondition(lambda self: any(self.on_disk("failed")))
    @rule(data=st.data())
    def try_again(self, data):
        name = data.draw(st.sampled_from(sorted(self.on_disk("failed"))), label="failed")
        content = self.on_disk("failed")[name]
        if content in self.uploaded and self.create(f"inbox/{name}", content):
            (self.spool.layout.failed / name).unlink()
            self.refused.discard(content)
            self.kept.pop(f"failed/{name}", None)
            self.where[content] = f"inbox/{name}"

    @precondition(lambda self: any(self.on_disk("outbox")) or any(self.on_disk("done")))
    @rule(data=st.data())
    def take_away(self, data):
        paths = [f"{room}/{path}" for room in ("outbox", "done", "failed") for path in self.on_disk(room)]
        path = data.draw(st.sampled_from(sorted(paths)), label="taken away")
        target = self.spool.layout.root / path
        self.uploaded.discard(target.read_bytes())
        self.taken_away |= {printable(path), target.read_bytes()}
        target.unlink()
        self.kept.pop(path, None)

    # --- what always holds ---

    @invariant()
    def every_upload_is_in_exactly_one_place(self):
        found = [content for _, content in self.everything() if content in self.uploaded]

        assert sorted(found) == sorted(self.uploaded)

    @invariant()
    def an_upload_is_where_the_living_daemon_believes_it_to_be(self):
        if not self.dead:
            found = {content: path for path, content in self.everything()}
            assert {content: found[content] for content in self.uploaded} == {
                content: self.where[content] for content in self.uploaded
            }

    @invariant()
    def nothing_is_overwritten(self):
        files = {
            f"{room}/{path}": content for room in ("outbox", "done", "failed") for path, content in self.files(room)
        }

        assert {path: files.get(path) for path in self.kept} == self.kept
        if not self.dead:  # all that stands there now belongs to somebody who is done with it
            self.kept = {path: content for path, content in files.items() if self.is_final(path, content)}

    @invariant()
    def a_completed_sidecar_has_all_that_it_promises(self):
        shown = {printable(f"{room}/{path}") for room in ("outbox", "done") for path in self.on_disk(room)}
        for document in self.sidecars():
            if document["status"] == "completed":
                promised = {
                    path
                    for kind, path in document["outputs"].items()
                    if text(document["id"], kind) not in self.taken_away  # perhaps before it had this path
                }
                if not (self.dead and document["id"] in self.spool.jobs()):
                    promised.add(document["original"])
                assert promised - self.taken_away <= shown

    @invariant()
    def nothing_unfinished_lies_about(self):
        if not self.dead:
            assert self.spool.jobs() == self.queued.keys() | self.running.keys()
            assert not any(entry.endswith(".tmp") for entry in os.listdir(self.spool.layout.staging))

    # --- the hands of the model ---

    @contextlib.contextmanager
    def living(self, cut):
        """The daemon acts, and dies if the power is cut before it is done."""
        self.dead = True
        with self.power.cut_after(cut):
            yield
            self.dead = False

    def pick(self, data, jobs):
        return jobs[data.draw(st.sampled_from(sorted(jobs)), label="job")]

    def pick_running(self, data):
        job = self.pick(data, self.queued | self.running)
        if job.id in self.queued:
            self.running[job.id] = job = self.spool.store.start(self.queued.pop(job.id))
        return job

    def ended(self, job, path):
        (content,) = (content for content, where in self.where.items() if where == f".work/{job.id}")
        self.where[content] = path
        del self.running[job.id]

    def in_work(self):
        """The jobs on record in .work."""
        for job_id in sorted(self.spool.jobs()):
            with Folder(self.spool.layout.work, (job_id,)) as own:
                if job := job_directory.load_job(own):
                    yield job

    def paths_of(self, job):
        """All that a job may write, and the folders that it needs."""
        folders, file = names.split(job.place)
        outputs = [names.output(file, kind) for kind in FORMATS]
        rooms = [("outbox", output) for output in (*outputs, names.status_file(file))] + [
            ("done", file),
            ("failed", file),
        ]
        paths = [f"{room}/{names.join(folders, name)}" for room, name in rooms]
        return paths + [f"{room}/{folders[0]}" for room in ("outbox", "done", "failed") if folders]

    def create(self, path, content):
        """What a user can do: make a file where none is."""
        target = self.spool.layout.root / path
        try:
            target.parent.mkdir(exist_ok=True)
            with target.open("xb") as file:
                file.write(content)
        except OSError:
            return False
        return True

    def files(self, room):
        root = self.spool.layout.root / room
        for path in root.rglob("*"):
            if path.is_file():
                yield str(path.relative_to(root)), path.read_bytes()

    def on_disk(self, room):
        """The files of a room, sidecars of ours aside."""
        return {path: content for path, content in self.files(room) if status_file.decode(content) is None}

    def sidecars(self):
        return [document for _, content in self.files("outbox") if (document := status_file.decode(content))]

    def is_final(self, path, content):
        document = status_file.decode(content) if path.startswith("outbox/") else None
        return document is None or document["status"] == "completed"

    def everything(self):
        """Every file that an upload can be, with its place."""
        for room in ROOMS:
            for path, content in self.files(room):
                if room != ".work":
                    yield f"{room}/{path}", content
                elif "/original" in path:
                    yield f".work/{path.partition('/')[0]}", content


TestStore = StoreMachine.TestCase
TestStore.settings = settings(
    deadline=None, max_examples=100, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow]
)
