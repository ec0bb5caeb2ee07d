//! Files and directories that box makes for its user: what they may be opened by is the user's wish (their umask), not box's own rule for its store.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::OnceLock;

use nix::sys::stat;

static UMASK: OnceLock<u32> = OnceLock::new();

/// Notes the user's umask, which box replaces by its own.
pub(crate) fn set_umask(mask: u32) {
    let _ = UMASK.set(mask);
}

fn umask() -> u32 {
    UMASK.get().copied().unwrap_or(0o022)
}

/// With the user's umask as that of the process; for what starts this program again.
pub(crate) fn with_umask<T>(work: impl FnOnce() -> T) -> T {
    let own = stat::umask(stat::Mode::from_bits_truncate(umask()));
    let result = work();
    stat::umask(own);
    result
}

/// A file to be written from its beginning, made if it is not there; one that is there keeps its mode.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    match create_new(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(path),
        result => result,
    }
}

/// A file that must not be there.
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(0o666 & !umask()))?;
    Ok(file)
}

/// What is there and is neither a file nor a directory (a device, a pipe), to be written to: nothing can take its place.
pub(crate) fn special(path: &Path) -> io::Result<Option<File>> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() && !metadata.is_dir() => {
            OpenOptions::new().write(true).open(path).map(Some)
        }
        _ => Ok(None),
    }
}

/// A directory and those that it lies in, as far as they are not there.
pub(crate) fn create_dir_all(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        create_dir_all(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        // Somebody else made it meanwhile.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Ok(()) => {
            // A set-group-ID bit comes from the directory above.
            let inherited = fs::metadata(path)?.permissions().mode() & 0o7000;
            fs::set_permissions(path, Permissions::from_mode(inherited | (0o777 & !umask())))
        }
        result => result,
    }
}
