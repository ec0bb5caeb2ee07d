"""COPY of 50,000 files (264 MB) by box, BuildKit and buildah: cold, with nothing changed, with one file changed; beside `cp -a`.

Nothing is removed before all is measured: for a minute ext4 looks over every inode that was just freed whenever it makes one, which
would make the second tool pay for the first. So box's cold builds have a store each, and the others are told `--no-cache`
(BuildKit then still has the context's files from before, which is to its advantage).
"""
import os
import random
import statistics
import time

from peers import BOX, BUILDAH_STORAGE, DOCKER, WORK, row, sh, write

CONTEXT = f"{WORK}/copy"
ROUNDS = int(os.environ.get("ROUNDS", "3"))
TOOLS = ("box", "docker", "buildah", "bare")


def make_context():
    numbers = random.Random(1)
    for directory in range(500):
        path = f"{CONTEXT}/tree/d{directory // 25:02}/s{directory % 25:02}"
        os.makedirs(path)
        for name in range(100):
            with open(f"{path}/file{name:03}.txt", "wb") as file:
                file.write(numbers.randbytes(numbers.randrange(1, 10500)))
    write(f"{CONTEXT}/Dockerfile", "FROM scratch\nCOPY tree /tree\n")


def timed(command):
    start = time.monotonic()
    sh(command)
    return time.monotonic() - start


def build(tool, number, cold):
    cache = "--no-cache " if cold else ""
    return {
        # A store of its own is as cold as can be, and what is changed later is built on it.
        "box": f"{BOX} --root {WORK}/copy-store-{number} build -q -t copy {CONTEXT}",
        "docker": f"{DOCKER} build -q {cache}-t copy {CONTEXT}",
        "buildah": f"buildah {BUILDAH_STORAGE} bud -q --layers {cache}-t copy {CONTEXT}",
    }[tool]


def main():
    make_context()
    # Read once by everybody's measure.
    sh(f"cp -a {CONTEXT} {WORK}/warm && sync -f {WORK}")
    cold, same, one = ({tool: [] for tool in TOOLS} for _ in range(3))
    started = []
    for number in range(ROUNDS):
        cold["bare"].append(timed(f"cp -a {CONTEXT} {WORK}/copied-{number} && sync -f {WORK}"))
        for tool in ("box", "docker", "buildah"):
            cold[tool].append(timed(build(tool, number, True)))
            sh(build(tool, number, False))
            same[tool].append(min(timed(build(tool, number, False)) for _ in range(1 if tool == "buildah" else 5)))
            for again in range(1 if tool == "buildah" else 3):
                with open(f"{CONTEXT}/tree/d10/s10/file050.txt", "a", encoding="ascii") as file:
                    file.write(f"{tool} {number} {again}\n")
                time.sleep(0.2)
                one[tool].append(timed(build(tool, number, False)))
        # There is no program in it, which is found out when all is mounted.
        started.append(timed(f"{BOX} --root {WORK}/copy-store-{number} run --rm --network none copy /none || true"))
    print("| work | box | Docker/BuildKit | buildah | bare | goal |\n|---|---|---|---|---|---|")
    for what, times, goal in (("COPY of 50,000 files, cold (bare: cp -a, sync)", cold, "≤ 1.5× `cp -a`"),
                              ("the same, nothing changed", same, "≤ 150 ms"),
                              ("the same, one file changed", one, "≤ 500 ms")):
        row(what, {tool: statistics.median(values) for tool, values in times.items() if values}, goal, TOOLS)
    for what, times in (("cold", cold), ("unchanged", same), ("one changed", one)):
        print(f"- box, {what}, each: " + ", ".join(f"{seconds * 1000:.0f}" for seconds in times["box"]) + " ms")
    print("- box, the first container on one changed, which makes the tree: " + ", ".join(f"{seconds * 1000:.0f}" for seconds in started) + " ms")


main()
