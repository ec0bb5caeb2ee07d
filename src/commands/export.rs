//! `box export`, and what `box build --output` writes besides the image in the store.

use std::fs;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use box_store::transfer::archive::save_oci;
use box_store::{Image, Reference};

use crate::app::App;
use crate::cli::{ExportArgs, OutputKind, OutputSpec};
use crate::error::{EXIT_BOX, Failure};
use crate::user_files;

/// Writes an image's root file system as a tar.
pub(super) fn run(app: &App, args: &ExportArgs) -> Result<u8, Failure> {
    let image = app.image(&args.image, EXIT_BOX)?;
    let output = OutputSpec {
        kind: OutputKind::Tar,
        place: args.output.clone().filter(|path| path.as_os_str() != "-"),
    };
    write(app, &image, &[], &output)?;
    Ok(0)
}

/// Writes an image as the output says.
pub(super) fn write(
    app: &App,
    image: &Image,
    names: &[Reference],
    output: &OutputSpec,
) -> Result<(), Failure> {
    let layers = app.layers(image)?;
    match (&output.kind, &output.place) {
        (OutputKind::Local, Some(directory)) => {
            if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                user_files::create_dir_all(parent)
                    .map_err(|e| Failure::own(format!("cannot make {}: {e}", parent.display())))?;
            }
            box_store::export::extract_rootfs(&layers, directory).map_err(|e| Failure::of(EXIT_BOX, &e))
        }
        (OutputKind::Local, None) => Err(Failure::own("an output of type=local needs dest=DIRECTORY")),
        (OutputKind::Tar, place) => to(place.as_deref(), |out| {
            let written = box_store::export::write_rootfs(&layers, out);
            written.map(drop).map_err(|e| Failure::of(EXIT_BOX, &e))
        }),
        (OutputKind::Oci | OutputKind::Docker, place) => to(place.as_deref(), |out| {
            let images = [(image.clone(), names.to_vec())];
            save_oci(&app.store, &images, out).map_err(|e| Failure::of(EXIT_BOX, &e))
        }),
    }
}

/// Writes a file that is there only when it is whole; or standard output.
pub(super) fn to(
    place: Option<&Path>,
    write: impl FnOnce(&mut dyn Write) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let Some(path) = place else {
        if std::io::stdout().is_terminal() {
            return Err(Failure::own("an archive is not written to a terminal")
                .hint("name a file (-o FILE), or redirect the output"));
        }
        let mut out = BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
        write(&mut out)?;
        return out
            .flush()
            .map_err(|e| Failure::own(format!("cannot write to standard output: {e}")));
    };
    let fail = |e: std::io::Error| Failure::own(format!("cannot write {}: {e}", path.display()));
    if let Some(mut special) = user_files::special(path).map_err(fail)? {
        write(&mut special)?;
        return special.flush().map_err(fail);
    }
    // Of a link that is there the file is meant that it leads to.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let unfinished = Unfinished::beside(path);
    let mut file = BufWriter::with_capacity(1 << 20, user_files::create(&unfinished.path).map_err(fail)?);
    write(&mut file)?;
    let file = file.into_inner().map_err(|e| fail(e.into_error()))?;
    file.sync_all().map_err(fail)?;
    fs::rename(&unfinished.path, path).map_err(fail)
}

/// A file that is removed unless it was renamed.
struct Unfinished {
    path: PathBuf,
}

impl Unfinished {
    fn beside(path: &Path) -> Self {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".unfinished-{}", std::process::id()));
        Self {
            path: path.with_file_name(name),
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After the rename there is nothing under this name any more.
        let _ = fs::remove_file(&self.path);
    }
}
