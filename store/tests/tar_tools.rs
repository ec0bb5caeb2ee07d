//! Archives of GNU tar in all its formats give the tree that they were made of.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use box_store::{ApplyOptions, Store, StoreOptions};

/// A tree with one of everything that an archive may hold.
const MAKE: &str = r#"
set -e
mkdir -p etc "$(printf 'odd \377\n name')" deep
printf hello > etc/file; ln etc/file etc/hard; ln -s ../etc/file etc/link; ln etc/link etc/hardlinked-link
ln -s "$(printf 'x%.0s' $(seq 150))" etc/long-target
printf x > "etc/$(printf 'n%.0s' $(seq 140))"
d=deep; for n in $(seq 12); do d=$d/directory-number-$n; done; mkdir -p $d; printf deep > $d/file
printf empty > "$(printf 'odd \377\n name')/x"
: > etc/empty; printf suid > etc/suid; chown 5:7 etc/suid; chmod 6751 etc/suid
printf none > etc/none; chmod 000 etc/none
mkfifo -m 622 etc/fifo; mknod -m 666 etc/null c 1 3; mknod -m 640 etc/disk b 8 1
mkdir -m 1777 sticky; mkdir -m 500 closed; printf in > closed/in; chown 100000:200000 closed
truncate -s 300000 etc/sparse; printf data | dd of=etc/sparse bs=1 seek=200000 conv=notrunc status=none
dd if=/dev/urandom of=etc/large bs=1000 count=700 status=none
find . -exec touch -h -d '2011-02-03 04:05:06' {} +
"#;

fn sh(dir: &Path, script: &str) {
    let out = Command::new("sh")
        .arg("-c")
        .arg(script)
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}

/// All that can be seen of a tree, but the root itself; hard links by the first name of each file.
fn listing(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut first: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut all = BTreeMap::new();
    for entry in walkdir::WalkDir::new(root).sort_by_file_name().min_depth(1) {
        let entry = entry.unwrap();
        let path = entry.path().strip_prefix(root).unwrap().to_path_buf();
        let meta = fs::symlink_metadata(entry.path()).unwrap();
        let content = match meta.file_type() {
            t if t.is_file() => format!(
                "{} bytes {}",
                meta.size(),
                box_store::Digest::of(&fs::read(entry.path()).unwrap())
            ),
            t if t.is_symlink() => format!("-> {}", fs::read_link(entry.path()).unwrap().display()),
            _ => format!("{:x}", meta.rdev()),
        };
        let link = match meta.is_dir() {
            true => path.clone(),
            false => first.entry(meta.ino()).or_insert_with(|| path.clone()).clone(),
        };
        let about = format!(
            "{:o} {}:{} {} {content} = {link:?}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime()
        );
        all.insert(path, about);
    }
    all
}

/// Applies `archive` to a fresh store and compares the tree; gives its digest.
fn check(dir: &Path, archive: &str, what: &str) -> String {
    let store = tempfile::tempdir().unwrap();
    let store = Store::open(&store.path().join("store"), StoreOptions::default()).unwrap();
    let file = fs::File::open(dir.join(archive)).unwrap();
    let layer = store
        .apply_archive(file, &ApplyOptions::default())
        .unwrap_or_else(|e| panic!("{what}: {e}"));
    let (expected, found) = (listing(&dir.join("tree")), listing(&layer.path()));
    for (path, about) in &expected {
        assert_eq!(found.get(path), Some(about), "{what}: {}", path.display());
    }
    assert_eq!(found.len(), expected.len(), "{what}");
    layer.diff_id().unwrap().to_string()
}

#[test]
fn archives_of_gnu_tar() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("tree")).unwrap();
    sh(&dir.path().join("tree"), MAKE);
    let mut digests = BTreeMap::new();
    for options in [
        "--format=gnu",
        "--format=oldgnu",
        "--format=posix",
        "--format=gnu --sparse",
        "--format=posix --sparse",
        "--format=posix --sparse --sparse-version=0.0",
        "--format=posix --sparse --sparse-version=0.1",
        "--format=posix --sort=name --numeric-owner --xattrs",
        "--format=gnu --sort=inode",
    ] {
        sh(dir.path(), &format!("tar -C tree -cf out.tar {options} ."));
        digests.insert(check(dir.path(), "out.tar", options), options);
    }
    assert_eq!(digests.len(), 1, "one tree is one layer: {digests:?}");
}

/// The formats that cannot hold long names and large numbers.
#[test]
fn archives_of_gnu_tar_in_old_formats() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    sh(
        &tree,
        "mkdir -p a/b; echo x > a/b/c; ln a/b/c a/d; ln -s b a/l; chmod 4711 a/b/c; find . -exec touch -h -d '1999-01-01' {} +",
    );
    for format in ["v7", "ustar"] {
        sh(
            dir.path(),
            &format!("tar -C tree -cf out.tar --format={format} ."),
        );
        check(dir.path(), "out.tar", format);
    }
}

/// What box writes, GNU tar reads.
#[test]
fn gnu_tar_reads_the_canonical_tar() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("tree")).unwrap();
    sh(&dir.path().join("tree"), MAKE);
    sh(dir.path(), "tar -C tree -cf out.tar . && mkdir again");
    let store = Store::open(&dir.path().join("store"), StoreOptions::default()).unwrap();
    let file = fs::File::open(dir.path().join("out.tar")).unwrap();
    let layer = store.apply_archive(file, &ApplyOptions::default()).unwrap();
    layer
        .write_tar(&mut fs::File::create(dir.path().join("canonical.tar")).unwrap())
        .unwrap();
    sh(dir.path(), "tar -C again -xpf canonical.tar --same-owner");
    assert_eq!(
        listing(&dir.path().join("again")),
        listing(&dir.path().join("tree"))
    );
}
