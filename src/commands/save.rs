//! `box save`: images to an OCI archive.

use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use box_store::transfer::archive::save_oci;
use box_store::{Image, Reference};

use crate::app::App;
use crate::cli::SaveArgs;
use crate::error::{EXIT_BOX, EXIT_INPUT, Failure};

/// Writes the archive; a file appears only when it is whole.
pub(super) fn run(app: &App, args: &SaveArgs) -> Result<u8, Failure> {
    let images: Result<Vec<_>, Failure> = args.images.iter().map(|text| named(app, text)).collect();
    let images = images?;
    match &args.output {
        Some(path) => to_file(app, &images, path)?,
        None => to_stdout(app, &images)?,
    }
    Ok(0)
}

/// The image with the name it is saved under: the one that was asked for.
fn named(app: &App, text: &str) -> Result<(Image, Vec<Reference>), Failure> {
    let image = app.image(text, EXIT_INPUT)?;
    let asked = Reference::parse(text).ok();
    let names = app
        .names_of(&image)?
        .into_iter()
        .filter(|name| asked.as_ref() == Some(name))
        .collect();
    Ok((image, names))
}

fn to_stdout(app: &App, images: &[(Image, Vec<Reference>)]) -> Result<(), Failure> {
    let out = io::stdout().lock();
    if out.is_terminal() {
        return Err(Failure::own("an archive can't be written to a terminal")
            .hint("give -o FILE, or redirect the output"));
    }
    let mut out = BufWriter::new(out);
    write(app, images, &mut out)?;
    out.flush()
        .map_err(|e| Failure::own(format!("cannot write the archive: {e}")))
}

fn to_file(app: &App, images: &[(Image, Vec<Reference>)], path: &Path) -> Result<(), Failure> {
    let fail = |e: io::Error| Failure::own(format!("cannot write {}: {e}", path.display()));
    let unfinished = Unfinished::beside(path);
    let mut out = BufWriter::with_capacity(1 << 20, File::create(&unfinished.path).map_err(fail)?);
    write(app, images, &mut out)?;
    let file = out.into_inner().map_err(|e| fail(e.into_error()))?;
    file.sync_all().map_err(fail)?;
    fs::rename(&unfinished.path, path).map_err(fail)
}

fn write(app: &App, images: &[(Image, Vec<Reference>)], out: &mut dyn Write) -> Result<(), Failure> {
    save_oci(&app.store, images, out).map_err(|e| Failure::of(EXIT_BOX, &e))
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
