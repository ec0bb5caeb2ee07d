"""Images in archives and layouts: box's to the others, and theirs to box."""
import functools
import json
import os
import shutil
import tarfile

import interop_image as image
import interop_trees as trees
from interop_tools import Layout, layout, out, skopeo

# What a tool loses or adds by itself, or box: `(glob over the line of a difference, reason)`.
OUTPUT = [("/ mtime: 0 | *", "no layer says when the root directory was changed; a new directory has the time of its making")]
EMPTY = ("/base/far xattrs: {\"user.empty\": \"\"} | {}", "a PAX record without a value means to Go's older interface of tar that there is none")
# The root directory of an overlay mount is that of the topmost layer, made by the tool; what the layers below say of it counts
# no more (so it is in images that Docker has built itself, too).
ROOT = [("/ mode: \"751\" | \"755\"", "the topmost layer's directory, as Docker and containerd make it"),
        ("/ mtime: 0 | *", "the topmost layer's directory, new")]


def without(reason):
    """The lines of a tree in which the image's user attributes are missing."""
    where = (("/added/folder/file", "of-the-archive"), ("/added/folder/name", "of-the-archive"), ("/base", "of-a-directory"),
             ("/base/mode", "binary"), ("/copied/attributed", "of-the-context"), ("/empty", "dir"), ("/kept", "step"))
    return [(f"{path} xattrs: {{\"user.{name}\": \"*\"}} | {{}}", reason) for path, name in where]


KNOWN = {
    "docker": [EMPTY, *ROOT],
    "podman": [EMPTY, ("/ mode: \"751\" | \"555\"", "the topmost layer's directory, as Podman makes it"), ROOT[1]],
    "containerd": ROOT,
    "umoci": [EMPTY],
    "docker build": [
        EMPTY, ROOT[0],
        ("/* mtime: * | *", "box gives what a step writes a time that the inputs alone decide"),
        *((f"/{path} mode: \"4750\" | \"750\"", "the classic builder sets the owner last, and that takes setuid away")
          for path in ("copied/file", "owned")),
        *((f"/copied/{path} same file: [[]\"/copied/{path}\"[]] | *", "box takes no hard links from a context, for a clone of it has none")
          for path in ("below/file", "hard")),
        *without("the classic builder keeps of a step's attributes security.capability alone"),
    ],
    # Here umoci's is the second tree.
    "box load": [EMPTY, ("/ mtime: 0 | *", "umoci lists the root directory with a time, which box does not keep")],
    "docker export": [
        ("/: missing", "the root directory is not in the archive"),
        *((f"{path}: too much", "made for each container, to mount something on it") for path in
          ("/.dockerenv", "/dev", "/dev/console", "/dev/pts", "/dev/shm", "/etc/hostname", "/etc/hosts", "/etc/mtab", "/etc/resolv.conf",
           "/proc", "/sys")),
        ("/etc mtime: 1704067200 | *", "these files have been made in it"),
        *without("of the attributes only security.capability is exported"), EMPTY,
    ],
}


def compare(bench, found_id, tree, known=()):
    """An image of another tool's with box's."""
    wrong = [] if found_id == bench.id else [f"the id is {found_id}, not {bench.id}"]
    return wrong + trees.differences(bench.tree, tree, known)


def from_box(bench):
    """Cases: what box has saved is what the others load."""
    yield "box build: the image holds what it should", lambda: image.lacks(bench.tree)
    yield "box build -o DIR = box export", lambda: trees.differences(bench.tree, trees.from_directory(f"{bench.work}/built"), OUTPUT)
    yield "box save → box load", lambda: to_other_box(bench)

    def loaded(tool, tree=None, known=()):
        name = tool.load(bench.archive)
        wrong = [] if name.endswith("interop:1") else [f"the name is {name}"]
        return wrong + compare(bench, tool.id(name), (tree or tool.tree)(name), known)

    yield "box save → docker load, its layers", lambda: loaded(bench.docker, known=KNOWN["docker"])
    yield "box save → docker load, docker export", lambda: loaded(bench.docker, bench.docker.exported, KNOWN["docker export"])
    yield "box save → podman load", lambda: loaded(bench.podman, known=KNOWN["podman"])
    yield "box save → ctr image import", lambda: loaded(bench.containerd, known=KNOWN["containerd"])
    for kind in ("oci-archive", "docker-archive"):
        yield f"box save → skopeo copy {kind}: → umoci unpack", lambda: copied(bench, f"{kind}:{bench.archive}")
    yield "box save, unpacked as a layout → umoci unpack", lambda: as_layout(bench)


def to_other_box(bench):
    other = type(bench.box)(bench.box.program, bench.work, "other-store")
    found = other.load(bench.archive)
    return compare(bench, found, other.tree(found))


def copied(bench, source):
    found = layout(bench.work, source)
    found_id = found.id()
    if source.startswith("docker-archive:"):
        # For a layout skopeo writes the configuration anew, in OCI's form; in a directory Docker's format may stay.
        skopeo(source, f"dir:{found.path}.dir")
        with open(f"{found.path}.dir/manifest.json") as file:
            found_id = json.load(file)["config"]["digest"]
    return compare(bench, found_id, found.tree(), KNOWN["umoci"])


def saved_digest(bench):
    """Of the manifest in the archive."""
    with tarfile.open(bench.archive) as tar:
        return json.load(tar.extractfile("index.json"))["manifests"][0]["digest"]


def as_layout(bench):
    path = os.path.join(bench.work, "unpacked")
    os.makedirs(path)
    out(["tar", "-C", path, "-xf", bench.archive])
    with open(os.path.join(path, "index.json")) as file:
        tag = json.load(file)["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"]
    found = Layout(path, tag)
    return compare(bench, found.id(), found.tree(), KNOWN["umoci"])


def to_box(bench):
    """Cases: what the others have made and saved is what box loads."""
    yield "docker build = box build", lambda: built_alike(bench)
    makers = {"docker build": by_docker, "podman commit": by_podman, "umoci repack": by_umoci}
    for maker, make in makers.items():
        # Each is made once, when its first case needs it.
        made = functools.cache(functools.partial(make, bench))
        for how, save in SAVED[maker].items():
            yield f"{maker} → {how} → box load", functools.partial(load_theirs, bench, made, save)


def load_theirs(bench, made, save):
    theirs = made()
    archive, expected_id, reference = save(bench, theirs)
    found = bench.box.load(archive)
    wrong = [] if found == expected_id else [f"the id is {found}, not {expected_id}"]
    return wrong + trees.differences(bench.box.tree(found), reference.tree(), KNOWN["box load"])


def built_alike(bench):
    return trees.differences(bench.tree, bench.docker.tree(by_docker(bench)), KNOWN["docker build"])


def by_docker(bench):
    """The image of the same Boxfile, by the classic builder; its name."""
    bench.docker.load(bench.base_archive)
    bench.docker("build", "-q", "--network", "none", "-t", "localhost/docker:1", "-f", f"{bench.context}/Boxfile", bench.context,
                 DOCKER_BUILDKIT="0")
    return "localhost/docker:1"


def by_podman(bench):
    """Containers that did the steps, committed; the image's name."""
    name = bench.podman.load(bench.base_archive)
    for number, step in enumerate(image.STEPS):
        container = f"step-{number}"
        bench.podman.run(name, "sh", "-ec", step, keep=container)
        name = f"localhost/podman:{number}"
        bench.podman("commit", "-q", container, name)
        bench.podman("rm", container)
    return name


def by_umoci(bench):
    """A layout with a layer that umoci has made over the base."""
    base = layout(bench.work, f"oci-archive:{bench.base_archive}")
    bundle = base.unpack()
    for step in image.STEPS:
        out(["chroot", f"{bundle}/rootfs", "/bin/sh", "-ec", step])
    out(["umoci", "repack", "--image", f"{base.path}:made", bundle])
    out(["umoci", "config", "--image", f"{base.path}:made", "--config.cmd", "/bin/sh"])
    out(["umoci", "rm", "--image", f"{base.path}:{base.tag}"])
    shutil.rmtree(bundle)
    return Layout(base.path, "made")


# How what was made gets into an archive for box. Each gives (archive, the id it must have, what umoci unpacks to compare with).

def saved_by(tool, *args):
    """By docker or podman itself."""
    def save(bench, name):
        archive = bench.new_path("tar")
        tool(bench)("save", *args, "-o", archive, name)
        kind = "oci-archive" if "oci-archive" in args else "docker-archive"
        return archive, tool(bench).id(name), layout(bench.work, f"{kind}:{archive}")
    return save


def docker_by_skopeo(bench, name):
    archive = bench.new_path("tar")
    bench.docker("save", "-o", archive, name)
    return as_archive(layout(bench.work, f"docker-archive:{archive}"))


def as_archive(found):
    return found.archive(), found.id(), found


def by_skopeo_dir(bench, made):
    """Through a directory, which is no layout, into an archive."""
    skopeo(f"oci:{made.path}:{made.tag}", f"dir:{made.path}.dir")
    skopeo(f"dir:{made.path}.dir", f"oci-archive:{made.path}.oci.tar:localhost/umoci:1")
    return f"{made.path}.oci.tar", made.id(), made


def by_ctr(bench, made):
    archive = made.path + ".ctr.tar"
    bench.containerd("image", "import", "--base-name", "localhost/umoci", made.archive())
    bench.containerd("image", "export", archive, f"localhost/umoci:{made.tag}")
    return archive, made.id(), made


def docker_by_ctr(bench, name):
    imported, exported = (bench.new_path("tar") for _ in range(2))
    bench.docker("save", "-o", imported, name)
    bench.containerd("image", "import", imported)
    bench.containerd("image", "export", exported, name)
    return exported, bench.docker.id(name), layout(bench.work, f"docker-archive:{imported}")


SAVED = {
    "docker build": {
        "docker save": saved_by(lambda bench: bench.docker),
        "docker save, skopeo copy oci:": docker_by_skopeo,
        "docker save, ctr image import, export": docker_by_ctr,
    },
    "podman commit": {
        "podman save --format oci-archive": saved_by(lambda bench: bench.podman, "-q", "--format", "oci-archive"),
        "podman save --format docker-archive": saved_by(lambda bench: bench.podman, "-q", "--format=docker-archive"),
    },
    "umoci repack": {
        "its layout": lambda _, made: as_archive(made),
        "skopeo copy oci:": lambda bench, made: as_archive(layout(bench.work, f"oci:{made.path}:{made.tag}")),
        "skopeo copy dir:, oci-archive:": by_skopeo_dir,
        "ctr image import, export": by_ctr,
    },
}
