#!/usr/bin/env python3
"""What a program in a default container sees and may do: box beside Docker and Podman.

  sandbox_peers.py --box PROGRAM --work DIR

Needs root, Docker, podman, runc, gcc and a static busybox. Prints a table; exit code 1: box is looser than Docker somewhere, and no
reason is given for it here.
"""
import argparse
import os
import re
import subprocess
import sys

import corpus
import interop_tools as tools

# Where box gives what Docker does not, and why that is no loss of safety.
REASONS = {
    "calls that succeed: ptrace-1": "a process may read the memory of its own user's, as Docker's newest profile has it",
    "devices: /dev/console": "it is there without a terminal, too: as /dev/null then, for programs that log there",
}
QUESTIONS = r"""
echo '# status'; grep -E '^(CapPrm|CapEff|CapBnd|CapInh|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status
echo '# uid_map'; cat /proc/self/uid_map
echo '# mounts'; cat /proc/self/mountinfo
echo '# devices'; find /dev -type c -o -type b | grep -v pts
echo '# readable'; for f in /proc/acpi/x /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list /proc/sched_debug /proc/interrupts /proc/asound/cards /sys/firmware/x /sys/devices/virtual/powercap/x /sys/kernel/security/lsm; do head -c1 $f >/dev/null 2>&1 && [ "$(head -c1 $f | wc -c)" = 1 ] && echo $f; done
echo '# writable'; find /proc/sys /proc/bus /proc/fs /proc/irq /sys -maxdepth 6 -type f -perm -200 2>/dev/null | while read f; do (: >>$f) 2>/dev/null && echo $f; done
echo '# limits'; for l in c n u l s; do echo "-$l $(ulimit -H$l)"; done
echo '# descriptors'; ls /proc/self/fd | wc -l
echo '# cgroup'; cut -d: -f3 /proc/self/cgroup | sort -u
echo '# processes'; ls -d /proc/[0-9]* | wc -l
echo '# probe'; /probe
"""


def sections(text):
    parts, name = {}, None
    for line in text.splitlines():
        if line.startswith("# "):
            name = line[2:]
            parts[name] = []
        elif name:
            parts[name].append(line)
    return parts


def mounts(lines):
    """Each mount point with what it forbids."""
    found = {}
    for line in lines:
        left, right = line.split(" - ")
        fields = left.split()
        options = set(fields[5].split(",")) | {"ro"} & set(right.split()[2].split(","))
        found[fields[4]] = {"type": right.split()[0], "forbids": options & {"ro", "nosuid", "nodev", "noexec"}}
    return found


def capabilities(lines, name):
    value = next((line.split()[1] for line in lines if line.startswith(name)), "0")
    return {bit for bit in range(64) if int(value, 16) >> bit & 1}


def facts(answer):
    """Sets of what is allowed: the fewer the stricter."""
    limits = dict(line.split(" ", 1) for line in answer["limits"])
    return {
        "capabilities": {f"capability {bit}" for bit in capabilities(answer["status"], "CapEff")},
        "bounding set": {f"capability {bit}" for bit in capabilities(answer["status"], "CapBnd")},
        "inheritable": {f"capability {bit}" for bit in capabilities(answer["status"], "CapInh")},
        "ambient": {f"capability {bit}" for bit in capabilities(answer["status"], "CapAmb")},
        "privileges gained by exec": {line for line in answer["status"] if line == "NoNewPrivs:\t0"},
        "no filter": {line for line in answer["status"] if line == "Seccomp:\t0"},
        "devices": set(answer["devices"]),
        "readable of what is masked": set(answer["readable"]),
        "writable of the kernel's files": {re.sub(r"\d+", "N", line) for line in answer["writable"]},
        "core files": {"core"} if limits["-c"] != "0" else set(),
        "open descriptors": set(range(int(answer["descriptors"][0]))),
        "cgroup paths of the host": {line for line in answer["cgroup"] if line not in ("/", "")},
        "processes of the host": {"others"} if int(answer["processes"][0]) > 12 else set(),
        "calls that succeed": {line.split()[0] for line in answer["probe"] if line.endswith(" ok")},
        "leaked descriptors": {line for line in answer["probe"] if line.startswith("leaked")},
    }


def looser_mounts(ours, theirs):
    """Mounts of ours that forbid less than theirs at the same place."""
    return {f"mount {point} lacks {','.join(sorted(lost))}" for point, mount in ours.items()
            if point in theirs and (lost := theirs[point]["forbids"] - mount["forbids"]) and mount["type"] != "overlay"}


def show(values):
    text = ", ".join(sorted(map(str, values)))
    return str(len(values)) if len(text) > 60 else text or "–"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--box", required=True)
    parser.add_argument("--work", required=True)
    args = parser.parse_args()
    root, archive = f"{args.work}/rootfs", f"{args.work}/image.tar"
    corpus.run(["bash", "scripts/busybox-rootfs.sh", root])
    corpus.run(["gcc", "-static", "-O1", "-o", f"{root}/probe", "tests/probe.c"])
    corpus.run(["tar", "-C", root, "--owner=0", "--group=0", "--numeric-owner", "-cf", f"{args.work}/rootfs.tar", "."])
    box = tools.Box(args.box, args.work)
    box("import", "--progress", "quiet", f"{args.work}/rootfs.tar", "localhost/probe:1")
    box("save", "-o", archive, "localhost/probe:1")
    cgroup = "/box-sandbox-" + os.path.basename(args.work)
    docker, podman = tools.Docker(args.work, cgroup), tools.Podman(args.work, cgroup)
    try:
        run = ["run", "--rm", "--network", "none", "localhost/probe:1", "sh", "-c", QUESTIONS]
        docker.load(archive)
        podman.load(archive)
        answers = {"box": box(*run), "Docker": docker(*run), "Podman": podman("run", "--rm", "--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--cgroup-parent", cgroup,
                                                                                *run[4:])}
    finally:
        docker.stop()
    answers = {name: sections(text) for name, text in answers.items()}
    every = {name: facts(answer) for name, answer in answers.items()}
    print("| what is allowed | " + " | ".join(every) + " |\n|---|---|---|---|")
    looser = set()
    for fact, ours in every["box"].items():
        print(f"| {fact} | " + " | ".join(show(every[name][fact]) for name in every) + " |")
        looser |= {f"{fact}: {value}" for value in ours - every["Docker"][fact]}
    maps = {name: " ".join(answer["uid_map"][0].split()) for name, answer in answers.items()}
    print("| ids (inside, outside, number) | " + " | ".join(maps.values()) + " |")
    points = {name: mounts(answer["mounts"]) for name, answer in answers.items()}
    print("| mounts | " + " | ".join(str(len(found)) for found in points.values()) + " |")
    looser |= looser_mounts(points["box"], points["Docker"])
    unexplained = {what for what in looser if what not in REASONS}
    for what in sorted(looser):
        print(f"\nlooser than Docker: {what}: {REASONS.get(what, 'NO REASON GIVEN')}")
    print(f"\n{len(looser) - len(unexplained)} explained, {len(unexplained)} not")
    return bool(unexplained)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        sys.exit(f"error: {error}")
