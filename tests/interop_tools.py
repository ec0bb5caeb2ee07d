"""The other tools, each with storage of its own below one directory."""
import contextlib
import itertools
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request

import buildkit
import corpus
import interop_trees as trees

NUMBERS = itertools.count()
MANIFESTS = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"


def out(args, env=None):
    """What the command prints on standard output, which must succeed."""
    return corpus.run(args, env).stdout.decode().strip()


@contextlib.contextmanager
def mounted(*options, at):
    """A mount for as long as it is looked at."""
    os.makedirs(at, exist_ok=True)
    corpus.run(["mount", *options, at])
    try:
        yield at
    finally:
        corpus.run(["umount", at])


class Box:
    def __init__(self, program, work, name="store"):
        self.program, self.work, self.env = program, work, {"BOX_ROOT": os.path.join(work, name)}

    def __call__(self, *args):
        return out([self.program, *args], self.env)

    def id(self, name):
        shown = json.loads(self("inspect", name))
        return (shown[0] if isinstance(shown, list) else shown)["Id"]

    def load(self, archive):
        return self("load", "-q", "-i", archive).split()[-1]

    def tree(self, name):
        archive = os.path.join(self.work, "export.tar")
        self("export", "-o", archive, name)
        return trees.from_tar(archive)

    def run(self, name):
        return self("run", "--rm", "--network", "none", "--pull", "never", name)


class Docker:
    """Docker with a daemon of its own, without a bridge."""

    def __init__(self, work, cgroup):
        self.work, self.daemon = work, buildkit.Daemon(work, "--cgroup-parent", cgroup)
        self.stop = self.daemon.stop

    def __call__(self, *args, **env):
        return self.daemon.docker(*args, env=env).stdout.decode().strip()

    def id(self, name):
        return self("image", "inspect", "-f", "{{.Id}}", name)

    def load(self, archive):
        # `Loaded image: NAME`, or `Loaded image ID: sha256:…`
        return self("load", "-q", "-i", archive).split(": ", 1)[1]

    def pull(self, name, *args):
        self("pull", "-q", *args, name)

    def digests(self, name):
        return [one.split("@")[1] for one in json.loads(self("image", "inspect", "-f", "{{json .RepoDigests}}", name))]

    def forget(self):
        """Removes every image."""
        # One that another was built from goes only after that one.
        while ids := self("images", "-q", "--no-trunc").split():
            if self.daemon.docker("rmi", "-f", *sorted(set(ids)), check=False).returncode and len(ids) == len(self("images", "-q").split()):
                raise RuntimeError("docker keeps its images")

    def exported(self, name):
        """The tree as `docker export` writes it."""
        container, archive = self("create", name), os.path.join(self.work, "docker-export.tar")
        self("export", "-o", archive, container)
        self("rm", container)
        return trees.from_tar(archive)

    def tree(self, name):
        """The tree that a container sees: the layers as the overlay driver has unpacked them."""
        data = json.loads(self("image", "inspect", "-f", "{{json .GraphDriver.Data}}", name))
        # One lower directory alone is not taken.
        nothing = os.path.join(self.work, "nothing")
        os.makedirs(nothing, exist_ok=True)
        lower = ":".join(filter(None, (data["UpperDir"], data.get("LowerDir"), nothing)))
        with mounted("-t", "overlay", "overlay", "-o", f"ro,lowerdir={lower}", at=os.path.join(self.work, "docker-mount")) as top:
            return trees.from_directory(top)

    def run(self, name):
        return self("run", "--rm", "--network", "none", name)


class Podman:
    def __init__(self, work, cgroup):
        self.cgroup = cgroup
        # runc, for crun refuses the hybrid of cgroups v1 and v2.
        self.args = ["podman", "--root", f"{work}/podman", "--runroot", f"{work}/podman-run", "--tmpdir", f"{work}/podman-tmp",
                     "--storage-driver", "overlay", "--cgroup-manager", "cgroupfs", "--runtime", "runc", "--events-backend", "none"]

    def __call__(self, *args):
        return out([*self.args, *args])

    def id(self, name):
        return "sha256:" + self("image", "inspect", "-f", "{{.Id}}", name)

    def load(self, archive):
        return self("load", "-q", "-i", archive).split(": ", 1)[1]

    def pull(self, name, *args):
        self("pull", "-q", "--tls-verify=false", *args, name)

    def digests(self, name):
        return [self("image", "inspect", "-f", "{{.Digest}}", name)]

    def forget(self):
        self("rmi", "-af")

    def tree(self, name):
        try:
            return trees.from_directory(self("image", "mount", name))
        finally:
            self("image", "umount", name)

    def run(self, name, *command, keep=None):
        how = ["--name", keep] if keep else ["--rm"]
        return self("run", *how, "--network", "none", "--cgroup-parent", self.cgroup, name, *command)


class Containerd:
    """A containerd of its own, and ctr."""

    def __init__(self, work):
        self.work = os.path.join(work, "containerd")
        self.args = ["ctr", "--address", f"{self.work}/socket"]
        os.makedirs(self.work)
        with open(f"{self.work}/config.toml", "w") as file:
            file.write(f'version = 2\nroot = "{self.work}/root"\nstate = "{self.work}/state"\n'
                       'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]\n'
                       f'[grpc]\naddress = "{self.work}/socket"\n')
        self.log = open(f"{self.work}/log", "w")
        self.process = subprocess.Popen(["containerd", "--config", f"{self.work}/config.toml"], stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=self.log)
        wait_until(lambda: corpus.run([*self.args, "version"], check=False).returncode == 0, self, "containerd")

    def __call__(self, *args):
        return out([*self.args, *args])

    def load(self, archive):
        before = set(self("image", "ls", "-q").split())
        self("image", "import", archive)
        return next(iter(set(self("image", "ls", "-q").split()) - before))

    def id(self, name):
        manifest = next(line.split()[2] for line in self("image", "ls", f"name=={name}").splitlines()[1:])
        return json.loads(self("content", "get", manifest))["config"]["digest"]

    def tree(self, name):
        top = os.path.join(self.work, "mount")
        os.makedirs(top, exist_ok=True)
        self("image", "mount", name, top)
        try:
            return trees.from_directory(top)
        finally:
            self("image", "unmount", "--rm", top)

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()


class Layout:
    """An OCI image layout with one image, unpacked by umoci."""

    def __init__(self, path, tag="image"):
        self.path, self.tag = path, tag

    def blob(self, digest):
        with open(os.path.join(self.path, "blobs", digest.replace(":", "/", 1)), "rb") as file:
            return json.load(file)

    def digest(self):
        with open(os.path.join(self.path, "index.json")) as file:
            return json.load(file)["manifests"][0]["digest"]

    def id(self):
        return self.blob(self.digest())["config"]["digest"]

    def unpack(self):
        """A bundle of umoci's."""
        bundle = self.path + ".bundle"
        out(["umoci", "unpack", "--image", f"{self.path}:{self.tag}", bundle])
        return bundle

    def tree(self):
        bundle = self.unpack()
        try:
            return trees.from_directory(os.path.join(bundle, "rootfs"))
        finally:
            shutil.rmtree(bundle)

    def archive(self):
        path = self.path + ".tar"
        out(["tar", "-C", self.path, "-cf", path, "."])
        return path


def skopeo(source, target, *flags, before=()):
    out(["skopeo", *before, "copy", "-q", "--insecure-policy", *flags, source, target])


def layout(work, source, *flags, before=()):
    """What is at `source`, as a layout."""
    found = Layout(os.path.join(work, f"layout-{next(NUMBERS)}"))
    skopeo(source, f"oci:{found.path}:{found.tag}", *flags, before=before)
    return found


class Registry:
    """Docker's registry on the loopback interface."""

    def __init__(self, work):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.host = f"127.0.0.1:{free.getsockname()[1]}"
        config = os.path.join(work, "registry.yml")
        with open(config, "w") as file:
            file.write("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
                       f"storage: {{filesystem: {{rootdirectory: {work}/registry}}}}\nhttp: {{addr: '{self.host}'}}\n")
        self.process = subprocess.Popen(["docker-registry", "serve", config], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        wait_until(self.answers, self, "docker-registry")

    def answers(self):
        try:
            return urllib.request.urlopen(f"http://{self.host}/v2/", timeout=5).status == 200
        except OSError:
            return False

    def manifest(self, repository, tag):
        """(digest, bytes)"""
        request = urllib.request.Request(f"http://{self.host}/v2/{repository}/manifests/{tag}", headers={"Accept": MANIFESTS})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.headers["Docker-Content-Digest"], answer.read()

    def put_index(self, repository, tag, manifests):
        kind = "application/vnd.oci.image.index.v1+json"
        body = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": manifests}).encode()
        request = urllib.request.Request(f"http://{self.host}/v2/{repository}/manifests/{tag}", data=body, method="PUT",
                                         headers={"Content-Type": kind})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.headers["Docker-Content-Digest"]

    def stop(self):
        self.process.terminate()
        self.process.wait()


def wait_until(is_up, service, name):
    for _ in range(300):
        if is_up():
            return
        time.sleep(0.1)
    service.stop()
    raise RuntimeError(f"{name} did not start")
