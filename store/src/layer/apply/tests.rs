//! Hostile and honest archives, each with what must come out, beside a tree that nothing may touch.

// Tables of cases.
#![allow(clippy::too_many_lines)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::archive::{Archive, Head, checksum, header, pax};
use super::*;

const LAYER: Source = Source::Layer {
    opaque_xattr: "trusted.overlay.opaque",
};

/// A root to extract to, with things beside it that must stay as they are.
struct Ground {
    _temp: tempfile::TempDir,
    base: PathBuf,
}

impl Ground {
    fn new() -> Ground {
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path().to_path_buf();
        fs::create_dir_all(base.join("canary/dir")).unwrap();
        fs::create_dir(base.join("root")).unwrap();
        fs::write(base.join("canary/secret"), "secret").unwrap();
        fs::set_permissions(base.join("canary/secret"), fs::Permissions::from_mode(0o400)).unwrap();
        std::os::unix::fs::symlink("secret", base.join("canary/link")).unwrap();
        Ground { _temp: temp, base }
    }

    fn outside(&self) -> BTreeMap<PathBuf, String> {
        let mut all = listing(&self.base);
        all.retain(|path, _| !path.starts_with("root") && !path.as_os_str().is_empty());
        all
    }

    fn apply(&self, source: Source, tar: &[u8], limits: &Limits) -> Result<Extracted, ApplyError> {
        let root = fs::File::open(self.base.join("root")).unwrap();
        let how = Extract {
            is_into_users: false,
            source,
            limits,
            retime: None,
        };
        extract(root.as_fd(), tar, &how).map(|(extracted, _)| extracted)
    }

    fn root(&self) -> PathBuf {
        self.base.join("root")
    }
}

/// Everything that can be seen of a tree.
fn listing(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    for entry in walkdir::WalkDir::new(root) {
        let entry = entry.unwrap();
        let meta = entry.path().symlink_metadata().unwrap();
        let content = match meta.file_type() {
            t if t.is_file() => format!("{:?}", fs::read(entry.path()).unwrap()),
            t if t.is_symlink() => format!("-> {:?}", fs::read_link(entry.path()).unwrap()),
            t => format!("{t:?}"),
        };
        let about = format!(
            "{:o} {}:{} {}.{} {} {content}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.nlink()
        );
        all.insert(entry.path().strip_prefix(root).unwrap().to_path_buf(), about);
    }
    all
}

fn long(length: usize) -> String {
    "x".repeat(length)
}

/// `Err` holds a piece of the error's text, `Ok` the paths that must be there, no more and no less.
type Expected = Result<&'static [&'static str], &'static str>;

struct Case {
    id: &'static str,
    source: Source,
    tar: Vec<u8>,
    expected: Expected,
}

fn rootfs(id: &'static str, tar: Vec<u8>, expected: Expected) -> Case {
    Case {
        id,
        source: Source::Rootfs,
        tar,
        expected,
    }
}

fn layer(id: &'static str, tar: Vec<u8>, expected: Expected) -> Case {
    Case {
        id,
        source: LAYER,
        tar,
        expected,
    }
}

fn a() -> Archive {
    Archive::default()
}

fn check(cases: Vec<Case>) {
    let limits = Limits {
        max_entries: 1000,
        max_expanded: 4 << 20,
        ..Limits::default()
    };
    let mut wrong = Vec::new();
    for case in &cases {
        let ground = Ground::new();
        let before = ground.outside();
        let result = ground.apply(case.source, &case.tar, &limits);
        if ground.outside() != before {
            wrong.push(format!("{}: TOUCHED WHAT IS OUTSIDE", case.id));
        }
        let fits = match (&result, case.expected) {
            (Ok(_), Ok(paths)) => {
                let mut found = listing(&ground.root());
                found.remove(Path::new(""));
                found
                    .keys()
                    .map(|p| p.to_string_lossy().into_owned())
                    .collect::<Vec<_>>()
                    == paths
            }
            (Err(e), Err(text)) => e.to_string().contains(text),
            _ => false,
        };
        if !fits {
            let shown = result.map(|_| listing(&ground.root())).map_err(|e| e.to_string());
            wrong.push(format!(
                "{}: expected {:?}, got {shown:#?}",
                case.id, case.expected
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} cases:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

#[test]
fn names_that_lead_out() {
    check(vec![
        rootfs("dotdot", a().file("../x", b"1").end(), Err("contains `..`")),
        rootfs(
            "dotdot-inside",
            a().dir("d").file("d/../../canary/x", b"1").end(),
            Err("contains `..`"),
        ),
        rootfs(
            "dotdot-harmless",
            a().dir("d").file("d/../x", b"1").end(),
            Err("contains `..`"),
        ),
        rootfs("dotdot-alone", a().file("..", b"1").end(), Err("contains `..`")),
        rootfs("dotdot-end", a().dir("d/..").end(), Err("contains `..`")),
        rootfs(
            "dotdot-absolute",
            a().file("/../x", b"1").end(),
            Err("contains `..`"),
        ),
        rootfs(
            "dotdot-pax",
            a().pax(&[("path", b"../x")]).file("x", b"1").end(),
            Err("contains `..`"),
        ),
        rootfs(
            "dotdot-long-name",
            a().extension(b'L', b"../x\0").file("x", b"1").end(),
            Err("contains `..`"),
        ),
        rootfs("three-dots", a().file("...", b"1").end(), Ok(&["..."])),
        rootfs(
            "absolute",
            a().file("/etc/passwd", b"1").end(),
            Ok(&["etc", "etc/passwd"]),
        ),
        rootfs(
            "many-slashes",
            a().file("//etc//./passwd", b"1").end(),
            Ok(&["etc", "etc/passwd"]),
        ),
        rootfs("dot-slash", a().dir("./").file("./x", b"1").end(), Ok(&["x"])),
        rootfs("root-as-file", a().file("./", b"").end(), Err("name ends in `/`")),
        rootfs(
            "CVE-2021-29136 root-as-file",
            a().file(".", b"").end(),
            Err("means the root"),
        ),
        rootfs(
            "CVE-2021-29136 root-as-link",
            a().sym("/", "/tmp").end(),
            Err("means the root"),
        ),
        rootfs(
            "root-as-hard-link",
            a().file("x", b"").hard(".", "x").end(),
            Err("means the root"),
        ),
        rootfs("empty-name", a().file("", b"1").end(), Err("means the root")),
        rootfs(
            "nul-in-pax-name",
            a().pax(&[("path", b"a\0b")]).file("x", b"").end(),
            Err("NUL"),
        ),
        rootfs(
            "nul-in-pax-link",
            a().pax(&[("linkpath", b"a\0b")]).sym("x", "y").end(),
            Err("NUL"),
        ),
        rootfs(
            "long-component",
            a().pax(&[("path", long(256).as_bytes())]).file("x", b"").end(),
            Err("File name too long"),
        ),
        rootfs(
            "long-path",
            a().pax(&[("path", "d/".repeat(2100).as_bytes())]).dir("x").end(),
            Err("longer than 4095"),
        ),
        rootfs(
            "deep-path",
            a().pax(&[("path", "d/".repeat(600).as_bytes())]).dir("x").end(),
            Err("more than 512 directories deep"),
        ),
        rootfs(
            "long-target",
            a().pax(&[("linkpath", long(4096).as_bytes())])
                .sym("x", "y")
                .end(),
            Err("4095"),
        ),
        rootfs("no-target", a().sym("x", "").end(), Err("without a target")),
        rootfs("no-hard-target", a().hard("x", "").end(), Err("without a target")),
    ]);
}

#[test]
fn links_that_lead_out() {
    let through = "is a symbolic link, and entries are not written through links";
    check(vec![
        rootfs(
            "through-absolute",
            a().sym("l", "/tmp").file("l/x", b"1").end(),
            Err(through),
        ),
        rootfs(
            "through-relative",
            a().sym("l", "../canary").file("l/x", b"1").end(),
            Err(through),
        ),
        rootfs(
            "through-inner",
            a().dir("d").sym("l", "d").file("l/x", b"1").end(),
            Err(through),
        ),
        rootfs(
            "through-deep",
            a().sym("a/l", "../../canary").file("a/l/b/c", b"1").end(),
            Err(through),
        ),
        rootfs(
            "through-two",
            a().sym("a", "b").sym("b", "../canary").file("a/x", b"1").end(),
            Err(through),
        ),
        rootfs(
            "through-loop",
            a().sym("a", "a").file("a/x", b"1").end(),
            Err(through),
        ),
        rootfs(
            "through-proc",
            a().sym("l", "/proc/self/root").file("l/x", b"1").end(),
            Err(through),
        ),
        rootfs(
            "through-fd",
            a().sym("l", "/proc/self/cwd").dir("l/x").end(),
            Err(through),
        ),
        rootfs(
            "RUSTSEC-2026-0067 dir-through",
            a().sym("l", "../canary").dir("l/new").end(),
            Err(through),
        ),
        rootfs(
            "fifo-through",
            a().sym("l", "../canary").node(b'6', "l/new", (0, 0)).end(),
            Err(through),
        ),
        rootfs(
            "link-through",
            a().sym("l", "../canary").sym("l/new", "x").end(),
            Err(through),
        ),
        rootfs(
            "hard-through",
            a().file("f", b"").sym("l", "../canary").hard("l/new", "f").end(),
            Err(through),
        ),
        rootfs(
            "file-over-link",
            a().sym("l", "../canary/secret").file("l", b"mine").end(),
            Ok(&["l"]),
        ),
        rootfs(
            "RUSTSEC-2026-0067 dir-over-link",
            a().sym("l", "../canary").dir("l").file("l/x", b"1").end(),
            Ok(&["l", "l/x"]),
        ),
        rootfs(
            "link-over-dir",
            a().dir("d").file("d/f", b"").sym("d", "../canary").end(),
            Ok(&["d"]),
        ),
        rootfs(
            "CVE-2025-47290 link-over-dir-then-in",
            a().dir("d")
                .file("d/f", b"")
                .sym("d", "../canary")
                .file("d/secret", b"x")
                .end(),
            Err(through),
        ),
        rootfs(
            "below-a-file",
            a().file("f", b"").file("f/x", b"").end(),
            Err("`f` is not a directory"),
        ),
        rootfs(
            "below-a-fifo",
            a().node(b'6', "p", (0, 0)).dir("p/x").end(),
            Err("`p` is not a directory"),
        ),
        rootfs(
            "proc-as-link",
            a().sym("proc", "../canary")
                .sym("dev", "/dev")
                .sym("sys", "/sys")
                .end(),
            Ok(&["dev", "proc", "sys"]),
        ),
        rootfs(
            "hard-out",
            a().hard("x", "../canary/secret").end(),
            Err("target `../canary/secret` contains `..`"),
        ),
        rootfs(
            "hard-out-absolute",
            a().hard("x", "/etc/passwd").end(),
            Err("is not in this layer"),
        ),
        rootfs(
            "hard-to-nothing",
            a().hard("x", "y").end(),
            Err("is not in this layer"),
        ),
        rootfs(
            "hard-forward",
            a().hard("x", "y").file("y", b"").end(),
            Err("is not in this layer"),
        ),
        rootfs(
            "hard-to-itself",
            a().file("x", b"").hard("x", "x").end(),
            Err("hard link to itself"),
        ),
        rootfs(
            "hard-to-itself-2",
            a().file("x", b"").hard("./x", "/x").end(),
            Err("hard link to itself"),
        ),
        rootfs(
            "hard-to-dir",
            a().dir("d").hard("x", "d").end(),
            Err("neither a regular file nor"),
        ),
        rootfs(
            "hard-to-root",
            a().hard("x", "/").end(),
            Err("neither a regular file nor"),
        ),
        rootfs(
            "hard-to-fifo",
            a().node(b'6', "p", (0, 0)).hard("x", "p").end(),
            Err("neither a regular file nor"),
        ),
        rootfs(
            "hard-through-link",
            a().sym("l", "../canary").hard("x", "l/secret").end(),
            Err(through),
        ),
        rootfs(
            "hard-into-replaced",
            a().file("d/f", b"").hard("d", "d/f").end(),
            Err("is not in this layer"),
        ),
        rootfs(
            "hard-to-link",
            a().sym("l", "../canary/secret").hard("x", "l").end(),
            Ok(&["l", "x"]),
        ),
        rootfs(
            "hard-to-link-then-write",
            a().sym("l", "../canary/secret")
                .hard("x", "l")
                .file("x", b"mine")
                .end(),
            Ok(&["l", "x"]),
        ),
        layer(
            "layer-through-out",
            a().sym("l", "../../canary").file("l/x", b"1").end(),
            Ok(&["canary", "canary/x", "l"]),
        ),
        layer(
            "layer-through-absolute",
            a().dir("d").sym("l", "/d").file("l/x", b"1").end(),
            Ok(&["d", "d/x", "l"]),
        ),
        layer(
            "layer-through-loop",
            a().sym("a", "b").sym("b", "a").file("a/x", b"").end(),
            Err("does not lead"),
        ),
        layer(
            "layer-through-self",
            a().sym("a", "a/a").file("a/x", b"").end(),
            Err("does not lead"),
        ),
        layer(
            "layer-through-file",
            a().file("f", b"").sym("l", "f").file("l/x", b"").end(),
            Err("not a directory"),
        ),
        layer("layer-dotdot", a().file("../x", b"").end(), Err("contains `..`")),
        layer(
            "layer-hard-dotdot",
            a().hard("x", "../canary/secret").end(),
            Err("contains `..`"),
        ),
    ]);
}

#[test]
fn replacements_leave_nothing_of_the_old() {
    check(vec![
        rootfs(
            "file-twice",
            a().file("f", b"long content").file("f", b"s").end(),
            Ok(&["f"]),
        ),
        rootfs(
            "dir-to-file",
            a().file("d/a/b/c", b"").file("d", b"").end(),
            Ok(&["d"]),
        ),
        rootfs(
            "file-to-dir",
            a().file("f", b"").dir("f").file("f/x", b"").end(),
            Ok(&["f", "f/x"]),
        ),
        rootfs(
            "dir-twice",
            a().dir("d").file("d/x", b"").dir("d").end(),
            Ok(&["d", "d/x"]),
        ),
        rootfs(
            "dir-to-fifo",
            a().file("d/x", b"").node(b'6', "d", (0, 0)).end(),
            Ok(&["d"]),
        ),
        rootfs(
            "dir-to-file-to-dir",
            a().dir("d")
                .file("d/x", b"")
                .file("d", b"")
                .dir("d")
                .file("d/y", b"")
                .end(),
            Ok(&["d", "d/y"]),
        ),
    ]);
    let ground = Ground::new();
    let tar = a().file("f", b"old").hard("g", "f").file("f", b"new").end();
    ground.apply(Source::Rootfs, &tar, &Limits::default()).unwrap();
    assert_eq!(fs::read(ground.root().join("f")).unwrap(), b"new");
    assert_eq!(
        fs::read(ground.root().join("g")).unwrap(),
        b"old",
        "the other name keeps the old content"
    );
}

#[test]
fn headers_that_tools_read_differently() {
    let hidden = a().file("evil", b"x").0;
    let sized = |size: &[u8]| a().pax(&[("size", size)]).file("f", &hidden).end();
    let head = |flag, size| Head {
        flag,
        size: Some(size),
        link: b"t",
        ..Head::default()
    };
    check(vec![
        rootfs(
            "CVE-2025-62518 pax-size-smaller",
            sized(b"0"),
            Err("header says 1024 bytes and its PAX header 0"),
        ),
        rootfs(
            "RUSTSEC-2026-0068 pax-size-larger",
            sized(b"4096"),
            Err("header says 1024 bytes and its PAX header 4096"),
        ),
        rootfs(
            "pax-size-huge",
            sized(b"18446744073709551615"),
            Err("out of range"),
        ),
        rootfs(
            "pax-size-8g",
            sized(b"8589934592"),
            Err("4194304 bytes when uncompressed"),
        ),
        rootfs("pax-size-negative", sized(b"-1"), Err("size is not a number")),
        rootfs("pax-size-equal", sized(b"1024"), Ok(&["f"])),
        rootfs(
            "pax-two-sizes",
            a().pax(&[("size", b"0"), ("size", b"1")]).file("f", b"").end(),
            Err("given twice"),
        ),
        rootfs(
            "CVE-2025-62518 pax-size-on-long-name",
            a().pax(&[("size", b"1024")])
                .extension(b'L', b"long\0")
                .file("f", &hidden)
                .end(),
            Ok(&["long"]),
        ),
        rootfs(
            "two-pax",
            a().pax(&[]).pax(&[]).file("f", b"").end(),
            Err("two PAX headers"),
        ),
        rootfs(
            "two-long-names",
            a().extension(b'L', b"a\0")
                .extension(b'L', b"b\0")
                .file("f", b"")
                .end(),
            Err("two GNU long name headers"),
        ),
        rootfs(
            "two-long-links",
            a().extension(b'K', b"a\0")
                .extension(b'K', b"b\0")
                .sym("f", "x")
                .end(),
            Err("two GNU long link headers"),
        ),
        rootfs(
            "gnu-and-pax-names",
            a().extension(b'L', b"a\0")
                .pax(&[("path", b"b")])
                .file("f", b"")
                .end(),
            Err("name is given twice, differently"),
        ),
        rootfs(
            "gnu-and-pax-links",
            a().extension(b'K', b"a\0")
                .pax(&[("linkpath", b"b")])
                .sym("f", "x")
                .end(),
            Err("link target is given twice, differently"),
        ),
        rootfs(
            "gnu-and-pax-agree",
            a().extension(b'L', b"a\0")
                .pax(&[("path", b"a")])
                .file("f", b"")
                .end(),
            Ok(&["a"]),
        ),
        rootfs(
            "hard-link-with-data",
            a().file("t", b"").head(head(b'1', 512)).end(),
            Err("hard link with 512 bytes"),
        ),
        rootfs(
            "symlink-with-data",
            a().head(head(b'2', 512)).end(),
            Err("symbolic link with 512 bytes"),
        ),
        rootfs(
            "dir-with-data",
            a().head(head(b'5', 512)).end(),
            Err("directory with 512 bytes"),
        ),
        rootfs(
            "fifo-with-data",
            a().head(head(b'6', 512)).end(),
            Err("FIFO with 512 bytes"),
        ),
        rootfs(
            "device-with-data",
            a().head(head(b'3', 512)).end(),
            Err("device with 512 bytes"),
        ),
        rootfs(
            "file-with-slash",
            a().file("f/", b"x").end(),
            Err("name ends in `/`"),
        ),
        rootfs(
            "old-dir",
            a().head(Head {
                name: b"d/",
                flag: 0,
                ..Head::default()
            })
            .end(),
            Ok(&["d"]),
        ),
        rootfs(
            "contiguous",
            a().head(Head {
                flag: b'7',
                ..Head::default()
            })
            .end(),
            Ok(&["f"]),
        ),
        rootfs(
            "unknown-type",
            a().head(head(b'Q', 0)).end(),
            Err("entry `f`: its type `Q` (0x51) is not known"),
        ),
        rootfs("unknown-type-control", a().head(head(1, 0)).end(), Err("0x01")),
        rootfs(
            "global-path",
            a().extension(b'g', &pax(&[("path", b"x")])).file("f", b"").end(),
            Err("global PAX"),
        ),
        rootfs(
            "global-comment",
            a().extension(b'g', &pax(&[("comment", b"x")]))
                .file("f", b"")
                .end(),
            Ok(&["f"]),
        ),
        rootfs(
            "volume-label",
            a().head(Head {
                name: b"label",
                flag: b'V',
                ..Head::default()
            })
            .file("f", b"")
            .end(),
            Ok(&["f"]),
        ),
        rootfs(
            "pax-garbage",
            a().extension(b'x', b"garbage").file("f", b"").end(),
            Err("malformed"),
        ),
        rootfs(
            "pax-lying-length",
            a().extension(b'x', b"99 path=x\n").file("f", b"").end(),
            Err("malformed"),
        ),
        rootfs(
            "pax-too-big",
            a().head(Head {
                flag: b'x',
                size: Some(1 << 40),
                ..Head::default()
            })
            .end(),
            Err("extension header is longer than 1048576"),
        ),
        rootfs(
            "xattr-too-big",
            a().pax(&[("SCHILY.xattr.user.x", &[0; 70_000])])
                .file("f", b"")
                .end(),
            Err("extended attribute is longer than 65536"),
        ),
        rootfs(
            "xattr-no-name",
            a().pax(&[("SCHILY.xattr.", b"x")]).file("f", b"").end(),
            Err("proper name"),
        ),
        rootfs(
            "xattr-no-namespace",
            a().pax(&[("SCHILY.xattr.x", b"x")]).file("f", b"").end(),
            Err("set an extended attribute"),
        ),
    ]);
}

#[test]
fn numbers_out_of_range() {
    let with = |place: std::ops::Range<usize>, bytes: &[u8]| {
        let mut h = header(&Head::default());
        h[place.start..place.start + bytes.len()].copy_from_slice(bytes);
        checksum(&mut h);
        a().raw(&h).end()
    };
    let negative = [0xff; 8];
    check(vec![
        rootfs(
            "uid-33-bits",
            a().head(Head {
                uid: 1 << 32,
                ..Head::default()
            })
            .end(),
            Err("uid 4294967296 does not fit"),
        ),
        rootfs(
            "gid-33-bits",
            a().head(Head {
                gid: 1 << 32,
                ..Head::default()
            })
            .end(),
            Err("gid 4294967296 does not fit"),
        ),
        rootfs(
            "uid-minus-one",
            a().head(Head {
                uid: u64::from(u32::MAX),
                ..Head::default()
            })
            .end(),
            Err("does not fit"),
        ),
        rootfs(
            "uid-negative",
            with(108..116, &negative),
            Err("uid -1 does not fit"),
        ),
        rootfs(
            "uid-pax-overflow",
            a().pax(&[("uid", b"4294967296")]).file("f", b"").end(),
            Err("does not fit"),
        ),
        rootfs(
            "uid-pax-negative",
            a().pax(&[("uid", b"-2")]).file("f", b"").end(),
            Err("uid -2 does not fit"),
        ),
        rootfs(
            "uid-text",
            with(108..116, b"root\0\0\0\0"),
            Err("uid is not a number"),
        ),
        rootfs(
            "mode-text",
            with(100..108, b"rwxr-xr-"),
            Err("mode is not a number"),
        ),
        rootfs(
            "size-negative",
            with(124..136, &[0xff; 12]),
            Err("size is out of range"),
        ),
        rootfs(
            "size-96-bits",
            with(124..136, b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
            Err("out of range"),
        ),
        rootfs(
            "size-8-exbi",
            with(124..136, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"),
            Err("4194304 bytes"),
        ),
        rootfs(
            "device-text",
            {
                let mut h = header(&Head {
                    flag: b'3',
                    ..Head::default()
                });
                h[329..337].copy_from_slice(b"notanumb");
                checksum(&mut h);
                a().raw(&h).end()
            },
            Err("device number is not a number"),
        ),
        rootfs(
            "checksum",
            {
                let mut h = header(&Head::default());
                h[0] = b'g';
                a().raw(&h).end()
            },
            Err("checksum is wrong"),
        ),
        rootfs(
            "time-text",
            with(136..148, b"yesterday\0\0\0"),
            Err("time is not a number"),
        ),
    ]);
}

#[test]
fn archives_that_end_too_early_or_are_none() {
    let whole = a().file("f", &[7; 600]).file("g", b"x").end();
    check(vec![
        rootfs("empty", vec![], Err("it is empty")),
        rootfs("one-byte", vec![1], Err("shorter than one header")),
        rootfs("in-header", whole[..700].to_vec(), Err("cut off after 700 bytes")),
        rootfs("in-data", whole[..1000].to_vec(), Err("cut off")),
        rootfs(
            "in-padding",
            whole[..1200].to_vec(),
            Err("the padding after a file"),
        ),
        rootfs("no-end-mark", whole[..1536].to_vec(), Err("the end mark")),
        layer("no-end-mark-in-a-layer", whole[..1536].to_vec(), Ok(&["f"])),
        rootfs(
            "half-end-mark",
            whole[..whole.len() - 512].to_vec(),
            Ok(&["f", "g"]),
        ),
        rootfs(
            "after-half-mark",
            a().raw(&[0; 512]).file("f", b"").end(),
            Err("half an end mark"),
        ),
        rootfs(
            "after-the-end",
            [whole.clone(), a().file("late", b"").end()].concat(),
            Ok(&["f", "g"]),
        ),
        rootfs("only-pax", a().pax(&[("path", b"x")]).end(), Err("cut off")),
        rootfs("only-the-end", a().end(), Ok(&[])),
        rootfs(
            "in-pax",
            a().head(Head {
                flag: b'x',
                size: Some(100),
                ..Head::default()
            })
            .0,
            Err("cut off"),
        ),
        rootfs(
            "zip",
            [&b"PK\x03\x04"[..], &[1; 600]].concat(),
            Err("zip archive"),
        ),
        rootfs("cpio", [&b"070701"[..], &[1; 600]].concat(), Err("cpio archive")),
        rootfs(
            "ar",
            [&b"!<arch>\n"[..], &[1; 600]].concat(),
            Err("Debian package"),
        ),
        rootfs(
            "html",
            [&b"<!DOCTYPE html>"[..], &[b' '; 600]].concat(),
            Err("error page"),
        ),
        rootfs("noise", [3; 2000].to_vec(), Err("checksum is wrong")),
    ]);
}

#[test]
fn limits() {
    let many: Archive = (0..1001).fold(a(), |t, n| t.file(&format!("f{n}"), b""));
    check(vec![
        rootfs("entries", many.end(), Err("more than 1000 entries")),
        rootfs(
            "bytes",
            a().file("f", &vec![0; 5 << 20]).end(),
            Err("more than 4194304 bytes when uncompressed"),
        ),
        rootfs(
            "after-the-end",
            [a().end(), vec![0; 5 << 20]].concat(),
            Err("more than 4194304 bytes"),
        ),
        rootfs(
            "sparse-size",
            a().pax(&[
                ("GNU.sparse.major", b"0"),
                ("GNU.sparse.size", b"99999999999"),
                ("GNU.sparse.map", b"0,0"),
            ])
            .file("f", b"")
            .end(),
            Err("more than 4194304 bytes"),
        ),
        rootfs(
            "deep",
            a().file(&"d/".repeat(45).trim_end_matches('/').replace("d/d", "d/e"), b"")
                .end(),
            {
                // Ninety characters of directories are fine; the depth alone is no error.
                Ok(&[])
            },
        )
        .deep(),
    ]);
}

impl Case {
    /// Depth is only bounded by the name's length: everything on the way must be there.
    fn deep(mut self) -> Case {
        let name = ["d/"; 40].concat();
        self.tar = a()
            .pax(&[("path", format!("{name}f").as_bytes())])
            .file("f", b"")
            .file("d", b"")
            .end();
        self.expected = Ok(&["d"]);
        self
    }
}

#[test]
fn whiteouts_in_a_rootfs_are_refused() {
    let text = "names that begin with `.wh.`";
    check(vec![
        rootfs("plain", a().file(".wh.x", b"").end(), Err(text)),
        rootfs("nested", a().file("a/b/.wh.x", b"").end(), Err(text)),
        rootfs("opaque", a().file("a/.wh..wh..opq", b"").end(), Err(text)),
        rootfs("dir", a().dir(".wh.d").end(), Err(text)),
        rootfs("parent", a().file(".wh.d/x", b"").end(), Err(text)),
        rootfs("link", a().sym(".wh.l", "x").end(), Err(text)),
        rootfs(
            "device",
            a().node(b'3', "x", (0, 0)).end(),
            Err("character device 0:0"),
        ),
        layer(
            "device-in-a-layer",
            a().node(b'3', "x", (0, 0)).end(),
            Err("character device 0:0"),
        ),
    ]);
}

#[test]
fn whiteouts_in_a_layer() {
    let bad = "invalid whiteout";
    check(vec![
        layer("empty", a().file(".wh.", b"").end(), Err(bad)),
        layer("dot", a().file(".wh..", b"").end(), Err(bad)),
        layer("dotdot", a().file(".wh...", b"").end(), Err(bad)),
        layer("empty-nested", a().file("a/.wh.", b"").end(), Err(bad)),
        layer("of-a-whiteout", a().file(".wh..wh.x", b"").end(), Err(bad)),
        layer("slash", a().file(".wh./x", b"").end(), Err("whiteout's name")),
        layer("parent", a().file(".wh.d/x", b"").end(), Err("whiteout's name")),
        layer("dir", a().dir(".wh.d").end(), Err("not an empty regular file")),
        layer(
            "link",
            a().sym(".wh.l", "x").end(),
            Err("not an empty regular file"),
        ),
        layer(
            "fifo",
            a().node(b'6', ".wh.l", (0, 0)).end(),
            Err("not an empty regular file"),
        ),
        layer("plain", a().file("a/.wh.x", b"").end(), Ok(&["a", "a/x"])),
        layer(
            "twice",
            a().file(".wh.x", b"").file(".wh.x", b"").end(),
            Ok(&["x"]),
        ),
        layer(
            "opaque-twice",
            a().file("d/.wh..wh..opq", b"").file("d/.wh..wh..opq", b"").end(),
            Ok(&["d"]),
        ),
        layer(
            "inside-opaque",
            a().file("d/.wh.x", b"").file("d/.wh..wh..opq", b"").end(),
            Ok(&["d"]),
        ),
        layer(
            "below-a-file-later",
            a().file("d/.wh.x", b"").file("d", b"").end(),
            Ok(&["d"]),
        ),
        layer(
            "below-a-link-later",
            a().file("d/.wh.x", b"").sym("d", "../canary").end(),
            Ok(&["d"]),
        ),
        layer(
            "through-a-link",
            a().sym("l", "../canary").file("l/.wh.secret", b"").end(),
            Ok(&["canary", "canary/secret", "l"]),
        ),
        layer(
            "aufs",
            a().file(".wh..wh.aufs", b"")
                .dir(".wh..wh.plnk")
                .file(".wh..wh.plnk/1.2", b"")
                .file("f", b"")
                .end(),
            Ok(&["f"]),
        ),
    ]);
}

#[test]
fn whiteouts_become_what_overlayfs_understands() {
    for order in [0, 1] {
        let ground = Ground::new();
        let entries = [
            a().file(".wh.gone", b"")
                .file(".wh.kept", b"")
                .file(".wh.dir", b"")
                .0,
            a().file("kept", b"new").dir("dir").file("dir/x", b"").0,
        ];
        let tar = [&entries[order][..], &entries[1 - order], &[0; 1024]].concat();
        let extracted = ground.apply(LAYER, &tar, &Limits::default()).unwrap();
        let gone = fs::symlink_metadata(ground.root().join("gone")).unwrap();
        assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
        assert_eq!(fs::read(ground.root().join("kept")).unwrap(), b"new");
        assert_eq!(
            extracted.opaque,
            [b"dir"],
            "what replaced the removed directory hides it"
        );
        let mut value = [0; 8];
        let length =
            rustix::fs::getxattr(ground.root().join("dir"), "trusted.overlay.opaque", &mut value).unwrap();
        assert_eq!(&value[..length], b"y");
    }
    let ground = Ground::new();
    let tar = a().file(".wh..wh..opq", b"").file("a/b/f", b"").dir("a").end();
    let extracted = ground.apply(LAYER, &tar, &Limits::default()).unwrap();
    assert_eq!(
        extracted,
        Extracted {
            root: None,
            late: BTreeSet::new(),
            implied: vec![b"a/b".to_vec()],
            opaque: vec![b"".to_vec()]
        }
    );
}

#[test]
fn attributes_come_out_as_they_are_in_the_archive() {
    let umask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let ground = Ground::new();
    let capability = b"\x01\x00\x00\x02\x00\x0a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let pax: &[(&str, &[u8])] = &[
        ("SCHILY.xattr.security.capability", capability),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.security.selinux", b"label"),
        ("SCHILY.xattr.user.note", b"a\nb"),
        ("mtime", b"1234567890.123456789"),
    ];
    let name = |name: &'static [u8], flag, mode, uid| Head {
        name,
        flag,
        mode,
        uid,
        gid: 7,
        ..Head::default()
    };
    let tar = a()
        .head(name(b"ro/", b'5', 0o555, 1))
        .pax(pax)
        .head(name(b"ro/suid", b'0', 0o6755, 5))
        .head(name(b"sticky", b'5', 0o1777, 3_000_000_000))
        .head(name(b"pipe", b'6', 0o666, 2))
        .head(Head {
            link: b"nowhere",
            ..name(b"link", b'2', 0o777, 3)
        })
        .head(name(b"none", b'0', 0o000, 4))
        .hard("hard", "ro/suid")
        .end();
    ground.apply(Source::Rootfs, &tar, &Limits::default()).unwrap();
    rustix::process::umask(umask);
    let look = |path: &str| {
        let m = fs::symlink_metadata(ground.root().join(path)).unwrap();
        (m.mode() & 0o7777, m.uid(), m.gid(), m.mtime())
    };
    assert_eq!(look("ro"), (0o555, 1, 7, 1_000_000_000));
    assert_eq!(look("ro/suid"), (0o6755, 5, 7, 1_234_567_890));
    assert_eq!(look("sticky"), (0o1777, 3_000_000_000, 7, 1_000_000_000));
    assert_eq!(look("pipe"), (0o666, 2, 7, 1_000_000_000));
    assert_eq!(look("link"), (0o777, 3, 7, 1_000_000_000));
    assert_eq!(look("none"), (0o000, 4, 7, 1_000_000_000));
    let suid = ground.root().join("ro/suid");
    let meta = fs::metadata(&suid).unwrap();
    assert_eq!((meta.nlink(), meta.mtime_nsec()), (2, 123_456_789));
    let mut names = vec![0; 1000];
    let length = rustix::fs::listxattr(&suid, &mut names).unwrap();
    let mut names: Vec<_> = names[..length]
        .split(|b| *b == 0)
        .filter(|n| !n.is_empty())
        .collect();
    names.sort();
    assert_eq!(names, [&b"security.capability"[..], b"user.note"]);
    let mut value = [0; 100];
    let length = rustix::fs::getxattr(&suid, "security.capability", &mut value).unwrap();
    assert_eq!(&value[..length], capability);
}

#[test]
fn sparse_files_of_every_kind() {
    let data = [[1u8; 512], [2; 512]].concat();
    let mut expected = vec![0; 5000];
    expected[512..1024].fill(1);
    expected[2048..2560].fill(2);
    let mut lines = b"3\n512\n512\n2048\n512\n5000\n0\n".to_vec();
    lines.resize(512, 0);
    lines.extend(&data);
    let mut old = header(&Head {
        name: b"f",
        flag: b'S',
        size: Some(1024),
        ..Head::default()
    });
    old[257..265].copy_from_slice(b"ustar  \0");
    for (at, text) in [
        (386, "1000"),
        (398, "1000"),
        (410, "4000"),
        (422, "1000"),
        (434, "11610"),
        (446, "0"),
        (483, "11610"),
    ] {
        old[at..at + 11].copy_from_slice(format!("{text:0>11}").as_bytes());
    }
    checksum(&mut old);
    let map: &[(&str, &[u8])] = &[
        ("GNU.sparse.size", b"5000"),
        ("GNU.sparse.map", b"512,512,2048,512,5000,0"),
        ("GNU.sparse.name", b"f"),
    ];
    let pairs: &[(&str, &[u8])] = &[
        ("GNU.sparse.size", b"5000"),
        ("GNU.sparse.numblocks", b"2"),
        ("GNU.sparse.offset", b"512"),
        ("GNU.sparse.numbytes", b"512"),
        ("GNU.sparse.offset", b"2048"),
        ("GNU.sparse.numbytes", b"512"),
    ];
    let one: &[(&str, &[u8])] = &[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"f"),
        ("GNU.sparse.realsize", b"5000"),
    ];
    let archives = [
        ("old", a().raw(&old).raw(&data).end()),
        ("0.0", a().pax(pairs).file("f", &data).end()),
        ("0.1", a().pax(map).file("GNUSparseFile.1/f", &data).end()),
        ("1.0", a().pax(one).file("GNUSparseFile.1/f", &lines).end()),
    ];
    for (kind, tar) in archives {
        let ground = Ground::new();
        ground
            .apply(Source::Rootfs, &tar, &Limits::default())
            .unwrap_or_else(|e| panic!("{kind}: {e}"));
        assert!(fs::read(ground.root().join("f")).unwrap() == expected, "{kind}");
    }
    let bad = |records: &[(&str, &[u8])]| a().pax(records).file("f", &data).end();
    check(vec![
        rootfs(
            "overlap",
            bad(&[("GNU.sparse.size", b"5000"), ("GNU.sparse.map", b"0,600,512,424")]),
            Err("sparse map"),
        ),
        rootfs(
            "beyond",
            bad(&[("GNU.sparse.size", b"500"), ("GNU.sparse.map", b"0,1024")]),
            Err("beyond the end"),
        ),
        rootfs(
            "short",
            bad(&[("GNU.sparse.size", b"5000"), ("GNU.sparse.map", b"0,10")]),
            Err("do not add up"),
        ),
        rootfs(
            "no-size",
            bad(&[("GNU.sparse.map", b"0,1024")]),
            Err("no real size"),
        ),
        rootfs(
            "version",
            bad(&[("GNU.sparse.size", b"1024"), ("GNU.sparse.major", b"2")]),
            Err("not known"),
        ),
        rootfs(
            "lines-cut",
            bad(&[("GNU.sparse.realsize", b"1024"), ("GNU.sparse.major", b"1")]),
            Err("sparse map"),
        ),
    ]);
}

#[test]
fn a_name_may_be_any_bytes() {
    use std::os::unix::ffi::OsStrExt;
    let ground = Ground::new();
    let name = b"\xff\xfe \n\x1b[31m";
    let tar = a()
        .head(Head {
            name,
            ..Head::default()
        })
        .end();
    ground.apply(Source::Rootfs, &tar, &Limits::default()).unwrap();
    assert!(ground.root().join(std::ffi::OsStr::from_bytes(name)).exists());
    let tar = a()
        .head(Head {
            name,
            flag: b'Q',
            ..Head::default()
        })
        .end();
    let error = ground
        .apply(Source::Rootfs, &tar, &Limits::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains(r"\xff\xfe \n\u{1b}[31m"), "{error}");
}

#[test]
fn every_cut_and_every_flipped_byte_is_harmless() {
    let tar = a()
        .dir("d")
        .pax(&[("SCHILY.xattr.user.x", b"v"), ("path", b"d/long")])
        .file("x", b"content")
        .sym("l", "d")
        .hard("h", "d/long")
        .file("d/.wh.gone", b"")
        .end();
    let ground = Ground::new();
    let before = ground.outside();
    let fresh = |tar: &[u8], source| {
        fs::remove_dir_all(ground.root()).unwrap();
        fs::create_dir(ground.root()).unwrap();
        ground.apply(
            source,
            tar,
            &Limits {
                max_expanded: 1 << 20,
                ..Limits::default()
            },
        )
    };
    for cut in (1..tar.len() - 1024).step_by(7) {
        assert!(fresh(&tar[..cut], Source::Rootfs).is_err(), "cut at {cut}");
    }
    for at in (0..tar.len()).step_by(3) {
        let mut bad = tar.clone();
        bad[at] ^= 0xff;
        let block = at / 512 * 512;
        // Half of them with a checksum that fits again, so that the fields themselves are tried.
        if let (0, Ok(header)) = (at % 2, <&mut [u8; 512]>::try_from(&mut bad[block..block + 512])) {
            checksum(header);
        }
        let _ = fresh(&bad, LAYER);
    }
    assert_eq!(ground.outside(), before);
}
