#!/usr/bin/env python3
"""Builds cases of the corpus twice, cold, and compares the images' ids.

  reproducible_corpus.py --box PROGRAM --user-box PROGRAM --user ID --corpus DIR --work DIR --home DIR [--part N] [--jobs N]

The first build is by root; the second by an ordinary user, in another directory and store, later, with another umask, locale and time zone, and one
step after another. Of all cases that need no network and are to succeed each Nth is built. The exit code is 1 if any two images differ.
"""
import argparse
import io
import json
import multiprocessing
import os
import shutil
import stat
import sys
from contextlib import redirect_stdout

import corpus

BUILDS = []
# What these write is not the same for both users, and can't be.
KNOWN = {
    "bk-mount-MountTmpfsSize": "writes what the kernel says of a mount, and that names the user's ids",
    "kan-cache": "writes the date",
    "kan-multistage": "writes the date",
    "bk-copy-CopyWildcardCache-seq-miss": "writes what it reads of /dev/urandom",
    "bk-mount-MountRWCache-seq-cache": "writes what it reads of /dev/urandom",
    "kan2-issue_mz841": "an archive names owners that are outside of the ordinary user's ids",
}


class Build(corpus.Corpus):
    """One of the two: how it is done, and where."""

    def __init__(self, args, box, work, extra, env, user=None):
        super().__init__(argparse.Namespace(box=box, work=work, corpus=args.corpus))
        self.extra, self.user = extra, user
        self.env.update(env)

    def load(self, other):
        """The same bases as the other one's."""
        with open(os.path.join(self.folder, "bases.json")) as file:
            bases = json.load(file)
        self.names = {}
        for kind in bases["kinds"]:
            archive = os.path.join(other.work, kind + ".tar")
            loaded = corpus.run([self.box, "load", "-q", "-i", archive], self.env).stdout.decode().split()[-1]
            for name in bases["aliases"][kind]:
                corpus.run([self.box, "tag", loaded, name], self.env)
                self.names[name] = loaded

    def give(self, place):
        """Makes the user the owner of everything there; modes stay."""
        for folder, folders, files in os.walk(place):
            for path in [folder, *(os.path.join(folder, name) for name in folders + files)]:
                mode = os.lstat(path).st_mode
                os.lchown(path, self.user, self.user)
                if not stat.S_ISLNK(mode):
                    os.chmod(path, stat.S_IMODE(mode))

    def image(self, case_id):
        """The id of the case's last image; what it says where there is none."""
        place = os.path.join(self.work, "cases", case_id)
        os.makedirs(place)
        case = self.case(case_id)
        try:
            plan = self.casetool.make(case, place)
            if self.user is not None:
                self.give(place)
            image, text = None, ""
            for step in plan:
                image, text = corpus.build(self, step, len(plan) > 1 and step.get("tag"), self.extra)
                if image is None:
                    return "failed: " + text.strip()[-300:]
            return image
        except corpus.Refused as what:
            return f"refused: {what}"
        finally:
            shutil.rmtree(place, ignore_errors=True)
            if len(case["steps"]) > 1:
                self.restore({name for step in case["steps"] for name in corpus.names(step["options"].get("tag"))})


def worker(job):
    number, case_id = job
    return BUILDS[number].image(case_id)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("box", "user-box", "corpus", "work", "home"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--user", type=int, required=True)
    parser.add_argument("--part", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    here = {"LC_ALL": "C", "TZ": "UTC", "TEST_UMASK": "022"}
    there = {"LC_ALL": "de_DE.UTF-8", "TZ": "Asia/Tokyo", "TEST_UMASK": "077"}
    BUILDS.append(Build(args, args.box, args.work, ["--jobs", "4"], here))
    with redirect_stdout(io.StringIO()):
        BUILDS[0].bases()
    BUILDS.append(Build(args, args.user_box, args.home, ["--jobs", "1"], there, args.user))
    BUILDS[1].load(BUILDS[0])
    with open(os.path.join(BUILDS[0].folder, "open", "cases.json")) as file:
        cases = [c for c in json.load(file)
                 if c["local"] and not c["needs_network"] and c["expected"]["result"] == "success"]
    cases = sorted(cases, key=lambda case: case["id"])[::args.part]
    single = [c["id"] for c in cases if c["steps"] == 1]
    several = [c["id"] for c in cases if c["steps"] > 1]
    found = []
    for number in (0, 1):
        # All of one before all of the other, so that they are built at other times.
        with multiprocessing.get_context("fork").Pool(args.jobs) as pool:
            images = pool.map(worker, [(number, case_id) for case_id in single], chunksize=1)
        images += [BUILDS[number].image(case_id) for case_id in several]
        found.append(dict(zip(single + several, images)))
    built = [case_id for case_id, image in found[0].items() if image.startswith("sha256:")]
    differing = [case_id for case_id in found[0] if found[0][case_id] != found[1][case_id]
                 and (case_id in built or found[1][case_id].startswith("sha256:"))]
    wrong = [case_id for case_id in differing if case_id not in KNOWN]
    agreeing = [case_id for case_id in KNOWN if case_id in found[0] and case_id not in differing]
    for case_id in agreeing:
        print(f"AGREES, though it is listed: {case_id}")
    for case_id in set(differing) - set(wrong):
        print(f"known: {case_id}: {KNOWN[case_id]}")
    for case_id in wrong:
        print(f"DIFFERS: {case_id}", *(f"    {images[case_id]}" for images in found), sep="\n")
    print(f"{len(found[0])} cases; {len(built)} built twice, {len(differing)} differ")
    sys.exit(1 if wrong or agreeing or len(built) * 10 < len(found[0]) * 9 else 0)


if __name__ == "__main__":
    main()
