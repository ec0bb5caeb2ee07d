//! How removals are written: overlayfs' way on disk, AUFS' way in tars (OCI image-spec, "Whiteouts").

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// The beginning of a whiteout's name in a tar.
pub(crate) const PREFIX: &[u8] = b".wh.";
/// The mark of an opaque directory in a tar.
pub(crate) const OPAQUE: &str = ".wh..wh..opq";

/// Whether an entry of this name would mean a removed one in a tar.
pub(crate) fn is_tar_name(name: &OsStr) -> bool {
    name.as_bytes().starts_with(PREFIX)
}

/// The name in a tar of the whiteout of `name`.
pub(crate) fn tar_name(name: &OsStr) -> OsString {
    OsString::from_vec([PREFIX, name.as_bytes()].concat())
}

/// Whether an extended attribute belongs to overlayfs, whoever set it.
pub(crate) fn is_overlay_xattr(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// Whether a tar keeps this extended attribute: `user.*`, POSIX ACLs and file capabilities, nothing of the host's.
pub(crate) fn is_kept_xattr(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    let kept = bytes.starts_with(b"user.")
        || matches!(
            bytes,
            b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default"
        );
    kept && !is_overlay_xattr(name) && !crate::beneath::is_owner_record(name)
}

/// Version 3 file capabilities of root are written as version 2, which says the same in any user namespace
/// (linux/capability.h: `struct vfs_ns_cap_data`).
pub(crate) fn canonical_capability(value: Vec<u8>) -> Vec<u8> {
    const VERSION_3: u8 = 3;
    const VERSION_2: u8 = 2;
    if value.len() == 24 && value[3] == VERSION_3 && value[20..24] == [0; 4] {
        let mut short = value[..20].to_vec();
        short[3] = VERSION_2;
        return short;
    }
    value
}
