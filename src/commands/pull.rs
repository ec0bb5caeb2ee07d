//! `box pull`: images from registries.

use box_builder::exec::CancelToken;

use crate::app::{self, App};
use crate::cli::PullArgs;
use crate::error::Failure;
use crate::registries::{self, Registries};
use crate::ui;

use super::build::cancel_on_signals;

/// Pulls every image, and prints what came.
pub(super) fn run(app: &App, args: &PullArgs) -> Result<u8, Failure> {
    let names = args.names.iter().map(|name| app::reference(name));
    let names = names.collect::<Result<Vec<_>, _>>()?;
    let registries = Registries::new(&args.registry)?;
    let cancel = CancelToken::new();
    cancel_on_signals(&cancel)?;
    for name in &names {
        let progress = ui::Transfers::new(args.progress, args.quiet, &cancel);
        let options = registries.options(args.platform.as_ref());
        let pulled = box_store::registry::pull(&app.store, name, &options, &progress);
        let pulled = pulled.map_err(|error| registries::failure(&error, Some(&cancel)))?;
        app.note_image("pull", &pulled.image.id, &name.familiar());
        if !args.quiet {
            let news = match pulled.fetched {
                0 => "is up to date".to_owned(),
                1 => "pulled, 1 layer fetched".to_owned(),
                count => format!("pulled, {count} layers fetched"),
            };
            ui::note(&format!("{name}: {news}; manifest {}", pulled.manifest));
        }
        ui::result(&format!("{}\n", pulled.image.id))?;
    }
    Ok(0)
}
