//! `box gc`, `prune` and `df`: what the store takes, and less of it.

use std::time::Duration;

use box_store::StoreError;
use box_store::gc::{Collected, GcOptions, Prune};
use serde_json::json;

use crate::app::App;
use crate::cli::{CollectArgs, DfArgs, Format, GcArgs, PruneArgs};
use crate::error::{EXIT_BOX, EXIT_INPUT, Failure};
use crate::ui::{self, human, table};

/// Removes what nothing leads to.
pub(super) fn gc(app: &App, args: &GcArgs) -> Result<u8, Failure> {
    let collected = collect(app, &args.collect, Prune::Nothing)?;
    tell(&collected, &args.collect)?;
    Ok(0)
}

/// Removes what is not needed but could be used again.
pub(super) fn prune(app: &App, args: &PruneArgs) -> Result<u8, Failure> {
    let prune = match (args.older_than, args.keep_storage) {
        (Some(age), _) => Prune::OlderThan(age.0),
        (None, Some(limit)) => Prune::Above(limit.0),
        (None, None) => Prune::Unused,
    };
    let collected = collect(app, &args.collect, prune)?;
    tell(&collected, &args.collect)?;
    match args.keep_storage {
        Some(limit) if collected.left > limit.0 => {
            let left = human::bytes(collected.left);
            let message = format!(
                "{left} are left, more than wanted: they belong to images with a name, or to running containers"
            );
            Err(Failure::new(EXIT_INPUT, message)
                .hint("box images and box df tell which; box rmi removes them"))
        }
        _ => Ok(0),
    }
}

fn collect(app: &App, args: &CollectArgs, prune: Prune) -> Result<Collected, Failure> {
    let options = GcOptions {
        prune,
        wait: Duration::from_secs(args.wait),
        dry_run: args.dry_run,
    };
    app.store.collect(&options).map_err(|error| match error {
        StoreError::InUse { .. } => Failure::of(EXIT_BOX, &error)
            .hint("try again when builds and pulls are done, or wait longer with --wait"),
        error => Failure::of(EXIT_BOX, &error),
    })
}

fn tell(collected: &Collected, args: &CollectArgs) -> Result<(), Failure> {
    let Collected {
        images,
        records,
        layers,
        blobs,
        bytes,
        left,
    } = *collected;
    let verb = if args.dry_run {
        "would be removed"
    } else {
        "removed"
    };
    ui::result(&format!(
        "{images} images, {records} build records, {layers} layers, {blobs} blobs {verb}: {}; {} are left\n",
        human::bytes(bytes),
        human::bytes(left),
    ))
}

/// Tells what is on the disk, and whose it is.
pub(super) fn df(app: &App, args: &DfArgs) -> Result<u8, Failure> {
    let usage = app.store.usage().map_err(|e| Failure::of(EXIT_BOX, &e))?;
    let names = |image: &box_store::gc::ImageUsage| {
        image.names.iter().map(|name| name.familiar()).collect::<Vec<_>>()
    };
    if args.format == Format::Json {
        let images: Vec<_> = usage
            .images
            .iter()
            .map(|image| {
                json!({"id": image.id.to_string(), "names": names(image), "shared": image.shared, "own": image.own})
            })
            .collect();
        ui::json(&json!({
            "images": images,
            "imageLayers": usage.image_layers,
            "cacheLayers": usage.cache_layers,
            "blobs": usage.blobs,
            "cacheMounts": usage.cache_mounts,
            "volumes": usage.volumes,
            "buildLogs": usage.build_logs,
        }))?;
        return Ok(0);
    }
    let rows: Vec<_> = usage
        .images
        .iter()
        .map(|image| {
            vec![
                app.shown_id(&image.id, false),
                human::bytes(image.own),
                human::bytes(image.shared),
                match image.names.is_empty() {
                    true => "<none>".to_owned(),
                    false => names(image).join(" "),
                },
            ]
        })
        .collect();
    let mut text = table::render(&["IMAGE", "OWN", "SHARED", "NAMES"], &rows);
    text.push('\n');
    let total = [
        ("layers of images", usage.image_layers),
        ("layers of the build cache alone", usage.cache_layers),
        ("blobs", usage.blobs),
        ("cache mounts", usage.cache_mounts),
        ("volumes", usage.volumes),
        ("logs of builds", usage.build_logs),
    ];
    let rows: Vec<_> = total
        .iter()
        .map(|(what, bytes)| vec![human::bytes(*bytes), (*what).to_owned()])
        .collect();
    text.push_str(&table::render(&["ON DISK", "WHAT"], &rows));
    ui::result(&text)?;
    Ok(0)
}
