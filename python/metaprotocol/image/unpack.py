"""Unpacking archives of others: nothing outside the folder, and the rights that files have.

The filters of ``tarfile`` take rights away that /tmp, for one, must have, and Debian 12's Python is
older than they are.
"""

from __future__ import annotations

import tarfile
from pathlib import Path


def unpack(archive: tarfile.TarFile, folder: Path) -> None:
    """Puts all files, links and folders of the archive into the folder. TarError if one would lie
    outside, or is none of these."""
    root = folder.resolve()
    folders = []
    for member in archive:
        member.name = member.name.lstrip("/")
        target = root / member.name
        inside = target.parent.resolve().is_relative_to(root) and ".." not in target.parts
        if member.islnk():
            member.linkname = member.linkname.lstrip("/")
            inside = inside and (root / member.linkname).resolve().is_relative_to(root)
        if not inside:
            raise tarfile.TarError(f"{member.name!r} would lie outside the folder")
        if not (member.isfile() or member.isdir() or member.issym() or member.islnk()):
            raise tarfile.TarError(f"{member.name!r} is no file, link or folder")
        if target.is_symlink() and not member.isdir():
            target.unlink()  # what it shows to is not written through it
        if member.isdir():
            folders.append((target, member.mode & 0o7777))
        # No filter: what they would look for is checked above.
        member_filter = {"filter": "fully_trusted"} if hasattr(tarfile, "tar_filter") else {}
        archive.extract(member, root, set_attrs=not member.isdir(), **member_filter)  # type: ignore[arg-type]
    # Last, since a folder may be one that nothing can be put into.
    for target, mode in reversed(folders):
        if not target.is_symlink():
            target.chmod(mode)
