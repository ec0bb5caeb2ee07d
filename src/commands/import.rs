//! `box import`: an image of one layer from a root file system archive.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use box_store::transfer::Progress;
use box_store::transfer::http::{FetchOptions, Fetched};
use box_store::{ApplyOptions, ContainerConfig, Digest, History, Image, ImageConfig, Layer};

use crate::app::{self, App};
use crate::cli::ImportArgs;
use crate::error::{EXIT_BOX, EXIT_INPUT, Failure};
use crate::ui;

/// Unpacks the archive, names the image, prints its id.
pub(super) fn run(app: &App, args: &ImportArgs) -> Result<u8, Failure> {
    let name = args.name.as_deref().map(app::reference).transpose()?;
    let checksum = args.checksum.as_deref().map(str::parse::<Digest>).transpose();
    let checksum = checksum
        .map_err(|e| Failure::of(EXIT_BOX, &e).hint("write it as sha256: and 64 hexadecimal digits"))?;
    let layer = layer(app, args, checksum)?;
    let image = put_image(app, &layer)?;
    app.store.sync().map_err(|e| Failure::of(EXIT_BOX, &e))?;
    app.note_image("import", &image.id, &args.source);
    if let Some(name) = name {
        app.name(&name, &image.id)?;
    }
    ui::result(&format!("{}\n", image.id))?;
    Ok(0)
}

fn layer(app: &App, args: &ImportArgs, checksum: Option<Digest>) -> Result<Layer, Failure> {
    let progress = ui::Transfer::new(args.progress);
    let mut options = ApplyOptions::default();
    if let Some(max) = args.max_size {
        options.limits.max_expanded = max.0;
    }
    if args.source.starts_with("http://") || args.source.starts_with("https://") {
        let fetched = fetch(app, &args.source, checksum, &progress)?;
        return apply(app, fetched, &options);
    }
    if args.source == "-" {
        return checked(app, std::io::stdin().lock(), checksum, &options, &progress);
    }
    let path = Path::new(&args.source);
    let file =
        File::open(path).map_err(|e| Failure::input(format!("cannot read {}: {e}", path.display())))?;
    progress.start(file.metadata().ok().map(|meta| meta.len()));
    let layer = checked(app, file, checksum, &options, &progress);
    progress.finish();
    layer
}

pub(super) fn fetch(
    app: &App,
    url: &str,
    checksum: Option<Digest>,
    progress: &dyn Progress,
) -> Result<File, Failure> {
    let options = FetchOptions {
        checksum,
        ..FetchOptions::default()
    };
    match app
        .store
        .fetch_blocking(url, &options, progress)
        .map_err(|e| Failure::of(EXIT_INPUT, &e))?
    {
        Fetched::File(fetched) => Ok(fetched.file),
        Fetched::NotModified => Err(Failure::input(format!(
            "{url}: the server answered 304 to a plain request"
        ))),
    }
}

fn apply(app: &App, archive: impl Read, options: &ApplyOptions) -> Result<Layer, Failure> {
    app.store
        .apply_archive(archive, options)
        .map_err(|e| Failure::of(EXIT_INPUT, &e))
}

/// Applies while the bytes are hashed; a layer of other bytes than promised is dropped unnamed.
fn checked(
    app: &App,
    source: impl Read,
    checksum: Option<Digest>,
    options: &ApplyOptions,
    progress: &dyn Progress,
) -> Result<Layer, Failure> {
    let mut counted = Counted {
        source,
        hasher: box_store::Hasher::new(),
        progress,
    };
    let layer = apply(app, &mut counted, options)?;
    if let Some(expected) = checksum {
        std::io::copy(&mut counted, &mut std::io::sink())
            .map_err(|e| Failure::input(format!("cannot read on: {e}")))?;
        let found = counted.hasher.finish();
        if found != expected {
            return Err(Failure::input(format!(
                "the archive's checksum is {found}, not {expected}"
            )));
        }
    }
    Ok(layer)
}

/// A stream that is hashed and shown as it is read.
struct Counted<'a, R> {
    source: R,
    hasher: box_store::Hasher,
    progress: &'a dyn Progress,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.progress.advance(count as u64);
        Ok(count)
    }
}

fn put_image(app: &App, layer: &Layer) -> Result<Image, Failure> {
    let fail = |e: box_store::StoreError| Failure::of(EXIT_BOX, &e);
    let created = box_store::image::format_rfc3339(layer.newest_time().unwrap_or_default());
    let history = History {
        created: Some(created.clone()),
        // Nothing of where the archive lay: the same archive is the same image everywhere.
        created_by: Some("box import".to_owned()),
        ..History::default()
    };
    let platform = box_builder::request::Platform::native();
    let mut config = ImageConfig {
        created: Some(created),
        architecture: platform.architecture,
        os: platform.os,
        variant: platform.variant,
        config: ContainerConfig::default(),
        history: vec![history],
        ..ImageConfig::default()
    };
    config.rootfs.diff_ids = vec![layer.diff_id().map_err(fail)?];
    app.store.put_image(&config).map_err(fail)
}
