//! `box cache`: the directories of `RUN --mount=type=cache`, and the whole build cache elsewhere.

use std::time::{SystemTime, UNIX_EPOCH};

use box_builder::cache::BuildUses;
use box_builder::exec::CancelToken;
use box_store::CacheMountInfo;
use box_store::remote::Uses;
use serde_json::json;

use crate::app::App;
use crate::cli::{
    CacheAction, CacheExportArgs, CacheImportArgs, CacheListArgs, CachePruneArgs, Format, ProgressMode,
};
use crate::error::{EXIT_BOX, EXIT_INPUT, Failure};
use crate::travel::Travel;
use crate::ui::{self, human, table};
use crate::values::{CacheMode, CacheTo};

use super::build;

/// Lists or removes.
pub(super) fn run(app: &App, action: &CacheAction) -> Result<u8, Failure> {
    let all = || app.store.cache_mounts().map_err(|e| Failure::of(EXIT_BOX, &e));
    match action {
        CacheAction::Ls(args) => list(&all()?, args),
        CacheAction::Prune(args) => prune(app, &all()?, args),
        CacheAction::Export(args) => export(app, args),
        CacheAction::Import(args) => import(app, args),
    }
}

/// Puts everything elsewhere. Here a failure is one: nothing else was asked for.
fn export(app: &App, args: &CacheExportArgs) -> Result<u8, Failure> {
    let cancel = CancelToken::new();
    let ended_by = build::cancel_on_signals(&cancel)?;
    let uses = box_builder::cache::everything(&app.store).map_err(|e| Failure::of(EXIT_BOX, &e))?;
    let uses = BuildUses {
        mounts: uses.mounts.clone(),
        result: Uses::default(),
        suspects: Default::default(),
        all: uses,
    };
    let to = CacheTo {
        mode: CacheMode::Max,
        ignores_errors: false,
        ..args.to.clone()
    };
    let sink = ui::build_sink(ProgressMode::Plain, false);
    let travel = Travel {
        store: &app.store,
        registry: &args.registry,
        cancel: &cancel,
    };
    let exported = travel.export(&uses, &[to], sink.as_ref());
    exported.map_err(|failure| build::interrupted(failure, Some(&ended_by)))?;
    Ok(0)
}

/// Brings everything in; what could not be had makes the exit code 1.
fn import(app: &App, args: &CacheImportArgs) -> Result<u8, Failure> {
    let cancel = CancelToken::new();
    let ended_by = build::cancel_on_signals(&cancel)?;
    let travel = Travel {
        store: &app.store,
        registry: &args.registry,
        cancel: &cancel,
    };
    let Some(imports) = travel.imports(std::slice::from_ref(&args.from))? else {
        return Ok(0);
    };
    let imported = box_builder::cache::bring_in(&app.store, &imports);
    let imported = imported.and_then(|imported| app.store.sync().map(|()| imported));
    let imported = imported
        .map_err(|e| Failure::of(EXIT_BOX, &e))
        .map_err(|failure| build::interrupted(failure, Some(&ended_by)))?;
    let warnings = imports.take_warnings();
    warnings
        .iter()
        .for_each(|warning| ui::note(&format!("warning: {warning}")));
    ui::result(&format!(
        "Imported: {} steps, {} cache mounts\n",
        imported.steps, imported.mounts
    ))?;
    Ok(if warnings.is_empty() { 0 } else { EXIT_INPUT })
}

fn list(all: &[CacheMountInfo], args: &CacheListArgs) -> Result<u8, Failure> {
    match args.format {
        Format::Json => ui::json(&all.iter().map(as_json).collect())?,
        Format::Table => {
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |now| now.as_secs());
            let rows: Vec<_> = all.iter().map(|info| cells(info, now)).collect();
            ui::result(&table::render(&["ID", "SIZE", "LAST USED", "DIRECTORIES"], &rows))?;
        }
    }
    Ok(0)
}

fn cells(info: &CacheMountInfo, now: u64) -> Vec<String> {
    let ago = i64::try_from(now.saturating_sub(info.used)).unwrap_or(i64::MAX);
    let used = if info.in_use {
        "in use".to_owned()
    } else {
        human::ago(ago)
    };
    vec![
        info.id.clone(),
        human::bytes(info.size),
        used,
        info.instances.to_string(),
    ]
}

fn as_json(info: &CacheMountInfo) -> serde_json::Value {
    json!({
        "id": info.id,
        "size": info.size,
        "used": info.used,
        "inUse": info.in_use,
        "directories": info.instances,
    })
}

/// Removes each; what is in use stays, and is told.
fn prune(app: &App, all: &[CacheMountInfo], args: &CachePruneArgs) -> Result<u8, Failure> {
    if let Some(unknown) = args.ids.iter().find(|id| all.iter().all(|info| info.id != **id)) {
        let failure = Failure::input(format!("there is no cache {unknown}"));
        return Err(failure.hint("`box cache ls` lists them"));
    }
    let mut code = 0;
    let wanted = all.iter().filter(|info| args.all || args.ids.contains(&info.id));
    for info in wanted {
        let is_gone = app.store.remove_cache_mount(info);
        match is_gone.map_err(|e| Failure::of(EXIT_BOX, &e))? {
            true => ui::result(&format!("Removed: {} ({})\n", info.id, human::bytes(info.size)))?,
            false => {
                ui::error(&Failure::input(format!(
                    "the cache {} is in use by a build",
                    info.id
                )));
                code = EXIT_INPUT;
            }
        }
    }
    Ok(code)
}
