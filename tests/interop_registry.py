"""Images over a registry: pushed by box and pulled by the others, pushed by the others and pulled by box."""
import functools
import hashlib
import json
import os

import interop_archives
import interop_image as image
import interop_tools as tools
import interop_trees as trees
from interop_archives import KNOWN

# What Dockers before 23 say of a layer in zstd.
NO_ZSTD = "invalid tar header"


def cases(bench):
    for how in ("gzip", "zstd", "none"):
        pushed = functools.cache(functools.partial(push, bench, how))
        yield f"box push --compression {how} → docker pull, docker run", functools.partial(pull_by_docker, bench, how, pushed)
        yield f"box push --compression {how} → podman pull, podman run", functools.partial(pull_and_run, bench, bench.podman, "podman", pushed)
        yield f"box push --compression {how} → skopeo copy → umoci unpack", functools.partial(copy, bench, pushed)
        yield f"box push --compression {how} → box pull, box run", functools.partial(pull_by_box, bench, pushed)
    for tool, pushes in (("docker", push_by_docker), ("podman", push_by_podman), ("skopeo", push_by_skopeo)):
        yield f"{tool} push → box pull, box run", functools.partial(pulled_from, bench, pushes)
    yield "docker build → docker push → box pull, box run", lambda: pull_what_docker_built(bench)
    index = functools.cache(functools.partial(make_index, bench))
    for tool, pulls in PLATFORM_PULLS.items():
        yield f"an index of two platforms → {tool}", functools.partial(both_platforms, index, functools.partial(pulls, bench))
    yield "an index of two platforms → skopeo copy --all → box pull --platform", lambda: copied_index(bench, index)


def push(bench, how):
    """(name, digest) of box's image in the registry."""
    name = f"{bench.registry.host}/from-box/{how}:1"
    digest = bench.box("push", "-q", "--compression", how, bench.name, name)
    there, manifest = bench.registry.manifest(f"from-box/{how}", "1")
    wanted = "application/vnd.oci.image.layer.v1.tar" + {"none": ""}.get(how, "+" + how)
    kinds = {layer["mediaType"] for layer in json.loads(manifest)["layers"]}
    if there != digest or kinds != {wanted}:
        raise RuntimeError(f"box pushed {digest}, there is {there} of {kinds}")
    return name, digest


def pull_and_run(bench, tool, known, pushed):
    """By the name; then it runs; then by the digest, with everything forgotten meanwhile."""
    name, digest = pushed()
    tool.forget()
    tool.pull(name)
    wrong = interop_archives.compare(bench, tool.id(name), tool.tree(name), KNOWN[known])
    wrong += [] if digest in tool.digests(name) else [f"the digest is {tool.digests(name)}, not {digest}"]
    wrong += printed(tool.run(name))
    tool.forget()
    by_digest = name.rsplit(":", 1)[0] + "@" + digest
    tool.pull(by_digest)
    return wrong + ([] if tool.id(by_digest) == bench.id else ["pulled by digest, the id is another"])


def printed(text):
    return [] if text == image.MARKER else [f"the container printed {text!r}"]


def pull_by_docker(bench, how, pushed):
    try:
        return pull_and_run(bench, bench.docker, "docker", pushed)
    except RuntimeError as error:
        if how == "zstd" and NO_ZSTD in str(error):
            bench.notes.append(f"Docker {bench.docker('version', '-f', '{{.Server.Version}}')} has no zstd and refuses it")
            return []
        raise


def copy(bench, pushed):
    """A copy is as it was pushed; for umoci, which has no zstd, the layers of another one are unpacked first."""
    name, digest = pushed()
    same, plain = bench.new_path("dir"), bench.new_path("dir")
    tools.skopeo(f"docker://{name}", f"dir:{same}", "--src-tls-verify=false")
    with open(f"{same}/manifest.json", "rb") as file:
        found = "sha256:" + hashlib.sha256(file.read()).hexdigest()
    tools.skopeo(f"docker://{name}", f"dir:{plain}", "--src-tls-verify=false", "--dest-decompress")
    copied = tools.layout(bench.work, f"dir:{plain}")
    wrong = [] if found == digest else [f"the digest is {found}, not {digest}"]
    return wrong + interop_archives.compare(bench, copied.id(), copied.tree(), KNOWN["umoci"])


def pull(bench, name, *args):
    """Into an empty store of box's."""
    box = tools.Box(bench.box.program, bench.work, os.path.basename(bench.new_path("store")))
    return box, box("pull", "-q", *args, name)


def pull_by_box(bench, pushed):
    name, digest = pushed()
    box, found = pull(bench, name)
    wrong = interop_archives.compare(bench, found, box.tree(name)) + printed(box.run(name))
    box, found = pull(bench, name.rsplit(":", 1)[0] + "@" + digest)
    again = box("push", "-q", found, f"{bench.registry.host}/again:1")
    wrong += [] if again == digest else [f"pushed back, the digest is {again}, not {digest}"]
    return wrong + interop_archives.compare(bench, found, box.tree(found)) + printed(box.run(found))


def push_by_docker(bench, name):
    loaded = bench.docker.load(bench.archive)
    bench.docker("tag", loaded, name)
    bench.docker("push", "-q", name)


def push_by_podman(bench, name):
    bench.podman("push", "-q", "--tls-verify=false", bench.podman.load(bench.archive), name)


def push_by_skopeo(bench, name):
    tools.skopeo(f"oci-archive:{bench.archive}", f"docker://{name}", "--dest-tls-verify=false")


def pulled_from(bench, pushes):
    """What another tool has pushed of box's image. The layers' tars are box's own, so nothing at all may be lost."""
    repository = pushes.__name__.replace("_", "-")
    name = f"{bench.registry.host}/{repository}:1"
    pushes(bench, name)
    digest, _ = bench.registry.manifest(repository, "1")
    box, found = pull(bench, name)
    wrong = interop_archives.compare(bench, found, box.tree(name)) + printed(box.run(name))
    if pushes is push_by_skopeo and digest != (saved := interop_archives.saved_digest(bench)):
        wrong.append(f"the digest is {digest}, not that of the archive, {saved}")
    _, found = pull(bench, f"{bench.registry.host}/{repository}@{digest}")
    return wrong + ([] if found == bench.id else ["pulled by digest, the id is another"])


def pull_what_docker_built(bench):
    name = f"{bench.registry.host}/docker/built:1"
    bench.docker("tag", interop_archives.by_docker(bench), name)
    bench.docker("push", "-q", name)
    box, found = pull(bench, name)
    reference = tools.layout(bench.work, f"docker://{name}", "--src-tls-verify=false")
    wrong = [] if found == bench.docker.id(name) else [f"the id is {found}, not {bench.docker.id(name)}"]
    return wrong + trees.differences(box.tree(name), reference.tree(), KNOWN["box load"]) + printed(box.run(name))


def make_index(bench):
    """(name, {architecture: image id})"""
    ids, manifests = {}, []
    context = os.path.join(bench.work, "platforms")
    image.write(f"{context}/Boxfile", "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /architecture\nCMD [\"/none\"]\n")
    for architecture in ("amd64", "arm64"):
        image.write(f"{context}/{architecture}", architecture)
        name = f"{bench.registry.host}/platforms:{architecture}"
        ids[architecture] = bench.box("build", "-q", "--network", "none", "--platform", f"linux/{architecture}", "-t", name, context)
        digest = bench.box("push", "-q", name)
        manifests.append({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest,
                          "size": len(bench.registry.manifest("platforms", digest)[1]), "platform": {"os": "linux", "architecture": architecture}})
    bench.registry.put_index("platforms", "both", manifests)
    return f"{bench.registry.host}/platforms:both", ids


def both_platforms(index, pulls):
    """`pulls` gives the id of what a tool takes for an architecture."""
    name, ids = index()
    found = {architecture: pulls(name, architecture) for architecture in ids}
    return [f"{architecture}: the id is {found[architecture]}, not {wanted}" for architecture, wanted in ids.items()
            if found[architecture] != wanted]


def platform_by_box(bench, name, architecture):
    # The machine's own is what is taken without a word.
    own = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine)
    _, found = pull(bench, name, *([] if architecture == own else ["--platform", f"linux/{architecture}"]))
    return found


def platform_by_docker(bench, name, architecture):
    bench.docker.pull(name, "--platform", f"linux/{architecture}")
    return bench.docker.id(name)


def platform_by_podman(bench, name, architecture):
    bench.podman.pull(name, "--arch", architecture)
    return bench.podman.id(name)


def platform_by_skopeo(bench, name, architecture):
    return tools.layout(bench.work, f"docker://{name}", "--src-tls-verify=false", before=["--override-arch", architecture]).id()


PLATFORM_PULLS = {"box pull --platform": platform_by_box, "docker pull --platform": platform_by_docker, "podman pull --arch": platform_by_podman,
                  "skopeo --override-arch copy": platform_by_skopeo}


def copied_index(bench, index):
    name, ids = index()
    copied = f"{bench.registry.host}/copied:both"
    tools.skopeo(f"docker://{name}", f"docker://{copied}", "--all", "--src-tls-verify=false", "--dest-tls-verify=false")
    return both_platforms(lambda: (copied, ids), functools.partial(platform_by_box, bench))
