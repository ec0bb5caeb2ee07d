"""Push, pull, load and save of a Debian image with gcc, by box, Docker, podman and skopeo, with a registry on the loopback interface."""
import os
import shutil
import socket
import subprocess
import time

from peers import BOX, DOCKER, STORAGE, WORK, measure, peak_memory, row, sh, write

TOOLS = ("box", "docker", "podman", "skopeo", "bare")
PODMAN = f"podman {STORAGE}"
STORE = f"{WORK}/store"
# What box keeps of a push goes, so that the next one compresses again.
FORGET = f"sh -c 'rm -rf {STORE}/records/packed* {STORE}/records/manifest && {BOX} gc'"


def start_registry():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    write(f"{WORK}/registry.yml", f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
          f"storage: {{filesystem: {{rootdirectory: {WORK}/registry}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n")
    server = subprocess.Popen(["docker-registry", "serve", f"{WORK}/registry.yml"], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return server, f"127.0.0.1:{port}"
        time.sleep(0.1)
    raise SystemExit("docker-registry does not start")


def prepare(host):
    """The same image in each tool's store, as `HOST/TOOL`."""
    write(f"{WORK}/gcc/Dockerfile", "FROM debian\nRUN apt-get update && apt-get install -y --no-install-recommends gcc make\n")
    sh(f"{BOX} import {WORK}/debian.tar debian")
    sh(f"{BOX} build -q -t {host}/box {WORK}/gcc")
    sh(f"{BOX} save -o {WORK}/image.tar {host}/box")
    sh(f"{DOCKER} load -i {WORK}/image.tar && {DOCKER} tag {host}/box {host}/docker")
    sh(f"{PODMAN} load -i {WORK}/image.tar && {PODMAN} tag {host}/box {host}/podman")
    shown = next(line for line in sh(f"{BOX} images").splitlines() if f"{host}/box" in line)
    print(f"The image: {' '.join(shown.split()[-2:])}; its archive {os.path.getsize(f'{WORK}/image.tar') / 1e6:.0f} MB\n")


def pushes(host):
    clear = f"rm -rf {WORK}/registry/docker"
    box = f"{BOX} push -q {host}/box"
    docker = f"{DOCKER} push -q {host}/docker"
    podman = f"{PODMAN} push -q --tls-verify=false {host}/podman"
    again = {"box": f"sh -c \"{FORGET[7:-1]} && {clear}\"", "docker": clear, "podman": clear}
    commands = {"box": box, "docker": docker, "podman": podman}
    row("push, gzip", measure(commands, 4, again), "≥ 3× docker", TOOLS)
    zstd = commands | {"box": f"{BOX} push -q --compression zstd {host}/box"}
    row("push, zstd by box, gzip by the others", measure(zstd, 4, again), "≥ 6× docker", TOOLS)
    for command in commands.values():
        sh(command)
    row("push of the same again", measure(commands, 10), "≤ 0.1 s", TOOLS)
    return box, again["box"]


def pulls(host):
    clear = {"box": f"sh -c '{BOX} rmi -f {host}/box; {BOX} prune'",
             "docker": f"sh -c '{DOCKER} rmi -f {host}/docker; {DOCKER} rmi -f {host}/box; true'",
             "podman": f"sh -c '{PODMAN} rmi -af; true'", "skopeo": f"rm -rf {WORK}/copy",
             "bare": f"rm -rf {WORK}/bare"}
    blob = max((os.path.join(d, f) for d, _, files in os.walk(f"{WORK}/registry") for f in files), key=os.path.getsize)
    commands = {"box": f"{BOX} pull -q {host}/box", "docker": f"{DOCKER} pull -q {host}/docker",
                "podman": f"{PODMAN} pull -q --tls-verify=false {host}/podman",
                "skopeo": f"skopeo copy -q --src-tls-verify=false docker://{host}/box oci:{WORK}/copy:1",
                "bare": f"mkdir {WORK}/bare && tar -xzf {blob} -C {WORK}/bare"}
    row("pull (skopeo: not unpacked; bare: tar -xzf of the largest layer)", measure(commands, 6, clear), "≤ 3 s, ≥ 3×", TOOLS)
    return commands["box"], clear["box"]


def archives(host):
    sh(f"{BOX} pull -q {host}/box")
    clear = {"box": f"sh -c '{BOX} rmi -f {host}/box; {BOX} prune'",
             "docker": f"sh -c '{DOCKER} rmi -f $({DOCKER} images -q); true'", "podman": f"sh -c '{PODMAN} rmi -af; true'",
             "skopeo": f"rm -rf {WORK}/copy"}
    load = {"box": f"{BOX} load -q -i {WORK}/image.tar", "docker": f"{DOCKER} load -q -i {WORK}/image.tar",
            "podman": f"{PODMAN} load -q -i {WORK}/image.tar",
            "skopeo": f"skopeo copy -q oci-archive:{WORK}/image.tar oci:{WORK}/copy:1"}
    row("load (skopeo: not unpacked)", measure(load, 4, clear), "–", TOOLS)
    gone = {tool: f"rm -f {WORK}/saved.tar" for tool in TOOLS}
    save = {"box": f"{BOX} save -o {WORK}/saved.tar {host}/box", "docker": f"{DOCKER} save -o {WORK}/saved.tar {host}/box",
            "podman": f"{PODMAN} save -q --format oci-archive -o {WORK}/saved.tar {host}/box",
            "skopeo": f"skopeo copy -q oci:{WORK}/copy:1 oci-archive:{WORK}/saved.tar"}
    row("save (docker: not compressed)", measure(save, 4, gone), "–", TOOLS)
    return save["box"], load["box"], clear["box"]


def main():
    server, host = start_registry()
    try:
        prepare(host)
        print("| work | box | Docker | podman | skopeo | bare | goal |\n|---|---|---|---|---|---|---|")
        push, forget = pushes(host)
        pull, clear = pulls(host)
        save, load, empty = archives(host)
        print()
        for what, before, command in (("push", forget, push), ("pull", clear, pull), ("save", "true", save), ("load", empty, load)):
            sh(before)
            print(f"- peak memory of box, {what}: {peak_memory(command):.0f} MB (goal ≤ 64)")
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(f"{WORK}/registry", ignore_errors=True)


main()
