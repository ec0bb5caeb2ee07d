"""Lists every entry of every layer of an OCI archive, with its extended attributes in hex. Usage: layer_xattrs.py ARCHIVE"""
import io
import json
import sys
import tarfile

archive = tarfile.open(sys.argv[1])


def blob(digest):
    return archive.extractfile("blobs/" + digest.replace(":", "/")).read()


index = json.load(archive.extractfile("index.json"))
manifest = json.loads(blob(index["manifests"][0]["digest"]))
for layer in manifest["layers"]:
    for entry in tarfile.open(fileobj=io.BytesIO(blob(layer["digest"]))):
        print(entry.name)
        for name, value in sorted(entry.pax_headers.items()):
            if name.startswith("SCHILY.xattr."):
                value = value.encode("utf-8", "surrogateescape")
                print(entry.name, name.removeprefix("SCHILY.xattr."), value.hex())
