//! Where everything is in the store's root (docs/store-format.md holds the same, byte by byte).
//!
//! Pure: no function here touches the disk.

use std::path::{Path, PathBuf};

use crate::digest::{DiffId, Digest};

/// The version of the format, kept in `version`. A store of another version is refused, never guessed at.
pub const FORMAT: u32 = 1;

/// The paths of one store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The directories that exist in every store.
    pub const DIRECTORIES: [&str; 10] = [
        "blobs/sha256",
        "layers",
        "meta",
        "synced",
        "fixups",
        "records",
        "names",
        "images",
        "locks",
        "tmp",
    ];

    /// The layout below `root`.
    pub fn new(root: &Path) -> Layout {
        Layout {
            root: root.to_owned(),
        }
    }

    /// The root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file that holds the format's version.
    pub fn version(&self) -> PathBuf {
        self.root.join("version")
    }

    /// The OCI image layout's marker.
    pub fn oci_layout(&self) -> PathBuf {
        self.root.join("oci-layout")
    }

    /// The OCI image layout's index.
    pub fn index(&self) -> PathBuf {
        self.root.join("index.json")
    }

    /// Where what was found damaged is put aside; made when first needed.
    pub fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    /// A blob.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// A layer's unpacked tree.
    pub fn layer(&self, diff_id: &DiffId) -> PathBuf {
        self.root.join("layers").join(diff_id.hex())
    }

    /// A layer's record.
    pub fn meta(&self, diff_id: &DiffId) -> PathBuf {
        self.root.join("meta").join(diff_id.hex())
    }

    /// The marker of a layer that is on the platter.
    pub fn synced(&self, diff_id: &DiffId) -> PathBuf {
        self.root.join("synced").join(diff_id.hex())
    }

    /// A fix-up lower, by the digest of its plan.
    pub fn fixup(&self, plan: &Digest) -> PathBuf {
        self.root.join("fixups").join(plan.hex())
    }

    /// The directory of a kind of records.
    pub fn records(&self, kind: &str) -> PathBuf {
        self.root.join("records").join(kind)
    }

    /// A record.
    pub fn record(&self, kind: &str, key: &Digest) -> PathBuf {
        let hex = key.hex();
        self.records(kind).join(&hex[..2]).join(hex)
    }

    /// The directory of names.
    pub fn names(&self) -> PathBuf {
        self.root.join("names")
    }

    /// The directory of images.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// The directory of containers; made when the first one is.
    pub fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// A container, by its id.
    pub fn container(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    /// The directories of cache mounts; made when the first one is.
    pub fn cache_mounts(&self) -> PathBuf {
        self.root.join("cache-mounts")
    }

    /// One cache mount, by the digest of what it is called and what it lies on.
    pub fn cache_mount(&self, key: &Digest) -> PathBuf {
        self.cache_mounts().join(key.hex())
    }

    /// The logs of builds; made when the first one is.
    pub fn builds(&self) -> PathBuf {
        self.root.join("builds")
    }

    /// One log, by its number.
    pub fn build(&self, number: u64) -> PathBuf {
        self.builds().join(number.to_string())
    }

    /// The directories of named volumes; made when the first one is.
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// One volume, by its name, which must have been checked.
    pub(crate) fn volume(&self, name: &str) -> PathBuf {
        self.volumes().join(name)
    }

    /// The directory of the journal; made with its first line.
    pub fn journal(&self) -> PathBuf {
        self.root.join("journal")
    }

    /// The directory of locks of one class.
    pub fn locks(&self, class: &str) -> PathBuf {
        self.root.join("locks").join(class)
    }

    /// The lock that is held shared while the store is used.
    pub fn store_lock(&self) -> PathBuf {
        self.root.join("locks/store")
    }

    /// Who waits to use the store alone holds this, and newcomers pass by it; it need not exist.
    pub fn turn_lock(&self) -> PathBuf {
        self.root.join("locks/turn")
    }

    /// The directory of everything temporary.
    pub fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }
}
