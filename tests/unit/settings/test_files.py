"""Encodings of the files that settings come from, and who may write them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from consumer.errors import SettingsError
from consumer.settings import files
from consumer.settings.files import read_text, read_value, require_no_other_writer
from tests.unit.settings.loading import loaded, refusal

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
TEXT = '[kafka]\ngroup_id = "grüße"\n'


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_settings_file_in_any_unicode_encoding(tmp_path: Path, encoding: str, ends: str) -> None:
    """A settings file is read in UTF-8, UTF-16 or UTF-32, with or without a mark, with either end of line."""
    file = tmp_path / "settings.toml"
    file.write_bytes(TEXT.replace("\n", ends).encode(encoding))
    assert loaded(file=file).settings.kafka.group_id == "grüße"


@pytest.mark.parametrize("content", [b"a = 1\nb = '\xe9'", b"\xff\xfea", b"\xef\xbb\xbf\n\xff"], ids=repr)
def test_another_encoding_is_named_with_its_line(tmp_path: Path, content: bytes) -> None:
    """A file in another encoding is an error with the line and the encoding to use, without any of its bytes."""
    file = tmp_path / "settings.toml"
    file.write_bytes(content)
    message = refusal(file=file)
    assert str(file) in message
    assert "save the file as UTF-8" in message
    assert "\\x" not in message
    with pytest.raises(ValueError, match=r"line \d is not UTF-"):
        read_text(file)


def test_only_the_end_of_the_line_is_dropped(tmp_path: Path) -> None:
    """Spaces of a value in a file belong to it."""
    file = tmp_path / "value"
    file.write_bytes(b" a \r\n\n")
    assert read_value(file) == " a "


def make_file(path: Path) -> None:
    path.write_text("")


@pytest.mark.parametrize("make", [make_file, Path.mkdir], ids=["file", "folder"])
@pytest.mark.parametrize(("mode", "who"), [(0o664, "its group"), (0o666, "every user"), (0o777, "every user")])
def test_what_others_may_write_is_refused(tmp_path: Path, make: Callable[[Path], None], mode: int, who: str) -> None:
    """A file or folder that others may write is refused with the two ways out; one that only its owner may passes."""
    path = tmp_path / "it"
    make(path)
    os.chown(path, 0, 0) if os.geteuid() == 0 else os.chown(path, -1, os.getgid())
    path.chmod(0o755)
    require_no_other_writer(path, "it")
    path.chmod(mode)
    if os.geteuid() != 0 and mode == 0o664 and os.getuid() == os.getgid():
        return  # the owner's own group
    with pytest.raises(SettingsError, match=f"it can be written by {who}.* chmod go-w .*ALLOW_WRITABLE=true"):
        require_no_other_writer(path, "it")


def test_a_config_map_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link to a file of mode 0644 passes, and so does a folder of mode 0777 that is mounted read-only."""
    data = tmp_path / "..data"
    data.mkdir()
    (data / "settings.toml").write_text(TEXT)
    (data / "settings.toml").chmod(0o644)
    (tmp_path / "settings.toml").symlink_to("..data/settings.toml")
    tmp_path.chmod(0o777)
    assert loaded(file=tmp_path / "settings.toml").settings.kafka.group_id == "grüße"
    monkeypatch.setattr(files, "_is_read_only", lambda path: path == tmp_path)
    require_no_other_writer(tmp_path, "path")


def test_a_writable_settings_file_is_refused_unless_allowed(tmp_path: Path) -> None:
    """The environment and --set allow a writable settings file; the file itself cannot."""
    file = tmp_path / "settings.toml"
    file.write_text(f"allow_writable = true\n{TEXT}")
    file.chmod(0o666)
    assert f"settings file {file} can be written by every user" in refusal(file=file)
    assert loaded(file=file, ALLOW_WRITABLE="true").settings.kafka.group_id == "grüße"
    assert loaded("allow_writable=1", file=file).settings.allow_writable is True
    assert "every user" in refusal("allow_writable=false", file=file, ALLOW_WRITABLE="true")
