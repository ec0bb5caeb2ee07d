"""The image that is exchanged: all that a layer can hold and that some tool might lose."""
import io
import os
import re
import shutil
import subprocess
import tarfile

HERE = os.path.dirname(os.path.abspath(__file__))
MARKER = "the image runs"
LONG = "n" * 240
DEEP = "/".join(["deep" * 25] * 4)

# Scripts of the context, each a RUN; Docker's classic builder and Podman's containers do the same steps.
STEPS = [
    # What the next layers take away, hide or replace.
    """mkdir -p /gone-dir/sub /opaque/old /kind/dir
echo x >/gone-file; echo x >/gone-dir/sub/x; echo x >/opaque/old/x; echo kept >/kept
echo x >/kind/file; ln -s file /kind/link; echo x >/kind/dir/x
mkdir /hard; echo one file >/hard/a; ln /hard/a /hard/b; ln /hard/a /hard/c
ln -s ../kept /hard/relative; ln -s /kept /hard/absolute; ln -s nowhere /hard/dangling; ln -s . /hard/loop
""",
    f"""mkdir -p /names/{DEEP} /names/{LONG}
echo deep >/names/{DEEP}/file; echo long >/names/{LONG}/{LONG}
ln -s {DEEP}/file /names/link; ln /names/{DEEP}/file /names/hard
echo latin >"/names/$(printf 'caf\\351')"; echo space >"/names/a b"; echo line >"/names/$(printf 'new\\nline')"
echo umlaut >/names/\u00e4; echo not a whiteout >/names/wh.x; echo dots >/names/..x; ln -s "$(printf 'caf\\351')" /names/link-to-latin
mkdir /modes /empty; cd /modes
for m in 0 200 644 755 2755 4755 1777 7777; do echo $m >$m; mkdir d$m; chown 1000:1000 $m; chmod $m $m d$m; done
chown 0:65534 755; chown 60000:65535 d755; ln -s 644 owned-link; chown -h 55:66 owned-link
mkdir /special; cd /special
mkfifo pipe; chmod 640 pipe; truncate -s 8M sparse; echo end >>sparse; : >empty-file; chmod 711 /special
""",
    # Whiteouts, opaque directories, paths that become of another kind, and a file of several names of which one changes.
    """rm /gone-file /base/gone; rm -r /gone-dir /opaque /base/opaque /base/opaque-empty
mkdir /opaque /base/opaque /base/opaque-empty; echo new >/opaque/new; echo new >/base/opaque/new
rm /kind/file /kind/link; rm -r /kind/dir; mkdir /kind/file /kind/link; echo y >/kind/file/y; echo file >/kind/dir
echo more >>/hard/b; chmod 700 /base/mode
""",
    """setfattr -n user.step -v of-a-step /kept; setfattr -n user.dir -v of-a-directory /empty
cp /bin/busybox /special/capable
[ ! -e /bin/setcap ] || setcap cap_net_raw+ep /special/capable
""",
]
BOXFILE = f"""FROM localhost/base:1
COPY steps /steps/
{''.join(f'RUN sh -e /steps/{number}' + chr(10) for number in range(len(STEPS)))}
COPY file tree /copied/
COPY --chown=7:8 file /owned
ADD archive.tar /added/
ENV GREETING="{MARKER}" EMPTY=
WORKDIR /work
LABEL of=interop
CMD ["sh", "-c", "echo $GREETING"]
"""
# What box's image must be for the comparisons to mean something.
HOLDS = {
    "/": {"mode": "751"},
    "/names/caf\udce9": {"size": 6},
    f"/names/{DEEP}/file": {"same file": [f"/names/{DEEP}/file", "/names/hard"]},
    f"/names/{LONG}/{LONG}": {"size": 5},
    # Overlay file systems part a name from the others when it is written through.
    "/hard/a": {"same file": ["/hard/a", "/hard/c"], "size": 9},
    "/hard/b": {"same file": ["/hard/b"], "size": 14},
    "/base/hard": {"same file": ["/base/hard", "/base/hard-too"]},
    "/base/null": {"type": "char", "device": "1:3"},
    "/base/block": {"type": "block", "device": "7:99"},
    "/base/pipe": {"type": "fifo", "mode": "600"},
    "/base/mode": {"mode": "700", "xattrs": {"user.binary": bytes(range(256)).hex()}},
    "/base/far": {"owner": "1234567:2345678"},
    "/base/opaque": {"type": "directory"},
    "/special/pipe": {"type": "fifo", "mode": "640"},
    "/special/sparse": {"size": (8 << 20) + 4},
    "/special/capable": {"xattrs": {"security.capability": "0100000200200000000000000000000000000000"}},
    "/modes/4755": {"mode": "4755", "owner": "1000:1000"},
    "/modes/d7777": {"mode": "7777"},
    "/kept": {"xattrs": {"user.step": b"of-a-step".hex()}},
    "/kind/file": {"type": "directory"},
    "/kind/dir": {"type": "file"},
    "/owned": {"mode": "4750", "owner": "7:8"},
    "/copied/attributed": {"xattrs": {"user.of-the-context": b"value".hex()}},
    "/added/folder/file": {"mode": "6711", "owner": f"{1 << 20}:0", "mtime": 1234567890},
}
GONE = ["/gone-file", "/gone-dir", "/opaque/old", "/base/gone", "/base/opaque/old", "/base/opaque-empty/x", "/kind/dir/x"]


def lacks(tree):
    """What the image ought to be and is not."""
    wrong = [f"{path} is still there" for path in GONE if path in tree]
    for path, facts in HOLDS.items():
        found = tree.get(path, {})
        wrong += [f"{path} {fact}: {found.get(fact)}, not {wanted}" for fact, wanted in facts.items() if found.get(fact) != wanted]
    return wrong


def write(path, text, mode=0o644):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)


def make_base(work):
    """A tar of the root file system below the image: busybox, and what a RUN can't make."""
    root, archive = os.path.join(work, "base"), os.path.join(work, "base.tar")
    subprocess.run(["bash", os.path.join(HERE, "..", "scripts", "busybox-rootfs.sh"), root], check=True)
    for name in ("gone", "opaque/old/x", "opaque-empty/x", "mode", "far", "hard"):
        write(f"{root}/base/{name}", name + "\n")
    os.link(f"{root}/base/hard", f"{root}/base/hard-too")
    os.mkfifo(f"{root}/base/pipe", 0o600)
    os.mknod(f"{root}/base/null", 0o020666, os.makedev(1, 3))
    os.mknod(f"{root}/base/block", 0o060640, os.makedev(7, 99))
    os.setxattr(f"{root}/base/mode", "user.binary", bytes(range(256)))
    os.setxattr(f"{root}/base", "user.of-a-directory", b"value")
    os.setxattr(f"{root}/base/far", "user.empty", b"")
    os.chmod(root, 0o751)
    os.chown(f"{root}/base/far", 1234567, 2345678)
    add_program(root, "setfattr")
    if add_program(root, "setcap"):
        shutil.copy("/bin/busybox", f"{root}/base/capable")
        subprocess.run(["setcap", "cap_net_bind_service=+ep", f"{root}/base/capable"], check=True)
    subprocess.run(["tar", "-C", root, "--xattrs", "--xattrs-include=*", "--sort=name", "--mtime=@1704067200", "--numeric-owner",
                    "-cf", archive, "."], check=True)
    return archive


def add_program(root, name):
    """A program of this machine, if it is there, with the libraries that it needs."""
    path = shutil.which(name)
    if path:
        libraries = subprocess.run(["ldd", path], check=True, stdout=subprocess.PIPE, text=True).stdout
        for library in re.findall(r"(/\S+) \(0x", libraries):
            os.makedirs(root + os.path.dirname(library), exist_ok=True)
            shutil.copy(library, root + library)
        shutil.copy(path, f"{root}/bin/{name}")
    return path


def make_context(work):
    context = os.path.join(work, "context")
    for number, step in enumerate(STEPS):
        write(f"{context}/steps/{number}", step)
    write(f"{context}/file", "of the context\n", 0o4750)
    write(f"{context}/tree/below/file", "below\n")
    os.link(f"{context}/tree/below/file", f"{context}/tree/hard")
    os.symlink("below/file", f"{context}/tree/link")
    write(f"{context}/tree/attributed", "attributed\n")
    os.setxattr(f"{context}/tree/attributed", "user.of-the-context", b"value")
    write(f"{context}/Boxfile", BOXFILE)
    with tarfile.open(f"{context}/archive.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        add(tar, "folder", type=tarfile.DIRTYPE, mode=0o2775, uid=5, gid=6, mtime=1234567890)
        file = {"mode": 0o6711, "uid": 1 << 20, "mtime": 1234567890.75, "pax_headers": {"SCHILY.xattr.user.of-the-archive": "\u00e4"}}
        add(tar, "folder/file", b"file\n", **file)
        add(tar, "folder/name", type=tarfile.LNKTYPE, linkname="folder/file", **file)
        add(tar, "folder/link", type=tarfile.SYMTYPE, linkname="/" + DEEP, uid=9)
        add(tar, "folder/future", b"later\n", mtime=4102444800)
    return context


def add(tar, name, data=b"", mode=0o644, **facts):
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), mode
    for key, value in facts.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(data))
