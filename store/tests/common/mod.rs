//! What the tests share: stores in fresh directories, fake upper directories with chosen times, tars read back.
#![allow(dead_code, unreachable_pub)]

pub mod registry;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{Cursor, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use box_store::{
    ActiveSnapshot, Attrs, ContainerConfig, History, Image, ImageConfig, Layer, OverlayXattrs,
    PrepareOptions, Stamp, Store, StoreOptions,
};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps};

/// A store in a directory of its own.
pub struct Fixture {
    pub dir: tempfile::TempDir,
    pub store: Store,
}

impl Fixture {
    pub fn new() -> Fixture {
        Fixture::with(StoreOptions::default())
    }

    pub fn with(options: StoreOptions) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store"), options).unwrap();
        Fixture { dir, store }
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// The same store, opened again.
    pub fn reopen(&self, options: StoreOptions) -> Store {
        Store::open(&self.root(), options).unwrap()
    }

    pub fn prepare(&self, lowers: &[Layer]) -> Upper {
        self.prepare_with(lowers, &PrepareOptions::default())
    }

    pub fn prepare_with(&self, lowers: &[Layer], options: &PrepareOptions) -> Upper {
        Upper(self.store.prepare(lowers, options).unwrap())
    }

    /// An image of these layers; it has no name.
    pub fn image(&self, layers: &[&Layer]) -> Image {
        let mut config = ImageConfig {
            architecture: "amd64".to_owned(),
            os: "linux".to_owned(),
            config: ContainerConfig::default(),
            history: layers.iter().map(|_| History::default()).collect(),
            ..ImageConfig::default()
        };
        config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id().unwrap()).collect();
        self.store.put_image(&config).unwrap()
    }

    /// A layer of files, written directly.
    pub fn written(&self, lowers: &[Layer], files: &[(&str, &str)]) -> Layer {
        let mut writer = self
            .store
            .layer_writer(lowers, &PrepareOptions::default())
            .unwrap();
        for (path, content) in files {
            writer
                .file(Path::new(path), &attrs(0o644), &mut content.as_bytes())
                .unwrap();
        }
        writer.commit().unwrap()
    }
}

pub fn attrs(mode: u32) -> Attrs {
    Attrs {
        mode,
        ..Attrs::default()
    }
}

pub fn clock(offset: i64) -> StoreOptions {
    StoreOptions {
        clock_offset: offset,
        ..StoreOptions::default()
    }
}

pub fn user_mode() -> StoreOptions {
    StoreOptions {
        overlay_xattrs: OverlayXattrs::User,
        ..StoreOptions::default()
    }
}

/// An upper directory that a test writes in a container's stead.
pub struct Upper(pub ActiveSnapshot);

impl Upper {
    pub fn path(&self, path: &str) -> PathBuf {
        self.0.dirs().upper.join(path)
    }

    pub fn dir(&self, path: &str) -> &Upper {
        fs::create_dir_all(self.path(path)).unwrap();
        self
    }

    pub fn file(&self, path: &str, content: &str) -> &Upper {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), content).unwrap();
        self
    }

    pub fn file_at(&self, path: &str, content: &str, mtime: Stamp) -> &Upper {
        self.file(path, content).touch(path, mtime)
    }

    pub fn touch(&self, path: &str, mtime: Stamp) -> &Upper {
        touch(&self.path(path), mtime);
        self
    }

    pub fn whiteout(&self, path: &str) -> &Upper {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        rustix::fs::mknodat(CWD, self.path(path), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        self
    }

    pub fn xattr(&self, path: &str, name: &str, value: &[u8]) -> &Upper {
        rustix::fs::lsetxattr(self.path(path), name, value, rustix::fs::XattrFlags::empty()).unwrap();
        self
    }

    pub fn commit(self) -> Layer {
        let layer = self.0.commit().unwrap();
        layer.diff_id().unwrap();
        layer
    }
}

pub fn touch(path: &Path, mtime: Stamp) {
    let time = Timespec {
        tv_sec: mtime.sec,
        tv_nsec: mtime.nsec.into(),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

pub fn mtime(path: &Path) -> Stamp {
    let stat = rustix::fs::lstat(path).unwrap();
    Stamp::new(stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap())
}

pub fn tar_of(layer: &Layer) -> Vec<u8> {
    let mut bytes = Vec::new();
    let length = layer.write_tar(&mut bytes).unwrap();
    assert_eq!(length, bytes.len() as u64);
    bytes
}

/// An entry of a tar, as the tar crate reads it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    pub flag: u8,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: u64,
    pub link: Option<Vec<u8>>,
    pub content: Vec<u8>,
    pub pax: BTreeMap<String, Vec<u8>>,
}

/// The entries of a layer's canonical tar, in order.
pub fn entries(layer: &Layer) -> Vec<(String, Entry)> {
    let mut archive = tar::Archive::new(Cursor::new(tar_of(layer)));
    archive
        .entries()
        .unwrap()
        .map(|entry| read_entry(entry.unwrap()))
        .collect()
}

fn read_entry(mut entry: tar::Entry<'_, impl Read>) -> (String, Entry) {
    let mut pax = BTreeMap::new();
    if let Some(records) = entry.pax_extensions().unwrap() {
        for record in records.map(Result::unwrap) {
            pax.insert(record.key().unwrap().to_owned(), record.value_bytes().to_vec());
        }
    }
    let mut content = Vec::new();
    entry.read_to_end(&mut content).unwrap();
    let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    let header = entry.header();
    let entry = Entry {
        flag: header.entry_type().as_byte(),
        mode: header.mode().unwrap(),
        uid: header.uid().unwrap(),
        gid: header.gid().unwrap(),
        mtime: header.mtime().unwrap(),
        link: entry.link_name_bytes().map(|link| link.into_owned()),
        content,
        pax,
    };
    (path, entry)
}

pub fn names(layer: &Layer) -> Vec<String> {
    entries(layer).into_iter().map(|(name, _)| name).collect()
}

/// The canonical time of one entry.
#[track_caller]
pub fn time(layer: &Layer, path: &str) -> i64 {
    let entries = entries(layer);
    let found = entries
        .iter()
        .find(|(name, _)| name.trim_end_matches('/') == path);
    let Some((_, entry)) = found else {
        panic!("{path} is not in {entries:?}")
    };
    i64::try_from(entry.mtime).unwrap()
}

/// All paths below `dir` with their kind, sorted; to compare a store before and after.
pub fn listing(dir: &Path) -> Vec<String> {
    let mut paths: Vec<_> = walkdir::WalkDir::new(dir)
        .into_iter()
        .map(|entry| {
            let entry = entry.unwrap();
            let stamp = mtime(entry.path());
            format!("{} {stamp}", entry.path().strip_prefix(dir).unwrap().display())
        })
        .collect();
    paths.sort();
    paths
}

pub fn bytes(name: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(name))
}
