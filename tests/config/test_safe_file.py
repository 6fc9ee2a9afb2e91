"""Replacing a config file: old bytes or new ones at any moment, all that belongs to the file kept, undo to the byte."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from perfnb.config.safe_file import LARGEST_BYTES, MOST_BACKUPS, backups_of, read_bytes, replace_bytes, restore_bytes
from perfnb.errors import ConfigError, ConfigFileError, StaleChange

OLD, NEW = b'{"num_workers": 0}\n', b'{"num_workers": 4}\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "train.json"
    path.write_bytes(OLD)
    return path


def test_the_old_bytes_lie_in_a_backup_beside_the_file_until_they_are_put_back(file: Path) -> None:
    backup = replace_bytes(file, OLD, NEW)

    assert (file.read_bytes(), backup.read_bytes(), backup.parent) == (NEW, OLD, file.parent)

    restore_bytes(file, NEW)

    assert file.read_bytes() == OLD
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o755])
def test_the_mode_bits_stay_as_they_are(file: Path, mode: int) -> None:
    file.chmod(mode)

    backup = replace_bytes(file, OLD, NEW)

    assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE(backup.stat().st_mode) == mode
    restore_bytes(file, NEW)
    assert stat.S_IMODE(file.stat().st_mode) == mode


def test_attributes_of_the_file_stay(file: Path) -> None:
    try:
        os.setxattr(file, "user.note", b"mine")
    except OSError:
        pytest.skip("this file system has no attributes")

    replace_bytes(file, OLD, NEW)

    assert os.getxattr(file, "user.note") == b"mine"


def test_of_several_changes_each_undo_takes_the_latest_back(file: Path) -> None:
    states = [b"1", b"2", b"1", b"2", b"3"]
    for before, after in zip([OLD, *states], states, strict=False):
        replace_bytes(file, before, after)

    seen = []
    while file.read_bytes() != OLD:
        restore_bytes(file, file.read_bytes())
        seen.append(file.read_bytes())

    assert seen == [b"2", b"1", b"2", b"1", OLD]


def test_no_more_backups_are_kept_than_are_said(file: Path) -> None:
    now = OLD
    for number in range(MOST_BACKUPS + 5):
        replace_bytes(file, now, str(number).encode())
        now = str(number).encode()

    assert len(backups_of(file)) == MOST_BACKUPS
    for _ in range(MOST_BACKUPS):
        restore_bytes(file, file.read_bytes())
    assert file.read_bytes() == b"4"


def test_a_file_that_was_edited_since_it_was_read_is_left_alone(file: Path) -> None:
    file.write_bytes(b"edited")

    with pytest.raises(StaleChange, match="was edited since it was read: nothing was written"):
        replace_bytes(file, OLD, NEW)

    assert file.read_bytes() == b"edited"
    assert list(file.parent.iterdir()) == [file]


def test_undo_does_not_lose_an_edit_by_hand(file: Path) -> None:
    replace_bytes(file, OLD, NEW)
    file.write_bytes(b"edited")

    with pytest.raises(StaleChange, match=r"would lose the edit: what it held before is in .*train\.json\.perfnb-0001"):
        restore_bytes(file, b"edited")

    assert file.read_bytes() == b"edited"


def test_without_a_backup_there_is_nothing_to_take_back(file: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to take back"):
        restore_bytes(file, OLD)


def test_a_link_stays_and_the_file_behind_it_is_replaced(file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "links"
    folder.mkdir()
    (folder / "one.json").symlink_to("two.json")
    (folder / "two.json").symlink_to(file)

    backup = replace_bytes(folder / "one.json", OLD, NEW)

    assert (folder / "one.json").is_symlink()
    assert (folder / "one.json").readlink() == Path("two.json")
    assert not file.is_symlink()
    assert file.read_bytes() == NEW
    assert backup.parent == file.parent
    restore_bytes(folder / "one.json", NEW)
    assert file.read_bytes() == OLD


def test_what_is_no_file_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "dangling.json").symlink_to("nowhere.json")
    (tmp_path / "loop.json").symlink_to("loop.json")
    os.mkfifo(tmp_path / "pipe.json")

    for name, words in {
        "none.json": "there is no file",
        "missing/none.json": "there is no file",
        "dangling.json": r"there is no file .*, a link to nowhere\.json",
        "loop.json": "cannot be read",
        "pipe.json": "is no ordinary file",
        ".": "is a folder",
        "nul\0.json": "cannot be read",
    }.items():
        with pytest.raises(ConfigError, match=words):
            read_bytes(tmp_path / name)


def test_a_huge_file_is_no_config(file: Path) -> None:
    with file.open("wb") as opened:
        opened.truncate(LARGEST_BYTES + 1)

    with pytest.raises(ConfigError, match="is larger than 16 MiB"):
        read_bytes(file)


def test_a_read_only_file_is_left_alone_even_where_the_user_could_write_it(file: Path) -> None:
    file.chmod(0o444)

    with pytest.raises(ConfigFileError, match=r"is read-only: allow writing \(chmod u\+w\)"):
        replace_bytes(file, OLD, NEW)

    assert file.read_bytes() == OLD


def test_a_file_of_two_names_is_not_split(file: Path) -> None:
    (file.parent / "second.json").hardlink_to(file)

    with pytest.raises(ConfigFileError, match=r"has 2 names \(hard links\)"):
        replace_bytes(file, OLD, NEW)

    assert (file.parent / "second.json").read_bytes() == OLD


def test_what_the_system_refuses_leaves_the_file_and_no_litter(tmp_path: Path) -> None:
    file = tmp_path / f"{'n' * 240}.json"  # its backup's name is longer than file systems take
    file.write_bytes(OLD)

    with pytest.raises(ConfigFileError, match=r"cannot be written: .*; it is as it was"):
        replace_bytes(file, OLD, NEW)

    assert file.read_bytes() == OLD
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_takes_no_files_is_said(file: Path) -> None:
    file.parent.chmod(0o555)
    try:
        with pytest.raises(ConfigFileError, match="cannot be written: Permission denied"):
            replace_bytes(file, OLD, NEW)
    finally:
        file.parent.chmod(0o755)


def test_another_process_that_is_at_work_is_waited_for_and_then_said(file: Path) -> None:
    descriptor = os.open(file.parent, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(ConfigFileError, match="is being changed by another process"):
            replace_bytes(file, OLD, NEW)
    finally:
        os.close(descriptor)

    replace_bytes(file, OLD, NEW)
    assert file.read_bytes() == NEW


def test_of_writers_at_once_one_wins_and_the_others_hear_of_it(file: Path) -> None:
    outcomes: list[str] = []
    together = threading.Barrier(8)

    def write(number: int) -> None:
        together.wait()
        try:
            replace_bytes(file, OLD, str(number).encode())
        except StaleChange:
            outcomes.append("stale")
        else:
            outcomes.append(str(number))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert outcomes.count("stale") == 7
    assert file.read_bytes().decode() in outcomes
    assert len(backups_of(file)) == 1


def test_what_a_killed_process_left_lying_goes_when_it_is_an_hour_old(file: Path) -> None:
    old, young = file.parent / ".perfnb-abcdefgh.tmp", file.parent / ".perfnb-12345678.tmp"
    for each in (old, young):
        each.write_bytes(b"half")
    os.utime(old, (0, 0))

    replace_bytes(file, OLD, NEW)

    assert (old.exists(), young.exists()) == (False, True)


KILLED = """
import os, signal, sys, warnings
from pathlib import Path
from perfnb.config.safe_file import replace_bytes, restore_bytes

warnings.simplefilter("ignore")
folder, old, new, what = Path(sys.argv[1]), sys.argv[2].encode(), sys.argv[3].encode(), sys.argv[4]
file = folder / "train.json"
for number in range(1000):
    for each in folder.iterdir():
        each.unlink()
    file.write_bytes(old)
    if what == "restore":
        replace_bytes(file, old, new)
    child = os.fork()
    if child == 0:
        left = number
        def watch(event, arguments):
            global left
            left -= 1
            if left == -1:
                os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(watch)
        replace_bytes(file, old, new) if what == "replace" else restore_bytes(file, new)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    held = file.read_bytes()
    assert held in (old, new), (number, held)
    if what == "replace" and held == new:
        restore_bytes(file, new)
        assert file.read_bytes() == old
    else:
        replace_bytes(file, held, b"next")
        restore_bytes(file, b"next")
        assert file.read_bytes() == held
    print(number, held == new, status)
    if status == 0:
        break
"""


@pytest.mark.parametrize("what", ["replace", "restore"])
def test_killed_at_any_moment_the_file_holds_the_old_bytes_or_the_new_and_undo_still_works(tmp_path: Path, what: str) -> None:
    """A child is killed at its first call into the system, then at its second, and so on until it comes through."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), OLD.decode(), NEW.decode(), what],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-2000:]
    rows = [line.split() for line in done.stdout.splitlines()]
    assert len(rows) > 10
    assert {new for _, new, _ in rows} == {"True", "False"}
    assert [status for _, _, status in rows] == ["9"] * (len(rows) - 1) + ["0"]
