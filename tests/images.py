"""Digests of the images in Dockerfile and docker-compose.yml: ``python -m tests.images`` asks docker for them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
IMAGE = re.compile(r"(?m)^(FROM|\s+image:) ([\w./-]+:[\w.-]+)(@\S+)?")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
SECONDS = 60.0


def files(root: Path = ROOT) -> list[Path]:
    """Return the files that name images."""
    return [root / "Dockerfile", root / "docker-compose.yml"]


def images_in(text: str) -> dict[str, set[str]]:
    """Return the digests of each image with its tag; an empty one where it has none."""
    found: dict[str, set[str]] = {}
    for _, image, digest in IMAGE.findall(text):
        found.setdefault(image, set()).add(digest.removeprefix("@"))
    return found


def digest_of(image: str) -> str:
    """Ask docker for the digest of a tag: that of the list of its platforms. Raises ValueError without one."""
    done = subprocess.run(
        ["docker", "buildx", "imagetools", "inspect", image, "--format", "{{.Manifest.Digest}}"],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    digest = done.stdout.strip()
    if done.returncode or not DIGEST.fullmatch(digest):
        raise ValueError(f"docker gives no digest of {image}: {done.stderr.strip() or digest or 'no answer'}")
    return digest


def pin(root: Path = ROOT) -> None:
    """Write the digest of each tag behind it, in all files or in none."""
    texts = {file: file.read_text(encoding="utf-8") for file in files(root)}
    digests = {image: digest_of(image) for text in texts.values() for image in images_in(text)}
    for file, text in texts.items():
        file.write_text(IMAGE.sub(lambda found: f"{found[1]} {found[2]}@{digests[found[2]]}", text), encoding="utf-8")
    for image, digest in sorted(digests.items()):
        print(f"{image}@{digest}")


if __name__ == "__main__":
    try:
        pin()
    except (ValueError, OSError, subprocess.TimeoutExpired) as error:
        sys.exit(f"pin-images: nothing was changed: {error}")
