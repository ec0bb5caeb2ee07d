#!/usr/bin/env python3
"""Exchanges images between box and the other tools: archives, layouts and a registry, there and back.

  interop.py --box PROGRAM --work DIR [--only GLOB]

Needs root, Docker (/usr/bin/docker, dockerd), podman, runc, skopeo, umoci, containerd (ctr), docker-registry, and a static busybox. Each
service is started by this program and keeps its things below DIR. Everything happens in mount and process namespaces of its own:
when it ends, however that is, no process and no mount is left. Prints a line for each case; exit code 1: one has failed.
"""
import argparse
import fnmatch
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback

import corpus
import interop_archives
import interop_image
import interop_registry
import interop_tools as tools
import interop_trees as trees

# Where the tools write whatever they are told.
THEIRS = ("/run", "/etc/docker", "/opt/containerd", "/var/lib/containers", "/var/cache/containers")
MAX_LINES = 20
FAILURES = (RuntimeError, OSError, KeyError, ValueError, StopIteration, subprocess.SubprocessError)


class Bench:
    """The tools, the image, and what became of the cases."""

    def __init__(self, args):
        self.work, self.only, self.failed, self.run = args.work, args.only, [], 0
        # Named after the directory: another run may be under way.
        self.cgroup = "/box-interop-" + os.path.basename(args.work)
        self.box = tools.Box(args.box, self.work)
        self.services, self.numbers, self.notes = [], itertools.count(), []

    def start(self):
        self.docker = self.service(tools.Docker(self.work, self.cgroup))
        self.containerd = self.service(tools.Containerd(self.work))
        self.registry = self.service(tools.Registry(self.work))
        self.podman = tools.Podman(self.work, self.cgroup)

    def service(self, service):
        self.services.append(service)
        return service

    def make_image(self):
        """What every case exchanges."""
        self.box("import", "--progress", "quiet", interop_image.make_base(self.work), "localhost/base:1")
        self.base_archive = os.path.join(self.work, "base-image.tar")
        self.box("save", "-o", self.base_archive, "localhost/base:1")
        self.context = interop_image.make_context(self.work)
        self.name = "localhost/interop:1"
        self.box("build", "-q", "--network", "none", "-t", self.name, "-o", f"{self.work}/built", self.context)
        self.id, self.tree = self.box.id(self.name), self.box.tree(self.name)
        self.archive = os.path.join(self.work, "box.tar")
        self.box("save", "-o", self.archive, self.name)

    def new_path(self, suffix):
        return os.path.join(self.work, f"{next(self.numbers)}.{suffix}")

    def case(self, name, function):
        if not fnmatch.fnmatchcase(name, self.only):
            return
        self.run += 1
        self.notes = []
        try:
            problems = function()
        except FAILURES as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            problems = [f"{type(error).__name__}: {error} ({os.path.basename(where.filename)}:{where.lineno})"]
        if problems:
            self.failed.append(name)
            more = [f"    … and {len(problems) - MAX_LINES} more"] if len(problems) > MAX_LINES else []
            print(f"FAILED {name}", *(f"    {line}" for line in problems[:MAX_LINES]), *more, sep="\n", flush=True)
        else:
            print(f"ok     {name}", *(f"({note})" for note in self.notes), flush=True)

    def cases(self):
        for group in (interop_archives.from_box, interop_archives.to_box, interop_registry.cases):
            for name, function in group(self):
                self.case(name, function)

    def end(self):
        """Ends the services, and says what is left of them."""
        for service in reversed(self.services):
            service.stop()
        return [*end_processes(), *unmount(self.work), *remove_cgroups(self.cgroup)]


def end_processes():
    """This is process 1 of its namespace: whatever else runs was started here."""
    left = []
    for _ in range(50):
        left = [pid for pid in os.listdir("/proc") if pid.isdigit() and pid != "1" and alive(pid)]
        if not left:
            return []
        time.sleep(0.1)
    names = [open(f"/proc/{pid}/cmdline").read().replace("\0", " ").strip() for pid in left]
    for pid in left:
        os.kill(int(pid), signal.SIGKILL)
    return [f"still runs: {name}" for name in names]


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def unmount(work):
    with open("/proc/self/mounts") as file:
        places = [line.split()[1] for line in file]
    left = [place for place in places if place.startswith(work + "/")]
    for place in reversed(left):
        corpus.run(["umount", "-l", place])
    # Podman keeps its storage bound onto itself for as long as the machine runs.
    return [f"still mounted: {place}" for place in left if place != f"{work}/podman/overlay"]


def remove_cgroups(name):
    """The parent of the containers' cgroups; it can be removed where no container is left in it."""
    left = []
    for top in ["/sys/fs/cgroup", *(os.path.join("/sys/fs/cgroup", one) for one in os.listdir("/sys/fs/cgroup"))]:
        if os.path.isdir(top + name):
            for folder, _, _ in os.walk(top + name, topdown=False):
                # Podman never removes the one of its monitors.
                left += [f"a cgroup is left: {folder}"] if folder not in (top + name, top + name + "/conmon") else []
                os.rmdir(folder)
    return left


def isolate(work):
    """Starts this program again as process 1 of namespaces of its own; gives the directories that were made to mount something on them."""
    if os.getpid() != 1:
        os.execvp("unshare", ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, *sys.argv])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
    # Where box keeps its locks is the whole machine's.
    locks, kept = "/run/box", os.path.join(work, "run-box")
    for folder in (locks, kept):
        os.makedirs(folder, mode=0o755, exist_ok=True)
    mount("--bind", locks, kept)
    made = [place for place in THEIRS if not os.path.isdir(place)]
    for place in THEIRS:
        os.makedirs(place, exist_ok=True)
        mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", place)
    os.mkdir(locks)
    mount("--bind", kept, locks)
    corpus.run(["umount", kept])
    return made


def mount(*args):
    corpus.run(["mount", *args])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("box", "work"):
        parser.add_argument("--" + name, required=True, type=os.path.realpath)
    parser.add_argument("--only", default="*")
    args = parser.parse_args()
    made = isolate(args.work)
    begun = time.monotonic()
    os.makedirs(args.work, exist_ok=True)
    os.environ.update({"HOME": args.work, "TMPDIR": os.path.join(args.work, "tmp")})
    os.makedirs(os.environ["TMPDIR"], exist_ok=True)
    bench = Bench(args)
    try:
        bench.start()
        bench.make_image()
        bench.cases()
    except FAILURES as error:
        bench.failed.append("preparation")
        print(f"FAILED before the first case: {error}")
    finally:
        left = bench.end()
        for place in made:
            corpus.run(["umount", "-l", place])
            os.rmdir(place)
        shutil.rmtree(args.work, ignore_errors=True)
    left += [args.work] if os.path.exists(args.work) else []
    bench.case("nothing is left behind", lambda: left)
    seldom = {pattern for known in interop_archives.KNOWN.values() for pattern, _ in known} - trees.SEEN
    if args.only == "*" and seldom and not bench.failed:
        print("listed as known, but not met:", *sorted(seldom), sep="\n    ")
    print(f"{bench.run} cases, {len(bench.failed)} failed, {time.monotonic() - begun:.0f} s")
    sys.exit(1 if bench.failed else 0)


if __name__ == "__main__":
    main()
