#!/usr/bin/env python3
"""Builds the local cases of the corpus with box and compares what comes out.

  corpus.py --box PROGRAM --corpus DIR --known FILE --work DIR [--only GLOB] [--jobs N] [--verbose]

The cases, the base images and the comparison are the corpus' own (casetool.py, mkbase.py, compare.py). A case's last image
must be as its golden result says (where that is trusted), and hold its checks; a case that is expected to fail must fail.
Each case ends as one of: passed, failed, refused (an instruction, a flag or an option that box says it does not have yet),
known (a failure listed with its reason in FILE). The exit code is 1 if any case failed, or if one is listed that passes.
"""
import argparse
import collections
import fnmatch
import importlib.util
import io
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tarfile
from contextlib import redirect_stdout

TIMEOUT = 60
# Options of a case that say nothing about the image: how it is to be kept, and that a cache may be used.
NEUTRAL = {"ctx", "dockerfiles", "build_args", "target", "tag", "use_cache", "format", "peer_flags", "peer_env"}
# Flags of the tool the case was made for that ask for what box does anyway, or that no comparison sees.
NEUTRAL_FLAGS = ("--layers", "--force-rm", "--skip-unused-stages=true", "--timestamp=")
REFUSED = re.compile(r"error: ((?:(?!error: ).)*?) (?:is|are) not supported yet")


class Refused(Exception):
    """box does not have something yet."""


def module(path, name):
    """The corpus' own tool, as a module."""
    spec = importlib.util.spec_from_file_location(name, os.path.join(path, name + ".py"))
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def run(args, env=None, check=True):
    done = subprocess.run(args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=TIMEOUT,
                          env={**os.environ, **(env or {})})
    done.text = (done.stderr + done.stdout).decode("utf-8", "replace")
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(args)}: {done.text}")
    return done


class Corpus:
    """What every case needs."""

    def __init__(self, args):
        self.box, self.work = args.box, args.work
        self.casetool, self.compare = module(args.corpus, "casetool"), module(args.corpus, "compare")
        self.mkbase = module(args.corpus, "mkbase")
        self.folder = os.path.join(args.corpus, "corpus")
        self.env = {"BOX_ROOT": os.path.join(self.work, "store")}
        self.options = set(re.findall(r"--[a-z-]+", run([self.box, "build", "--help"]).text))

    def bases(self):
        """Makes the base images and names them as the cases do."""
        with open(os.path.join(self.folder, "bases.json")) as file:
            bases = json.load(file)
        self.names = {}
        for kind in bases["kinds"]:
            with redirect_stdout(io.StringIO()):
                self.mkbase.write(self.work, kind, "/bin/busybox")
            archive = os.path.join(self.work, kind + ".tar")
            with tarfile.open(archive, "w") as tar:
                tar.add(os.path.join(self.work, kind), ".")
            loaded = run([self.box, "load", "-q", "-i", archive], self.env).stdout.decode().split()[-1]
            for name in bases["aliases"][kind]:
                run([self.box, "tag", loaded, name], self.env)
                self.names[name] = loaded

    def aliases(self):
        """(kind of base, name it has in the cases)"""
        with open(os.path.join(self.folder, "bases.json")) as file:
            aliases = json.load(file)["aliases"]
        return [(kind, name) for kind, names in aliases.items() for name in names]

    def case(self, case_id):
        with open(os.path.join(self.folder, "open", "build", case_id + ".json")) as file:
            return json.load(file)

    def restore(self, tags):
        """What a case has named must not be seen by another."""
        run([self.box, "rmi", *tags], self.env, check=False)
        for name, image in self.names.items():
            if run([self.box, "inspect", name], self.env, check=False).returncode:
                run([self.box, "tag", image, name], self.env)


def names(tag):
    """A step's name; the tool that a case comes from may find it as one of its own machine, too."""
    return [tag, "localhost/" + tag] if tag and "/" not in tag else [tag] if tag else []


def step_options(step, options):
    """The step's options as box's flags."""
    flags = ["--network", "none"]
    for name, value in (step.get("build_args") or {}).items():
        flags += ["--build-arg", name if value is None else f"{name}={value}"]
    if step.get("target"):
        flags += ["--target", step["target"]]
    if len(step["dockerfiles"]) > 1:
        raise Refused("several Boxfiles")
    for flag in step.get("peer_flags") or []:
        if flag == "--no-cache":
            flags.append(flag)
        elif flag.startswith("--network="):
            flags[1] = flag.split("=", 1)[1]
        elif not flag.startswith(NEUTRAL_FLAGS):
            raise Refused("option " + flag.split("=")[0])
    return flags + other_options(step, options)


def other_options(step, options):
    flags = []
    for key in sorted(set(step) - NEUTRAL):
        value = step[key]
        if value in (None, [], {}, ""):
            continue
        name = {"labels": "--label", "annotations": "--annotation", "secrets": "--secret", "volumes": "--volume",
                "build_contexts": "--build-context"}.get(key, "--" + key.replace("_", "-"))
        if name not in options:
            raise Refused("option " + name)
        if key == "secrets":
            value = [",".join(f"{'src' if k == 'file' else k}={v}" for k, v in s.items()) for s in value]
        elif isinstance(value, dict):
            value = [f"{k}={v}" for k, v in value.items()]
        for one in value if isinstance(value, list) else [value]:
            flags += [name, str(one)]
    return flags


def build(corpus, step, tag, extra=()):
    """Builds one step. None: it failed; its output is in the second value."""
    flags = step_options(step, corpus.options)
    for name in names(tag):
        flags += ["-t", name]
    env = dict(corpus.env)
    for one in step.get("peer_env") or []:
        name, value = one.split("=", 1)
        env[name] = value
    args = [corpus.box, "build", "--progress", "plain", "-f", step["dockerfiles"][0], *flags, *extra, step["ctx"]]
    done = run(args, env, check=False)
    if done.returncode == 0:
        return done.stdout.decode().split()[-1], done.text
    refused = REFUSED.search(done.text)
    if refused:
        raise Refused(refused.group(1))
    return None, done.text


def compare(corpus, case, images, place):
    """What is wrong with the last image, as lines."""
    archive = os.path.join(place, "image.tar")
    run([corpus.box, "save", "-o", archive, images[-1]], corpus.env)
    wrong = []
    config, rootfs, layers = corpus.compare.image(archive)
    checks = case["expected"].get("checks", [])
    for state, text, info in corpus.compare.check(checks, config, rootfs, layers):
        if state == "FAIL":
            wrong.append(f"check {text} {info}")
    wrong += [f"check {check}" for check in checks if not steps_check(corpus, check, images, place)]
    golden = corpus.compare.find(corpus.folder, "golden", case["id"])
    if golden and is_truth(golden):
        out = io.StringIO()
        args = ["--corpus", corpus.folder, case["id"], "golden", archive]
        with redirect_stdout(out):
            code = corpus.compare.main(args)
        if code:
            wrong += out.getvalue().splitlines() or ["compare.py failed"]
    return wrong


def steps_check(corpus, check, images, place):
    """The checks that compare a file of the images of two steps."""
    (kind, value), = check.items()
    if kind not in ("same_as_step", "differs_from_step"):
        return True
    found = []
    for image in (images[value["step"]], images[-1]):
        archive = os.path.join(place, "step.tar")
        run([corpus.box, "save", "-o", archive, image], corpus.env)
        found.append(corpus.compare.listing(corpus.compare.image(archive)[1])[value["path"]])
    return (found[0] == found[1]) == (kind == "same_as_step")


def is_truth(path):
    with open(path) as file:
        golden = json.load(file)
    return golden.get("trusted") is not False and golden.get("result") == "success"


def failure(expected, text):
    """What is wrong with how a build failed. The words are other tools', so only where it failed is compared."""
    lines = expected.get("error_lines") or [expected.get("fail_at_line")]
    wrong = [f"it should fail at line {line}" for line in lines if line and f":{line}:" not in text]
    return wrong if "error: " in text and "panicked" not in text else [*wrong, "it does not say why it failed"]


def try_case(corpus, case, place):
    """(passed | failed, lines that say why)"""
    plan = corpus.casetool.make(case, place)
    several = len(plan) > 1
    images, text = [], ""
    for step in plan:
        image, text = build(corpus, step, several and step.get("tag"))
        images.append(image)
        if image is None:
            break
    if case["expected"]["result"] == "failure":
        if images[-1] is not None:
            return "failed", ["it was built, but should not be"]
        wrong = failure(case["expected"], text)
        return ("failed", [*wrong, *text.splitlines()[-12:]]) if wrong else ("passed", [])
    if images[-1] is None:
        return "failed", text.splitlines()[-12:]
    wrong = compare(corpus, case, images, place)
    if any("reproducible" in check for check in case["expected"].get("checks", [])):
        if build(corpus, plan[-1], None, ["--no-cache"])[0] != images[-1]:
            wrong.append("built again, it is another image")
    return ("failed", wrong) if wrong else ("passed", [])


def outcome(corpus, case_id):
    """(case, passed | failed | refused, lines)"""
    place = os.path.join(corpus.work, "cases", case_id)
    case = corpus.case(case_id)
    os.makedirs(place)
    try:
        return (case_id, *try_case(corpus, case, place))
    except Refused as what:
        return case_id, "refused", [str(what)]
    except (RuntimeError, OSError, subprocess.TimeoutExpired, corpus.compare.Err, tarfile.TarError) as error:
        return case_id, "failed", [str(error)]
    finally:
        shutil.rmtree(place, ignore_errors=True)
        if len(case["steps"]) > 1:
            corpus.restore({name for step in case["steps"] for name in names(step["options"].get("tag"))})


CORPUS = None


def worker(case_id):
    return outcome(CORPUS, case_id)


def known_failures(path):
    """case -> reason"""
    known = {}
    with open(path) as file:
        for line in file:
            if line.strip() and not line.startswith("#"):
                case_id, reason = line.split(None, 1)
                known[case_id] = reason.strip()
    return known


def print_table(results, known, verbose):
    """Prints what came out; returns whether nothing failed that isn't known to."""
    groups = collections.defaultdict(list)
    for case_id, state, lines in sorted(results):
        if case_id in known and state != "refused":
            state, lines = ("known", lines) if state == "failed" else ("failed", ["it passes, but is listed as failing"])
        groups[state].append((case_id, lines))
    if verbose:
        print("passed:", *(f"  {case_id}" for case_id, _ in groups["passed"]), sep="\n")
    refused = collections.defaultdict(list)
    for case_id, lines in groups["refused"]:
        refused[lines[0]].append(case_id)
    for what, ids in sorted(refused.items(), key=lambda item: -len(item[1])):
        print(f"refused ({len(ids)}): {what}", *(f"  {case_id}" for case_id in ids), sep="\n")
    for case_id, _ in groups["known"]:
        print(f"known: {case_id}: {known[case_id]}")
    for case_id, lines in groups["failed"]:
        print(f"FAILED: {case_id}", *(f"    {line}" for line in lines), sep="\n")
    print("; ".join(f"{len(groups[state])} {state}" for state in ("passed", "failed", "known", "refused")))
    return not groups["failed"]


def main():
    global CORPUS
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("box", "corpus", "known", "work"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--only", default="*")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    CORPUS = Corpus(args)
    CORPUS.bases()
    with open(os.path.join(CORPUS.folder, "open", "cases.json")) as file:
        cases = [c for c in json.load(file) if c["local"] and fnmatch.fnmatch(c["id"], args.only)]
    # Cases of several steps name images, as others may do: they are tried one after another.
    alone = [c["id"] for c in cases if c["steps"] > 1]
    with multiprocessing.get_context("fork").Pool(args.jobs) as pool:
        results = pool.map(worker, [c["id"] for c in cases if c["steps"] == 1], chunksize=1)
    results += map(worker, alone)
    known = {case_id: why for case_id, why in known_failures(args.known).items() if fnmatch.fnmatch(case_id, args.only)}
    sys.exit(0 if print_table(results, known, args.verbose) else 1)


if __name__ == "__main__":
    main()
