//! `box cp`: files of containers and images, and into containers.

use std::path::{Path, PathBuf};

use box_store::StoreError;
use box_store::export::{Subtree, extract_subtree, write_subtree};
use box_store::layer::apply::ApplyError;
use box_store::tree::Tree;

use super::cp_container::{self, How};
use super::export::to;
use crate::app::App;
use crate::cli::{CopyPlace, CpArgs};
use crate::containers;
use crate::error::{EXIT_BOX, EXIT_INPUT, Failure};
use crate::user_files;

/// Copies a file or a directory.
pub(super) fn run(app: &App, args: &CpArgs) -> Result<u8, Failure> {
    let how = How {
        archive: args.archive,
        follow_link: args.follow_link,
    };
    match (&args.source, &args.dest) {
        (CopyPlace::Inside { .. }, CopyPlace::Inside { .. }) => Err(Failure::own(
            "files can't be copied from one container to another at once",
        )
        .hint("copy them to the host first, or pipe one `box cp CONTAINER:PATH -` into another `box cp - CONTAINER:PATH`")),
        (CopyPlace::Inside { name, path }, dest) => {
            let dest = match dest {
                CopyPlace::Host(dest) => Some(dest.as_path()),
                _ => None,
            };
            match containers::find_id(app, name)? {
                Some(id) => cp_container::out(app, &containers::find(app, &id)?, path, dest, &how)?,
                None => from_image(app, args, (name, path), dest)?,
            }
            Ok(0)
        }
        (source, CopyPlace::Inside { name, path }) => {
            let source = match source {
                CopyPlace::Host(source) => Some(source.as_path()),
                _ => None,
            };
            cp_container::into(app, &containers::find(app, name)?, source, path, &how)?;
            Ok(0)
        }
        _ => Err(Failure::own("one of both must be in a container or an image")
            .hint("write CONTAINER:PATH or IMAGE:/PATH; `cp` copies on the host")),
    }
}

/// Copies from an image, without a container.
fn from_image(
    app: &App,
    args: &CpArgs,
    (name, asked): (&str, &str),
    dest: Option<&Path>,
) -> Result<(), Failure> {
    let found = app.store.resolve(name)?;
    let image = found.ok_or_else(|| {
        Failure::input(format!("no container and no image named {name:?}"))
            .hint("`box ps -a` and `box images` list what is there")
    })?;
    if !asked.starts_with('/') {
        return Err(
            Failure::input(format!("{asked:?} is no absolute path")).hint("of an image, write IMAGE:/PATH")
        );
    }
    let layers = app.layers(&image)?;
    let wants_directory = asked.ends_with('/') || asked.ends_with("/.");
    let tree = Tree::new(&layers);
    let found = tree
        .resolve(Path::new(asked), args.follow_link || wants_directory)
        .map_err(|e| Failure::of(EXIT_INPUT, &e))?;
    drop(tree);
    let shown = format!("{name}:{asked}");
    let Some(entry) = found.entry else {
        return Err(Failure::input(format!("there is no {shown}")));
    };
    let is_dir = entry.metadata.kind == box_store::beneath::Kind::Directory;
    if wants_directory && !is_dir {
        return Err(Failure::input(format!("{shown} is no directory")));
    }
    let mut subtree = Subtree {
        name: PathBuf::from(last_name(asked).unwrap_or_default()),
        path: found.path,
        owner: (!args.archive).then(|| (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw())),
        ..Subtree::default()
    };
    let Some(dest) = dest else {
        return to(None, |out| {
            let written = write_subtree(&layers, &subtree, out);
            written.map(drop).map_err(|e| Failure::of(EXIT_BOX, &e))
        });
    };
    let fail = |e: std::io::Error| Failure::own(format!("cannot write {}: {e}", dest.display()));
    if let Some(mut special) = user_files::special(dest).map_err(fail)? {
        if entry.metadata.kind != box_store::beneath::Kind::File {
            return Err(Failure::own(format!(
                "{} is no directory, and only a file's content can be written to it",
                dest.display()
            )));
        }
        let tree = Tree::new(&layers);
        let mut file = tree
            .open_file(&subtree.path)
            .map_err(|e| Failure::of(EXIT_BOX, &e))?;
        return std::io::copy(&mut file, &mut special).map(drop).map_err(fail);
    }
    let directory = place(dest, is_dir, &mut subtree)?;
    match extract_subtree(&layers, &subtree, &directory) {
        Ok(()) => Ok(()),
        Err(ApplyError::Store(error @ StoreError::Device { .. })) => {
            Err(Failure::of(EXIT_INPUT, &error).hint("box cp --archive copies devices, too"))
        }
        Err(error @ ApplyError::Entry { .. }) => Err(Failure::of(EXIT_BOX, &error)),
        // The disk that may be full is not the store's.
        Err(error) => Err(Failure::own(format!(
            "cannot copy to {}: {error}",
            dest.display()
        ))),
    }
}

/// The directory that the copy is put into; where the destination says so, under another name.
pub(super) fn place(dest: &Path, is_dir: bool, subtree: &mut Subtree) -> Result<PathBuf, Failure> {
    let fail = |e: std::io::Error| Failure::own(format!("cannot copy to {}: {e}", dest.display()));
    if dest.is_dir() {
        return std::fs::canonicalize(dest).map_err(fail);
    }
    let text = dest.as_os_str().as_encoded_bytes();
    if !is_dir && text.ends_with(b"/") {
        return Err(Failure::own(format!("there is no directory {}", dest.display())));
    }
    if is_dir && dest.exists() {
        return Err(Failure::own(format!(
            "{} is no directory, and a directory can't be copied over it",
            dest.display()
        )));
    }
    // Of a link that is there the file is meant that it leads to.
    let dest = &std::fs::canonicalize(dest).unwrap_or_else(|_| dest.to_owned());
    let Some(name) = dest.file_name() else {
        return Err(Failure::own(format!("there is no {}", dest.display())));
    };
    let parent = match dest.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    };
    let parent = std::fs::canonicalize(parent).map_err(fail)?;
    subtree.name = PathBuf::from(name);
    Ok(parent)
}

/// What a copy is called in a directory; none for the root and for the content of a directory.
pub(super) fn last_name(path: &str) -> Option<&str> {
    if path.ends_with("/.") {
        return None;
    }
    let last = path.trim_end_matches('/').rsplit('/').next()?;
    (!last.is_empty() && last != "..").then_some(last)
}
