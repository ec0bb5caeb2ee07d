//! Copying files out of a container and into it, from within: the process has the container's root, its ids and its rights, so whatever a
//! path leads to, and however it changes meanwhile, it is the container's own.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::spec::FileCopy;

/// Does it between the standard streams, tells what failed on standard error, and gives the exit code.
pub(super) fn run(copy: &FileCopy) -> i32 {
    let done = match copy {
        FileCopy::Out { .. } => out(copy),
        FileCopy::In { dest, name, is_dir } => place(dest, name, *is_dir).and_then(|place| unpack_at(&place)),
        FileCopy::Unpack { dest } => unpack(dest),
    };
    match done {
        Ok(()) => 0,
        Err(message) => {
            // When nobody listens the exit code tells it.
            let _ = stream(rustix::stdio::stderr()).and_then(|mut to| to.write_all(message.as_bytes()));
            1
        }
    }
}

type Done<T = ()> = Result<T, String>;

fn stream(fd: std::os::fd::BorrowedFd<'_>) -> io::Result<File> {
    Ok(fd.as_fd().try_clone_to_owned()?.into())
}

fn failed(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> String {
    let text = format!("cannot {doing} {}", path.display());
    move |e| format!("{text}: {e}")
}

fn out(copy: &FileCopy) -> Done {
    let FileCopy::Out {
        path,
        name,
        follow,
        owner,
    } = copy
    else {
        return Ok(());
    };
    let shown = path;
    let path = match *follow {
        true => fs::canonicalize(path).map_err(failed("find", shown))?,
        false => path.clone(),
    };
    let to = stream(rustix::stdio::stdout()).map_err(failed("write from", shown))?;
    let mut tar = tar::Builder::new(io::BufWriter::with_capacity(1 << 18, to));
    tar.follow_symlinks(false);
    let metadata = fs::symlink_metadata(&path).map_err(failed("find", shown))?;
    if name.as_os_str().is_empty() && !metadata.is_dir() {
        return Err(format!("{} is no directory", shown.display()));
    }
    let mut rest = vec![(path, name.clone())];
    while let Some((path, name)) = rest.pop() {
        add(&mut tar, &path, &name, *owner, &mut rest).map_err(failed("copy", &path))?;
    }
    let mut to = tar.into_inner().map_err(failed("write from", shown))?;
    to.flush().map_err(failed("write from", shown))
}

/// One entry; what is in a directory is left for later.
fn add(
    tar: &mut tar::Builder<impl Write>,
    path: &Path,
    name: &Path,
    owner: Option<(u32, u32)>,
    rest: &mut Vec<(PathBuf, PathBuf)>,
) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        // Removed meanwhile.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let kind = metadata.file_type();
    if kind.is_dir() {
        let mut entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        rest.extend(entries.iter().rev().map(|e| (e.path(), name.join(e.file_name()))));
        if name.as_os_str().is_empty() {
            return Ok(());
        }
    }
    let mut header = tar::Header::new_gnu();
    header.set_metadata(&metadata);
    if let Some((uid, gid)) = owner {
        header.set_uid(uid.into());
        header.set_gid(gid.into());
        header.set_mode(metadata.permissions().mode() & 0o1777);
    }
    if kind.is_symlink() {
        let target = fs::read_link(path)?;
        header.set_size(0);
        return tar.append_link(&mut header, name, target);
    }
    if kind.is_file() {
        // Not one that was put in its place meanwhile, which might never end, or never begin.
        let file = fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
            .open(path)?;
        let opened = file.metadata()?;
        if !opened.file_type().is_file() {
            return Err(io::Error::other("it changes while it is read"));
        }
        header.set_size(opened.len());
        return tar.append_data(&mut header, name, io::Read::take(Whole(file), opened.len()));
    }
    header.set_size(0);
    // Sockets mean nothing elsewhere.
    if header.entry_type() == tar::EntryType::Regular {
        return Ok(());
    }
    tar.append_data(&mut header, name, io::empty())
}

/// A file that, should it become shorter, is filled up with zeros: the archive has said how long it is.
struct Whole(File);

impl io::Read for Whole {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match io::Read::read(&mut self.0, into)? {
            0 => {
                into.fill(0);
                Ok(into.len())
            }
            count => Ok(count),
        }
    }
}

/// Where a copy goes that is called `name`: into a directory that is there, else it is called as `dest` says.
fn place(dest: &Path, name: &Path, is_dir: bool) -> Done<PathBuf> {
    let says_directory = dest.as_os_str().as_encoded_bytes().ends_with(b"/");
    match fs::metadata(dest) {
        Ok(found) if found.is_dir() => Ok(dest.join(name)),
        Ok(_) if is_dir => Err(format!(
            "{} is no directory, and a directory can't be copied over it",
            dest.display()
        )),
        Ok(_) if says_directory => Err(format!("{} is no directory", dest.display())),
        Ok(_) => fs::canonicalize(dest).map_err(failed("find", dest)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let has_parent = dest
                .parent()
                .is_some_and(|parent| parent.as_os_str().is_empty() || parent.is_dir());
            match has_parent && (is_dir || !says_directory) {
                true => Ok(dest.to_owned()),
                false => Err(format!("there is no directory for {}", dest.display())),
            }
        }
        Err(e) => Err(failed("look at", dest)(e)),
    }
}

/// Unpacks what comes: its first name in every path is replaced by `place`.
fn unpack_at(place: &Path) -> Done {
    let from = stream(rustix::stdio::stdin()).map_err(failed("read for", place))?;
    let mut archive = tar::Archive::new(io::BufReader::with_capacity(1 << 18, from));
    let mut directories = Vec::new();
    for entry in archive.entries().map_err(failed("read for", place))? {
        let mut entry = entry.map_err(failed("read for", place))?;
        let path = entry.path().map_err(failed("read for", place))?;
        let mut parts = path.components();
        parts.next();
        let rest = parts.as_path();
        let to = match rest.as_os_str().is_empty() {
            true => place.to_owned(),
            false => place.join(rest),
        };
        write(&mut entry, &to, &mut directories).map_err(failed("write", &to))?;
    }
    // A directory that may not be written gets that at last.
    for (path, mode) in directories.iter().rev() {
        fs::set_permissions(path, fs::Permissions::from_mode(*mode)).map_err(failed("write", path))?;
    }
    drain(archive).map_err(failed("read for", place))
}

/// Writers fill the last record up after the end of a tar; they must not meet a closed pipe.
fn drain(archive: tar::Archive<impl io::Read>) -> io::Result<()> {
    io::copy(&mut archive.into_inner(), &mut io::sink()).map(drop)
}

fn write(
    entry: &mut tar::Entry<'_, impl io::Read>,
    to: &Path,
    directories: &mut Vec<(PathBuf, u32)>,
) -> io::Result<()> {
    let header = entry.header();
    let (mode, uid, gid) = (header.mode()? & 0o7777, header.uid()?, header.gid()?);
    let is_dir = header.entry_type().is_dir();
    if is_dir && fs::metadata(to).is_ok_and(|found| found.is_dir()) {
        // What is there stays as it is.
        return Ok(());
    }
    let is_link = header.entry_type().is_symlink();
    entry.set_preserve_permissions(true);
    entry.set_preserve_mtime(true);
    entry.set_unpack_xattrs(false);
    entry.unpack(to)?;
    let id = |id: u64| u32::try_from(id).map_err(|_| io::ErrorKind::InvalidData);
    std::os::unix::fs::lchown(to, Some(id(uid)?), Some(id(gid)?))?;
    if is_dir {
        directories.push((to.to_owned(), mode));
        fs::set_permissions(to, fs::Permissions::from_mode(mode | 0o700))?;
    } else if !is_link {
        // A change of the owner takes some bits away.
        fs::set_permissions(to, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Unpacks a tar as it is into a directory that is there.
fn unpack(dest: &Path) -> Done {
    if !fs::metadata(dest).map_err(failed("find", dest))?.is_dir() {
        return Err(format!("{} is no directory", dest.display()));
    }
    let from = stream(rustix::stdio::stdin()).map_err(failed("read for", dest))?;
    let mut archive = tar::Archive::new(io::BufReader::with_capacity(1 << 18, from));
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(true);
    archive.set_unpack_xattrs(false);
    archive.unpack(dest).map_err(failed("unpack into", dest))?;
    drain(archive).map_err(failed("read for", dest))
}
