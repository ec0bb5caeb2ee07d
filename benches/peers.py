"""The measuring half of benches/peers: prepares the same work for each tool, lets hyperfine time it, prints the table."""
import json
import os
import statistics
import subprocess
import sys

BOX, WORK = sys.argv[1:3]
ENV = dict(os.environ, DOCKER_BUILDKIT="1", BOX_ROOT=f"{WORK}/store", BUILDAH_LAYERS="true")
DOCKER = "/usr/bin/docker"
STORAGE = f"--root {WORK}/containers --runroot {WORK}/containers-run --storage-driver overlay --runtime runc"
BUILDAH_STORAGE = f"--root {WORK}/containers --runroot {WORK}/containers-run --storage-driver overlay"


def sh(command, **kw):
    """Runs a command, and shows what it printed if it fails."""
    done = subprocess.run(command, shell=True, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kw)
    if done.returncode:
        sys.exit(f"failed ({done.returncode}): {command}\n{done.stdout}")
    return done.stdout


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)


def prepare():
    sh(f"{BOX} import {WORK}/rootfs.tar base")
    sh(f"{DOCKER} import {WORK}/rootfs.tar base")
    sh(f"c=$(buildah {BUILDAH_STORAGE} from scratch) && buildah {BUILDAH_STORAGE} add $c {WORK}/rootfs.tar / "
       f"&& buildah {BUILDAH_STORAGE} commit $c localhost/base && buildah {BUILDAH_STORAGE} rm $c")
    steps = "".join(f"RUN echo step {n}\n" for n in range(20))
    gib = "RUN dd if=/dev/zero of=/big bs=1M count=1024 2>/dev/null\n"
    for name, body in (("echo", steps), ("gib", gib), ("one", "RUN echo one\n")):
        write(f"{WORK}/{name}/Dockerfile", "FROM base\n" + body)
        write(f"{WORK}/{name}-buildah/Dockerfile", "FROM localhost/base\n" + body)


def build(tool, name, cold):
    cache = "--no-cache " if cold else ""
    if tool == "box":
        return f"{BOX} build -q --network none {cache}-t {name} {WORK}/{name}"
    if tool == "docker":
        return f"{DOCKER} build -q --network none {cache}-t {name} {WORK}/{name}"
    return (f"buildah {BUILDAH_STORAGE} bud -q --runtime runc --layers --network none {cache}"
            f"-t {name} {WORK}/{name}-buildah")


def measure(commands, runs, prepare_commands=None):
    """Medians in seconds of `runs` runs each, as A B A B; what is to be prepared before each run, by tool."""
    times = {tool: [] for tool in commands}
    for _ in range(2):
        for tool, command in commands.items():
            report = f"{WORK}/hyperfine.json"
            extra = ["--prepare", prepare_commands[tool]] if prepare_commands else []
            subprocess.run(["hyperfine", "-N" if "&&" not in command and ";" not in command else "--shell=sh",
                            "--warmup", "1", "--runs", str(max(2, runs // 2)), "--export-json", report,
                            "--output", "null", *extra, command],
                           env=ENV, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            with open(report) as file:
                times[tool] += json.load(file)["results"][0]["times"]
    return {tool: statistics.median(values) for tool, values in times.items()}


def peak_memory(command):
    """The largest resident set of the command and what it waited for, in MB."""
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exec " + command + " >/dev/null"], ENV)
    _, status, usage = os.wait4(pid, 0)
    if status:
        sys.exit(f"failed: {command}")
    return usage.ru_maxrss / 1000


def syscalls(command):
    """How many system calls the command and everything it starts make."""
    report = f"{WORK}/strace"
    sh(f"strace -f -c -o {report} {command}")
    with open(report) as file:
        return int(next(line for line in file if line.rstrip().endswith("total")).split()[3])


def row(what, times, goal, tools=("box", "docker", "buildah", "bare")):
    def cell(tool):
        if tool not in times:
            return "–"
        return f"{times[tool] * 1000:.1f} ms" + (f" ({times[tool] / times['box']:.1f}×)" if tool != "box" else "")
    print(f"| {what} | {' | '.join(cell(tool) for tool in tools)} | {goal} |", flush=True)


def main():
    prepare()
    print("Medians; in brackets how many times box's own time that is. `--network none` on every side.\n")
    print("| work | box | Docker/BuildKit | buildah, podman | bare | goal |\n|---|---|---|---|---|---|")
    tools = ("box", "docker", "buildah")
    row("20 `RUN echo` steps, cold", measure({t: build(t, "echo", True) for t in tools}, 10), "≤ 250 ms, ≥ 20× BuildKit")
    for tool in tools:
        sh(build(tool, "echo", False))
    row("the same, nothing changed", measure({t: build(t, "echo", False) for t in tools}, 20), "≤ 10 ms")
    bwrap = f"bwrap --unshare-all --bind {WORK}/rootfs / --proc /proc --dev /dev true"
    runs = {"box": f"{BOX} run --rm --network none base true", "docker": f"{DOCKER} run --rm --network none base true",
            "buildah": f"podman {STORAGE} run --rm --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 --network none localhost/base true", "bare": bwrap}
    row("`run --rm … true` (bare: bwrap)", measure(runs, 20), "≤ 10 ms, ≤ 3× bwrap")
    dd = (f"dd if=/dev/zero of={WORK}/bare-big bs=1M count=1024 2>/dev/null && sync -f {WORK}/bare-big"
          f" && sha256sum {WORK}/bare-big")
    commands = {t: build(t, "gib", True) for t in tools} | {"bare": dd}
    row("RUN that writes 1 GiB (bare: dd, syncfs, sha256sum)", measure(commands, 6), "≤ 1.25× bare")
    print()
    for what, command in (("20 steps, cold", build("box", "echo", True)), ("20 steps, unchanged", build("box", "echo", False)),
                          ("1 GiB", build("box", "gib", True)), ("run", runs["box"])):
        print(f"- peak memory of box, {what}: {peak_memory(command):.0f} MB (goal ≤ 40)")
    print(f"- system calls of an unchanged build of 20 steps: {syscalls(build('box', 'echo', False))}")
    sh(build("box", "one", False))
    print(f"- system calls of a cold build with one RUN step, its container included: {syscalls(build('box', 'one', True))}")
    print(f"- system calls of `run --rm … true`: {syscalls(runs['box'])}")


if __name__ == "__main__":
    main()
