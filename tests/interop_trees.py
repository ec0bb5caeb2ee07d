"""Merged root file systems as facts, from a tar or from a directory, and what differs between two of them.

Of each path: type, mode, owner, size, SHA-256 of the content, link target, device numbers, extended attributes, the whole second of
its modification time, and which names are one file. Names are text with `surrogateescape`, so that any bytes survive.
"""
import fnmatch
import hashlib
import json
import os
import posixpath
import stat
import tarfile

KINDS = {tarfile.DIRTYPE: "directory", tarfile.SYMTYPE: "link", tarfile.FIFOTYPE: "fifo", tarfile.CHRTYPE: "char", tarfile.BLKTYPE: "block"}
XATTR = "SCHILY.xattr."
# Patterns of known differences that were met.
SEEN = set()


def from_tar(path):
    """The tree in a tar of a whole root file system."""
    tree = {}
    with tarfile.open(path, errors="surrogateescape", encoding="utf-8") as tar:
        for member in tar:
            name = posixpath.normpath("/" + member.name.lstrip("/"))
            tree[name] = tree[posixpath.normpath("/" + member.linkname.lstrip("/"))] if member.islnk() else of_member(tar, member)
    return with_groups(tree, {name: id(facts) for name, facts in tree.items()})


def of_member(tar, member):
    xattrs = {key[len(XATTR):]: value.encode("utf-8", "surrogateescape").hex() for key, value in member.pax_headers.items() if key.startswith(XATTR)}
    facts = {"type": KINDS.get(member.type, "file"), "mode": f"{member.mode & 0o7777:o}", "owner": f"{member.uid}:{member.gid}",
             "mtime": int(member.mtime // 1), "xattrs": xattrs}
    if facts["type"] == "link":
        # Links have no mode of their own.
        facts |= {"target": member.linkname, "mode": "777"}
    elif facts["type"] in ("char", "block"):
        facts["device"] = f"{member.devmajor}:{member.devminor}"
    elif facts["type"] == "file":
        facts |= content(tar.extractfile(member))
    return facts


def content(file):
    digest, size = hashlib.sha256(), 0
    while block := file.read(1 << 20):
        digest.update(block)
        size += len(block)
    return {"size": size, "sha256": digest.hexdigest()}


def from_directory(top):
    """The tree below a directory, which is itself `/`."""
    tree, inodes, waiting = {}, {}, [""]
    while waiting:
        below = waiting.pop()
        path = os.path.join(top, below) if below else top
        name = "/" + below
        tree[name], inodes[name] = of_path(path)
        if tree[name]["type"] == "directory":
            waiting += [posixpath.join(below, entry) for entry in os.listdir(path)]
    return with_groups(tree, inodes)


def of_path(path):
    is_ = os.lstat(path)
    kind = {stat.S_IFDIR: "directory", stat.S_IFLNK: "link", stat.S_IFIFO: "fifo", stat.S_IFCHR: "char", stat.S_IFBLK: "block",
            stat.S_IFREG: "file"}[stat.S_IFMT(is_.st_mode)]
    xattrs = {key: os.getxattr(path, key, follow_symlinks=False).hex() for key in os.listxattr(path, follow_symlinks=False)}
    facts = {"type": kind, "mode": f"{stat.S_IMODE(is_.st_mode):o}", "owner": f"{is_.st_uid}:{is_.st_gid}", "mtime": is_.st_mtime_ns // 10**9,
             "xattrs": xattrs}
    if kind == "link":
        facts |= {"target": os.readlink(path), "mode": "777"}
    elif kind in ("char", "block"):
        facts["device"] = f"{os.major(is_.st_rdev)}:{os.minor(is_.st_rdev)}"
    elif kind == "file":
        with open(path, "rb") as file:
            facts |= content(file)
    return facts, (is_.st_dev, is_.st_ino)


def with_groups(tree, files):
    """Each path's facts with the names that are the same file, `files` telling one from another."""
    groups = {}
    for name in tree:
        groups.setdefault(files[name], []).append(name)
    return {name: facts | {"same file": sorted(groups[files[name]])} for name, facts in tree.items()}


def differences(one, other, known=()):
    """Lines for what differs and is not among the known: `(pattern, reason)`, the pattern a glob over the line."""
    lines = []
    for path in sorted(set(one) | set(other)):
        if path not in one or path not in other:
            lines.append(f"{path}: {'missing' if path in one else 'too much'}")
            continue
        for fact in sorted(set(one[path]) | set(other[path])):
            here, there = one[path].get(fact), other[path].get(fact)
            if here != there:
                lines.append(f"{path} {fact}: {json.dumps(here)} | {json.dumps(there)}")
    return [line for line in lines if not is_known(line, known)]


def is_known(line, known):
    found = {pattern for pattern, _ in known if fnmatch.fnmatchcase(line, pattern)}
    SEEN.update(found)
    return bool(found)
