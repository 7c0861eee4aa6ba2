"""Digests of images: all images have one or none has, and the command that writes them asks docker."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.images import DIGEST, files, images_in, pin

OLD, NEW = (f"sha256:{digit * 64}" for digit in "01")


def test_all_images_have_a_digest_or_none_has() -> None:
    """Once one image is pinned by its digest, all are, and each tag by one digest in all files."""
    found = images_in("\n".join(file.read_text(encoding="utf-8") for file in files()))
    assert all(len(digests) == 1 for digests in found.values()), found
    (every,) = (set.union(*found.values()),)
    assert every == {""} or all(map(DIGEST.fullmatch, every)), found


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Copy the files to a folder, the first image with an old digest."""
    for file in files():
        shutil.copy(file, tmp_path)
    dockerfile, _ = files(tmp_path)
    text = dockerfile.read_text(encoding="utf-8")
    (image,) = images_in(text)
    dockerfile.write_text(text.replace(f"FROM {image}", f"FROM {image}@{OLD}", 1), encoding="utf-8")
    return tmp_path


def a_docker(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    docker = folder / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{docker.parent}:/usr/bin:/bin")


def test_every_image_gets_the_digest_of_its_tag(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tag gets the digest that docker names for it, and an older one is replaced; nothing else changes."""
    a_docker(checkout, monkeypatch, f'test "$1 $2 $3" = "buildx imagetools inspect" && echo {NEW}')
    pin(checkout)
    pin(checkout)
    for ours, pinned in zip(files(), files(checkout), strict=True):
        text = pinned.read_text(encoding="utf-8")
        assert all(digests == {NEW} for digests in images_in(text).values())
        assert without_digests(text) == without_digests(ours.read_text(encoding="utf-8"))


def without_digests(text: str) -> str:
    return re.sub(f"@{DIGEST.pattern}", "", text)


@pytest.mark.parametrize("script", ["exit 1", "echo latest", "echo"])
def test_what_is_no_digest_is_not_written(checkout: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """When docker fails or names no digest for one of the images, no file changes."""
    a_docker(checkout, monkeypatch, f'case "$4" in grafana*) {script};; *) echo {NEW};; esac')
    before = [file.read_text(encoding="utf-8") for file in files(checkout)]
    with pytest.raises(ValueError, match="docker gives no digest of grafana"):
        pin(checkout)
    assert [file.read_text(encoding="utf-8") for file in files(checkout)] == before
