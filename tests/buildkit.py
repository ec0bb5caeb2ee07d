#!/usr/bin/env python3
"""Builds the cases of the corpus with box and, side by side, with Docker's BuildKit, and compares the images (image_diff.py).

  buildkit.py --box PROGRAM --corpus DIR --known FILE --work DIR [--only GLOB] [--verbose]

Needs root, Docker (the program at /usr/bin/docker, dockerd) and skopeo; starts a Docker daemon of its own. FILE lists what differs
for a good reason: `CASE PATTERN REASON`, where PATTERN is a glob over the lines of the difference. Exit code 1: something
else differs.
"""
import argparse
import collections
import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import time

import corpus
import image_diff

DOCKER = "/usr/bin/docker"
# What builders leave where they mount something for RUN: empty files and directories.
STUBS = {"/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/.dockerenv", "/dev", "/dev/console", "/dev/pts", "/dev/shm", "/dev/mqueue",
         "/proc", "/sys", "/run", "/run/secrets"}

# How a case may end without a reason being asked for.
FINE = {"same", "neither", "explained", "refused", "too new for this BuildKit"}


class Daemon:
    """A Docker daemon of our own."""

    def __init__(self, work, *more):
        self.socket = f"unix://{work}/docker.sock"
        self.log = open(f"{work}/dockerd.log", "w")
        self.process = subprocess.Popen(
            ["dockerd", "--data-root", f"{work}/docker", "--exec-root", f"{work}/docker-run", "--pidfile", f"{work}/docker.pid",
             "-H", self.socket, "--iptables=false", "--bridge=none", *more], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        for _ in range(300):
            if self.docker("version", check=False).returncode == 0:
                return
            time.sleep(0.1)
        self.stop()
        raise RuntimeError("dockerd did not start: see dockerd.log")

    def docker(self, *args, env=None, check=True):
        return corpus.run([DOCKER, *args], {"DOCKER_HOST": self.socket, "DOCKER_BUILDKIT": "1", **(env or {})}, check)

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()


def give_bases(cases, daemon):
    """The base images, to Docker too."""
    for kind in {kind for kind, _ in cases.aliases()}:
        archive = os.path.join(cases.work, kind + ".docker.tar")
        corpus.run(["skopeo", "copy", "-q", "--insecure-policy", f"oci:{cases.work}/{kind}", f"docker-archive:{archive}:base/{kind}:latest"])
        daemon.docker("load", "-q", "-i", archive)
    for kind, name in cases.aliases():
        daemon.docker("tag", f"base/{kind}:latest", name)


def docker_flags(step):
    flags = ["--network", "none"]
    for name, value in (step.get("build_args") or {}).items():
        flags += ["--build-arg", name if value is None else f"{name}={value}"]
    if step.get("target"):
        flags += ["--target", step["target"]]
    labels = step.get("labels") or []
    for label in labels if isinstance(labels, list) else [f"{name}={value}" for name, value in labels.items()]:
        flags += ["--label", label]
    for secret in step.get("secrets") or []:
        flags += ["--secret", ",".join(f"{'src' if k == 'file' else k}={v}" for k, v in secret.items())]
    for flag in step.get("peer_flags") or []:
        if flag == "--no-cache" or flag.startswith("--add-host"):
            flags.append(flag)
    return flags


def docker_build(daemon, step, place, tags):
    """The image, or None and why there is none."""
    boxfile = os.path.join(place, "Dockerfile.peer")
    with open(step["dockerfiles"][0], "rb") as file:
        # The built-in frontend is used: a # syntax line would be fetched.
        text = re.sub(rb"(?im)\A(\s*#\s*)syntax(\s*=)", rb"\1 no-\2", file.read())
    with open(boxfile, "wb") as file:
        file.write(text)
    for suffix in (".dockerignore", ".containerignore"):
        if os.path.exists(step["dockerfiles"][0] + suffix):
            shutil.copy(step["dockerfiles"][0] + suffix, boxfile + ".dockerignore")
    env = dict(one.split("=", 1) for one in step.get("peer_env") or [])
    done = daemon.docker("build", "-q", *docker_flags(step), *(word for tag in tags for word in ("-t", tag)), "-f", boxfile, step["ctx"], env=env, check=False)
    if done.returncode:
        return None, done.text
    inspected = json.loads(daemon.docker("image", "inspect", tags[0]).stdout)[0]
    if not inspected["RootFS"].get("Layers"):
        # Docker can't save such an image.
        return image_diff.Bare({"config": inspected["Config"]}), ""
    archive = os.path.join(place, "docker.tar")
    daemon.docker("save", "-o", archive, tags[0])
    return image_diff.Archive(archive), ""


def compare_case(cases, daemon, case, place):
    """(state, lines)"""
    plan = cases.casetool.make(case, place)
    ours = theirs = None
    text = why = ""
    for number, step in enumerate(plan):
        ours, text = corpus.build(cases, step, step.get("tag") if len(plan) > 1 else None)
        theirs, why = docker_build(daemon, step, place, corpus.names(step.get("tag")) or [f"case{number}"])
        if ours is None or theirs is None:
            break
    if ours is None and theirs is None:
        return "neither", []
    if ours is None:
        return "only BuildKit builds it", text.splitlines()[-3:]
    if theirs is None and case["expected"]["result"] == "success":
        # Debian's BuildKit is older than what many cases use; the case itself says that it builds.
        return "too new for this BuildKit", why.strip().splitlines()[-1:]
    if theirs is None:
        return "only box builds it", why.strip().splitlines()[-1:]
    archive = os.path.join(place, "box.tar")
    corpus.run([cases.box, "save", "-o", archive, ours], cases.env)
    lines = [line for line in image_diff.differences(image_diff.Archive(archive), theirs) if not is_stub(line)]
    return ("different", lines) if lines else ("same", [])


def is_stub(line):
    path, _, facts = line.partition(": ")
    return path in STUBS and "null" in facts.split(" | ")


def known_differences(path):
    known, sometimes = collections.defaultdict(list), set()
    with open(path) as file:
        for line in file:
            if line.strip() and not line.startswith("#"):
                case_id, pattern, reason = line.rstrip("\n").split("\t")
                known[case_id].append((pattern.removeprefix("~"), reason))
                if pattern.startswith("~"):
                    sometimes.add(case_id)
    return known, sometimes


def explained(known, case_id, lines):
    """Whether each line has a reason; a case of its own or one for all (`*`)."""
    reasons = [*known.get(case_id, []), *known.get("*", [])]
    return all(any(fnmatch.fnmatchcase(line, pattern) for pattern, _ in reasons) for line in lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("box", "corpus", "known", "work"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--only", default="*")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    os.makedirs(args.work, exist_ok=True)
    cases = corpus.Corpus(args)
    cases.bases()
    known, sometimes = known_differences(args.known)
    daemon = Daemon(args.work)
    groups = collections.defaultdict(list)
    try:
        give_bases(cases, daemon)
        with open(os.path.join(cases.folder, "open", "cases.json")) as file:
            ids = [c["id"] for c in json.load(file) if c["local"] and fnmatch.fnmatch(c["id"], args.only)]
        for case_id in ids:
            state, lines = one(cases, daemon, case_id)
            if state not in FINE and explained(known, case_id, lines or [state]):
                state = "explained"
            elif state == "same" and case_id in known and case_id not in sometimes:
                state = "listed, but the same"
            groups[state].append(case_id)
            if args.verbose or state not in FINE:
                print(f"{state}: {case_id}", *(f"    {line}" for line in lines[:20]), sep="\n", flush=True)
    finally:
        daemon.stop()
    print("; ".join(f"{len(ids)} {state}" for state, ids in sorted(groups.items())))
    sys.exit(0 if set(groups) <= FINE else 1)


def one(cases, daemon, case_id):
    place = os.path.join(cases.work, "cases", case_id)
    case = cases.case(case_id)
    os.makedirs(place)
    try:
        return compare_case(cases, daemon, case, place)
    except corpus.Refused as what:
        return "refused", [str(what)]
    except (RuntimeError, OSError, KeyError, subprocess.TimeoutExpired) as error:
        return "failed", [str(error)]
    finally:
        shutil.rmtree(place, ignore_errors=True)
        if len(case["steps"]) > 1:
            cases.restore({name for step in case["steps"] for name in corpus.names(step["options"].get("tag"))})
            restore_docker(cases, daemon, case)


def restore_docker(cases, daemon, case):
    """What the case named must not be seen by another one."""
    for step in case["steps"]:
        for tag in corpus.names(step["options"].get("tag")):
            daemon.docker("rmi", "-f", tag, check=False)
    for kind, name in cases.aliases():
        daemon.docker("tag", f"base/{kind}:latest", name, check=False)


if __name__ == "__main__":
    main()
