#!/usr/bin/env python3
"""What differs between two images: merged root file systems and configurations.

  image_diff.py A B     A and B: OCI archives or `docker save` archives, plain tar

Compared of each path: type, mode, owner, size, content, link target, device numbers, extended attributes, and which names are one file.
Compared of the configuration: what a container is started with. Never compared: times, digests, history, the number of layers.
"""
import gzip
import hashlib
import io
import json
import posixpath
import sys
import tarfile

CONFIG = ("Env", "Cmd", "Entrypoint", "WorkingDir", "User", "ExposedPorts", "Labels", "Volumes", "StopSignal", "Healthcheck",
          "OnBuild", "Shell")
TYPES = {tarfile.DIRTYPE: "directory", tarfile.SYMTYPE: "link", tarfile.FIFOTYPE: "fifo", tarfile.CHRTYPE: "char", tarfile.BLKTYPE: "block"}
XATTR = "SCHILY.xattr."


class Archive:
    """An OCI or Docker archive."""

    def __init__(self, path):
        self.tar = tarfile.open(path)
        self.members = {posixpath.normpath(member.name): member for member in self.tar}
        if "oci-layout" in self.members:
            index = self.json("index.json")
            while "config" not in index:
                index = self.json(self.blob(index["manifests"][0]))
            config, self.layers = self.blob(index["config"]), [self.blob(layer) for layer in index["layers"]]
        else:
            manifest = self.json("manifest.json")[0]
            config, self.layers = manifest["Config"], manifest["Layers"]
        self.config = self.json(config)

    @staticmethod
    def blob(descriptor):
        return "blobs/" + descriptor["digest"].replace(":", "/", 1)

    def read(self, name):
        member = self.members[posixpath.normpath(name)]
        while member.issym():
            member = self.members[posixpath.normpath(posixpath.join(posixpath.dirname(member.name), member.linkname))]
        return self.tar.extractfile(member).read()

    def json(self, name):
        return json.loads(self.read(name))


class Bare:
    """An image without layers, of which nothing but the configuration is there."""

    def __init__(self, config):
        self.config, self.layers = config, []


def merged(archive):
    """path -> facts; names of one file share one dict"""
    tree = {"": {"type": "directory", "mode": "755", "owner": "0:0", "xattrs": {}}}
    for name in archive.layers:
        data = archive.read(name)
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            apply(tree, tar)
    return tree


def apply(tree, tar):
    """One layer. Whiteouts count for what is below it, wherever they stand in the archive."""
    members = list(tar)
    for member in members:
        folder, name = posixpath.split(posixpath.normpath(member.name).lstrip("/"))
        if name == ".wh..wh..opq":
            remove(tree, folder, keep_itself=True)
        elif name.startswith(".wh."):
            remove(tree, posixpath.join(folder, name[4:]))
    for member in members:
        path = posixpath.normpath(member.name).lstrip("/")
        path = "" if path == "." else path
        if posixpath.basename(path).startswith(".wh."):
            continue
        found = tree[posixpath.normpath(member.linkname).lstrip("/")] if member.islnk() else facts(tar, member)
        if found["type"] != "directory" or tree.get(path, found)["type"] != "directory":
            remove(tree, path)
        for parent in parents(path):
            tree.setdefault(parent, {"type": "directory", "mode": "755", "owner": "0:0", "xattrs": {}})
        tree[path] = found


def parents(path):
    while path:
        path = posixpath.dirname(path)
        yield path


def remove(tree, path, keep_itself=False):
    below = [one for one in tree if one.startswith(path + "/" if path else "") and one]
    for one in below if keep_itself else [*below, path]:
        tree.pop(one, None)


def facts(tar, member):
    pax = {key[len(XATTR):]: value.encode("utf-8", "surrogateescape").hex() for key, value in member.pax_headers.items()
           if key.startswith(XATTR)}
    found = {"type": TYPES.get(member.type, "file"), "mode": f"{member.mode & 0o7777:o}", "owner": f"{member.uid}:{member.gid}", "xattrs": pax}
    if found["type"] == "link":
        return found | {"target": member.linkname, "mode": "777"}
    if found["type"] in ("char", "block"):
        return found | {"device": f"{member.devmajor}:{member.devminor}"}
    if found["type"] == "file":
        data = tar.extractfile(member).read()
        return found | {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return found


def listing(archive):
    tree = merged(archive)
    groups = {}
    for path, found in tree.items():
        groups.setdefault(id(found), []).append(path)
    return {"/" + path: found | {"same file": sorted(groups[id(found)])[1:]} for path, found in tree.items()}


def settings(archive):
    """The configuration, empty values and spellings of the default left out."""
    config = archive.config.get("config") or {}
    kept = {key: config.get(key) or None for key in CONFIG}
    kept["WorkingDir"] = None if kept["WorkingDir"] == "/" else kept["WorkingDir"]
    kept["Env"] = sorted(kept["Env"] or [])
    return kept


def differences(first, second):
    """Lines, one for each fact that differs between two archives; empty: the images are the same."""
    lines = []
    for what, one, other in (("", listing(first), listing(second)), ("config ", settings(first), settings(second))):
        for key in sorted(set(one) | set(other)):
            lines += describe(what + key, one.get(key), other.get(key))
    return lines


def describe(key, one, other):
    if one == other:
        return []
    if isinstance(one, dict) and isinstance(other, dict):
        return [line for part in sorted(set(one) | set(other)) for line in describe(f"{key} {part}", one.get(part), other.get(part))]
    return [f"{key}: {json.dumps(one)} | {json.dumps(other)}"]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    found = differences(*map(Archive, sys.argv[1:]))
    print(*found, sep="\n" if found else "")
    sys.exit(1 if found else 0)
