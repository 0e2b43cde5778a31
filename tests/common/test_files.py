"""Files: atomic writes, locks, regular files only, versions."""

import os
import subprocess
import sys

import pytest

from sb3_mirl.common.files import is_locked, locked, open_regular, package_versions, write_whole


def test_write_whole_creates_the_folder_and_replaces_the_content(tmp_path):
    path = tmp_path / "new" / "file"
    write_whole(path, b"first")
    write_whole(path, b"second")
    assert path.read_bytes() == b"second" and [*path.parent.iterdir()] == [path]


def test_a_failed_write_leaves_the_old_content_and_no_other_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_whole(path, b"old")

    def full(descriptor):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old" and [*tmp_path.iterdir()] == [path]


def test_a_lock_excludes_a_second_holder_and_ends_with_the_context(tmp_path):
    file = tmp_path / "lock"
    with locked(file) as first:
        with locked(file) as second:
            assert (first, second, is_locked(file)) == (True, False, True)
    assert not is_locked(file)
    with locked(file) as again:
        assert again


def test_is_locked_needs_read_permission_only_and_no_file(tmp_path):
    assert not is_locked(tmp_path / "absent")
    file = tmp_path / "lock"
    file.touch(mode=0o444)
    assert not is_locked(file) and not is_locked(file)


def test_a_lock_ends_with_its_process(tmp_path):
    file = tmp_path / "lock"
    code = "import os, pathlib, sys; from sb3_mirl.common.files import locked; "
    code += "context = locked(pathlib.Path(sys.argv[1])); print(context.__enter__(), flush=True); os._exit(1)"
    process = subprocess.run([sys.executable, "-c", code, str(file)], check=False, capture_output=True, text=True)
    assert process.stdout == "True\n" and file.exists() and not is_locked(file)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_named_pipes_and_folders_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, error in (("pipe", OSError), ("", IsADirectoryError)):
        with pytest.raises(error):
            open(tmp_path / name, "rb", opener=open_regular)


def test_versions_are_of_installed_packages_only():
    versions = package_versions("numpy", "no-such-package")
    assert versions.keys() == {"numpy"} and versions["numpy"][0].isdigit()
