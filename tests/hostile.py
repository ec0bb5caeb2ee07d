"""Writes a hostile rootfs archive. Usage: hostile.py CASE FILE CANARY-DIRECTORY"""
import io
import sys
import tarfile

case, path, canary = sys.argv[1:4]
out = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)


def add(name, kind=tarfile.REGTYPE, link="", data=b"evil", mode=0o644, **fields):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.mode = kind, link, mode
    for field, value in fields.items():
        setattr(entry, field, value)
    if kind == tarfile.REGTYPE:
        entry.size = len(data)
    out.addfile(entry, io.BytesIO(data) if kind == tarfile.REGTYPE else None)


def cut(at):
    out.close()
    with open(path, "r+b") as file:
        file.truncate(at)
    sys.exit()


def patch_size(size):
    """The header says one size, the PAX record before it another."""
    add("a", data=b"x" * 1024, pax_headers={"size": str(size)})


cases = {
    "absolute-through-link": lambda: (add("link", tarfile.SYMTYPE, canary), add("/link/new")),
    "dotdot": lambda: add("../../../../../../" + canary + "/new"),
    "dotdot-inside": lambda: (add("a", tarfile.DIRTYPE, mode=0o755), add("a/../../new")),
    "symlink-then-file": lambda: (add("x", tarfile.SYMTYPE, "../" * 20 + canary), add("x/new")),
    "symlink-absolute-then-file": lambda: (add("x", tarfile.SYMTYPE, canary), add("x/file")),
    "hardlink-out": lambda: (add("x", tarfile.LNKTYPE, canary + "/file"), add("x")),
    "hardlink-dotdot": lambda: add("x", tarfile.LNKTYPE, "../" * 20 + canary + "/file"),
    "hardlink-through-symlink": lambda: (add("d", tarfile.SYMTYPE, canary), add("x", tarfile.LNKTYPE, "d/file")),
    "whiteout-dot": lambda: (add("d", tarfile.DIRTYPE, mode=0o755), add("d/.wh.")),
    "whiteout-dotdot": lambda: (add("d", tarfile.DIRTYPE, mode=0o755), add("d/.wh...")),
    "whiteout-of-parent": lambda: add(".wh..", data=b""),
    "pax-size-conflict": lambda: patch_size(1 << 40),
    "truncated": lambda: (add("a", data=b"x" * 100000), cut(50000)),
    "huge-uid": lambda: add("a", pax_headers={"uid": str(1 << 40)}),
    "long-name": lambda: add("/".join(["n" * 200] * 60)),
    "device": lambda: add("dev/disk", tarfile.BLKTYPE, devmajor=254, devminor=0),
    "busybox-with-device": lambda: add("disk", tarfile.BLKTYPE, devmajor=254, devminor=0, mode=0o666),
}
cases[case]()
out.close()
