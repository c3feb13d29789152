"""The one place where state is written: files that are whole or not there, moves that overwrite nothing."""

import ctypes
import errno
import os
import stat
from pathlib import Path

import pytest

from whisperd.spool import durable
from whisperd.spool.durable import Folder, extend, is_transient, make_directory, move, remove_tree, write

OTHER_GROUP = 54321
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file to a group it is not in")


@pytest.fixture
def folder(tmp_path):
    with Folder(tmp_path) as folder:
        yield folder


@pytest.fixture
def two(tmp_path):
    """Two open folders, `a` and `b`."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with Folder(tmp_path, ("a",)) as a, Folder(tmp_path, ("b",)) as b:
        yield a, b


@pytest.fixture
def without_noreplace(monkeypatch):
    """A filesystem whose rename does not know RENAME_NOREPLACE, as NFS."""

    class Libc:
        @staticmethod
        def renameat2(*arguments):
            ctypes.set_errno(errno.EINVAL)
            return -1

    monkeypatch.setattr(durable, "_libc", Libc)
    monkeypatch.setattr(durable, "_noreplace", {})


@pytest.fixture
def without_links(monkeypatch, without_noreplace):
    """As that, and fs.protected_hardlinks forbids the link."""

    def refuse(*arguments, **options):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)


def failing_sync(code):
    def fsync(fd):
        raise OSError(code, os.strerror(code))

    return fsync


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


# --- Folder ---


@pytest.mark.parametrize("where", ["first", "deep"])
def test_a_folder_is_never_reached_through_a_symlink(tmp_path, where):
    """A user who can write into the outbox must not lead the daemon elsewhere."""
    (tmp_path / "real" / "b").mkdir(parents=True)
    (tmp_path / "first").symlink_to("real")
    (tmp_path / "real" / "deep").symlink_to("b")
    parts = ("first", "b") if where == "first" else ("real", "deep")
    before = open_descriptors()

    with pytest.raises(OSError) as caught:
        Folder(tmp_path, parts, create=True)

    assert caught.value.errno in {errno.ELOOP, errno.ENOTDIR}
    assert open_descriptors() == before


def test_a_folder_is_made_only_when_asked(tmp_path):
    """A reader leaves no empty folders behind."""
    with pytest.raises(FileNotFoundError):
        Folder(tmp_path, ("a", "b"))
    with Folder(tmp_path, ("a", "b"), create=True):
        pass

    assert (tmp_path / "a" / "b").is_dir()


def test_a_folder_can_be_made_where_directories_cannot_be_synced(tmp_path, monkeypatch):
    """Some network filesystems answer EINVAL; that must not end the first job of each folder."""
    monkeypatch.setattr(os, "fsync", failing_sync(errno.EINVAL))

    with Folder(tmp_path, ("a",), create=True) as folder:
        folder.sync()


def test_a_directory_that_could_not_be_written_is_heard(folder, monkeypatch):
    """EIO at a sync means that the rename may be lost."""
    monkeypatch.setattr(os, "fsync", failing_sync(errno.EIO))

    with pytest.raises(OSError, match="Input/output"):
        folder.sync()


def test_whatever_stands_under_a_name_exists(tmp_path, folder):
    """A dangling symlink too: a file cannot be made there."""
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "file").touch()

    assert folder.exists("link")
    assert folder.exists("file")
    assert not folder.exists("nothing")
    assert not folder.exists("x" * 256)


def test_only_a_regular_file_is_read(tmp_path, folder):
    """A FIFO would wait for ever, and a symlink may lead to /etc/shadow."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "folder").mkdir()

    assert folder.read("file") == b"content"
    assert folder.read("file", limit=3) == b"con"
    for name in ("fifo", "folder", "nothing"):
        with pytest.raises(FileNotFoundError):
            folder.read(name)
    with pytest.raises(OSError, match="symbolic"):
        folder.read("link")


# --- write ---


def test_a_reader_sees_the_old_content_or_the_new(tmp_path, folder):
    """The file is replaced, not rewritten: who has the old one open keeps reading it."""
    write(folder, "a", b"old")
    with (tmp_path / "a").open("rb") as old:
        write(folder, "a", b"new")

        assert old.read() == b"old"
    assert (tmp_path / "a").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


def test_content_is_on_the_disk_before_it_gets_its_name_and_the_name_before_the_end(folder, monkeypatch):
    """Otherwise a power cut leaves an empty file under a good name, or none."""
    steps = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(fd):
        steps.append("sync of content" if stat.S_ISREG(os.fstat(fd).st_mode) else "sync of name")
        real_fsync(fd)

    def rename(*arguments, **options):
        steps.append("rename")
        real_rename(*arguments, **options)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)

    write(folder, "a", b"x")
    write(folder, "a", b"x", sync=False)

    assert steps == ["sync of content", "rename", "sync of name", "rename"]


def test_a_write_that_fails_leaves_the_old_content_and_no_litter(tmp_path, folder, monkeypatch):
    """Here the disk fails at the sync."""
    write(folder, "a", b"old")
    monkeypatch.setattr(os, "fsync", failing_sync(errno.EIO))

    with pytest.raises(OSError):
        write(folder, "a", b"new")

    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_write_that_must_not_replace_leaves_what_is_there_and_no_litter(tmp_path, folder):
    """The look whether a name is free and the write are two steps."""
    write(folder, "a", b"theirs", replace=False)

    with pytest.raises(FileExistsError):
        write(folder, "a", b"ours", replace=False)

    assert (tmp_path / "a").read_bytes() == b"theirs"
    assert os.listdir(tmp_path) == ["a"]


def test_the_temporary_file_is_made_in_staging(two, monkeypatch):
    """A crash then leaves no litter among a user's files."""
    folder, staging = two
    monkeypatch.setattr(os, "rename", lambda *arguments, **options: None)  # as if it were killed right before

    write(folder, "a", b"x", staging=staging, sync=False)

    assert os.listdir(folder.fd) == []
    assert len(os.listdir(staging.fd)) == 1


@needs_root
def test_a_file_gets_the_group_of_a_setgid_folder_though_it_was_made_elsewhere(tmp_path, two):
    """So the group that owns the outbox can read what appears there."""
    folder, staging = two
    os.chown(tmp_path / "a", -1, OTHER_GROUP)
    (tmp_path / "a").chmod(0o2775)

    write(folder, "x", b"x", staging=staging)

    assert (tmp_path / "a" / "x").stat().st_gid == OTHER_GROUP


@needs_root
def test_a_file_keeps_its_group_where_the_folder_is_not_setgid(tmp_path, two):
    """As if it had been made there."""
    folder, staging = two
    os.chown(tmp_path / "a", -1, OTHER_GROUP)

    write(folder, "x", b"x", staging=staging)

    assert (tmp_path / "a" / "x").stat().st_gid == os.getegid()


# --- move ---

EVERY_WAY = pytest.mark.parametrize("way", [None, "without_noreplace", "without_links"])


@EVERY_WAY
def test_a_move_keeps_the_file_as_it_is(tmp_path, two, request, way):
    """Content, times and mode; on any filesystem."""
    if way:
        request.getfixturevalue(way)
    source = tmp_path / "a" / "x"
    source.write_bytes(b"content")
    source.chmod(0o640)
    os.utime(source, ns=(1, 1_000_000_001))
    before = source.stat()

    move(two[0], "x", two[1], "y")

    after = (tmp_path / "b" / "y").stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns, after.st_mode, after.st_nlink) == (
        before.st_ino,
        before.st_size,
        before.st_mtime_ns,
        before.st_mode,
        1,
    )
    assert not source.exists()


@EVERY_WAY
@pytest.mark.parametrize("obstacle", ["file", "empty_folder", "dangling_symlink"])
def test_a_move_overwrites_nothing(tmp_path, two, request, way, obstacle):
    """On any filesystem, whatever stands there."""
    if way:
        request.getfixturevalue(way)
    (tmp_path / "a" / "x").write_bytes(b"ours")
    target = tmp_path / "b" / "y"
    {
        "file": lambda: target.write_bytes(b"theirs"),
        "empty_folder": target.mkdir,
        "dangling_symlink": lambda: target.symlink_to("nowhere"),
    }[obstacle]()
    before = target.lstat()

    with pytest.raises(FileExistsError):
        move(two[0], "x", two[1], "y")

    assert target.lstat() == before
    assert (tmp_path / "a" / "x").read_bytes() == b"ours"


@EVERY_WAY
def test_a_move_of_nothing_leaves_nothing(two, request, way):
    """No reservation stays behind either."""
    if way:
        request.getfixturevalue(way)
    with pytest.raises(FileNotFoundError):
        move(two[0], "x", two[1], "y")

    assert os.listdir(two[1].fd) == []


def test_a_move_by_link_that_was_cut_off_is_brought_to_its_end(tmp_path, two, without_noreplace):
    """Killed between link and unlink, the file has both names; the next try must not take it for somebody else's."""
    (tmp_path / "a" / "x").write_bytes(b"ours")
    (tmp_path / "b" / "y").hardlink_to(tmp_path / "a" / "x")

    move(two[0], "x", two[1], "y")

    assert os.listdir(two[0].fd) == []
    assert (tmp_path / "b" / "y").read_bytes() == b"ours"


@pytest.mark.parametrize(
    ("other", "is_half"),
    [((b"ours", 5), True), ((b"ours", 6), False), ((b"orus", 5), False), ((b"our", 5), False)],
    ids=["equal", "other time", "other content", "shorter"],
)
def test_where_inodes_tell_nothing_content_and_mtime_do(tmp_path, two, request, other, is_half):
    """As on sshfs; where one rename moves, an equal file is never more than that, and is left alone."""
    for path, data, at in ((tmp_path / "a/x", b"ours", 5), (tmp_path / "b/y", *other)):
        path.write_bytes(data)
        os.utime(path, (at, at))

    assert not durable.is_half_moved(two[0], "x", two[1], "y")
    request.getfixturevalue("without_noreplace")
    assert durable.is_half_moved(two[0], "x", two[1], "y") == is_half


def test_a_move_to_another_filesystem_is_refused(tmp_path, folder):
    """It would be a copy, which can be cut off."""
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second filesystem at /dev/shm")
    (tmp_path / "x").touch()

    with Folder(other) as target, pytest.raises(OSError) as caught:
        move(folder, "x", target, f"whisperd-{os.getpid()}")

    assert caught.value.errno == errno.EXDEV


def test_both_directories_of_a_move_are_synced(tmp_path, two, monkeypatch):
    """Otherwise a power cut may leave the file in both, or in none."""
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    (tmp_path / "a" / "x").touch()

    move(two[0], "x", two[1], "y")

    assert set(synced) == {two[0].fd, two[1].fd}


# --- the rest ---


def test_a_tree_is_removed_without_following_symlinks(tmp_path, folder):
    """Nothing there is fine."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "tree" / "below").mkdir(parents=True)
    (tmp_path / "tree" / "below" / "link").symlink_to(tmp_path / "kept")

    remove_tree(folder, "tree")
    remove_tree(folder, "tree")

    assert os.listdir(tmp_path) == ["kept"]
    assert (tmp_path / "kept" / "file").exists()


def test_a_directory_is_made_with_its_parents(tmp_path):
    """One that is there is fine; a file in the way is not."""
    make_directory(tmp_path / "a" / "b" / "c")
    make_directory(tmp_path / "a" / "b" / "c")
    (tmp_path / "file").touch()

    assert (tmp_path / "a" / "b" / "c").is_dir()
    with pytest.raises(NotADirectoryError):
        make_directory(tmp_path / "file" / "x")


@pytest.mark.parametrize(
    ("code", "transient"),
    [
        (errno.ENOSPC, True),
        (errno.EDQUOT, True),
        (errno.EIO, True),
        (errno.ESTALE, True),
        (errno.EROFS, True),
        (errno.EACCES, False),
        (errno.ENOENT, False),
        (errno.EEXIST, False),
    ],
    ids=lambda value: errno.errorcode[value] if not isinstance(value, bool) else None,
)
def test_waiting_helps_against_these(code, transient):
    """A full disk is made room on; a missing permission stays."""
    assert is_transient(OSError(code, "x")) is transient


# --- files that only grow ---


def test_a_file_that_grows_is_made_whole_and_goes_on_from_what_stands(folder, tmp_path):
    """Also from what a write that was cut off has left; it stays the same file."""
    extend(folder, "a", b"one\n")
    inode = (tmp_path / "a").stat().st_ino
    extend(folder, "a", b"one\ntwo\n")
    extend(folder, "a", b"one\ntwo\n")
    (tmp_path / "a").write_bytes(b"one\ntw")
    extend(folder, "a", b"one\ntwo\nthree\n", sync=False)

    assert (tmp_path / "a").read_bytes() == b"one\ntwo\nthree\n"
    assert (tmp_path / "a").stat().st_ino == inode
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("standing", [b"", b"two", b"one and more"], ids=repr)
def test_a_file_that_is_not_the_beginning_does_not_grow(folder, tmp_path, standing):
    """It is somebody else's."""
    (tmp_path / "a").write_bytes(standing)
    with pytest.raises(FileExistsError):
        extend(folder, "a", b"one")

    assert (tmp_path / "a").read_bytes() == standing


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/etc/passwd", path)])
def test_what_is_no_file_does_not_grow(folder, tmp_path, make):
    """Nor does anybody wait for it."""
    make(tmp_path / "a")

    with pytest.raises(OSError, match=r"exists|directory|symbolic"):
        extend(folder, "a", b"one")
