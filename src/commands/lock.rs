//! `box lock`: what a Boxfile names is written down, so that every build has the same; and reading that.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use box_builder::exec::CancelToken;
use box_builder::lockfile::{Lock, SUFFIX};
use box_builder::request::{BuildRequest, RequestLock};
use box_builder::source::Source;

use crate::app::App;
use crate::cli::{HoldArgs, LockArgs, PullMode, SourceArgs};
use crate::error::{EXIT_INPUT, Failure};
use crate::registries::BuildPuller;
use crate::{ui, user_files};

use super::build::{self, cancel_on_signals};
use super::build_source::{self, BuildSource, Fetching, Place};
use super::contexts;

/// Writes the lock beside the Boxfile; nothing if it says the same.
pub(super) fn run(app: &App, args: &LockArgs) -> Result<u8, Failure> {
    let is_directory = matches!(Place::parse(args.source.context()?)?, Place::Directory(_));
    let is_stdin = args
        .source
        .file
        .as_ref()
        .is_some_and(|file| file.as_os_str() == "-");
    if !is_directory || is_stdin {
        return Err(
            Failure::own("a lock is written beside a Boxfile, and this one is not in a directory")
                .hint("give a directory, and the Boxfile's path with -f"),
        );
    }
    let cancel = CancelToken::new();
    let ended_by = cancel_on_signals(&cancel)?;
    let fetching = Fetching {
        app,
        mode: args.progress,
        cancel: &cancel,
        is_offline: false,
    };
    let mut source = build_source::gather(&fetching, &args.source)?;
    let path = source
        .lock_path
        .clone()
        .ok_or_else(|| Failure::own("the Boxfile has no place"))?;
    let old = match (&source.lock, args.update) {
        (Some(text), false) => read(text)?,
        _ => Lock::default(),
    };
    let request = request(args, &fetching, &mut source)?;
    let sink = ui::build_sink(args.progress, false);
    let lock = box_builder::build::lock(&app.store, &request, &old, sink.as_ref());
    drop(sink);
    let lock = lock.map_err(|error| build::failure(&error, ended_by.load(Ordering::SeqCst)))?;
    let text = lock.render();
    let is_same = source
        .lock
        .as_ref()
        .is_some_and(|old| old.bytes() == text.as_bytes());
    if !is_same {
        write(&path, &text)?;
    }
    let state = if is_same { "unchanged" } else { "written" };
    ui::result(&format!("{}: {state}: {lock}\n", path.display()))?;
    Ok(0)
}

fn request(
    args: &LockArgs,
    fetching: &Fetching<'_>,
    source: &mut BuildSource,
) -> Result<BuildRequest, Failure> {
    let mut request = BuildRequest::new(source.boxfile.clone(), &source.directory);
    request.ignore.clone_from(&source.ignore);
    request.cancel = fetching.cancel.clone();
    request.target.clone_from(&args.target);
    request.build_args = args
        .build_args
        .iter()
        .filter_map(crate::values::BuildArg::resolved)
        .collect();
    request.proxies = build::proxies();
    request.platform = args.platform.clone().unwrap_or(request.platform);
    // Nothing is run.
    request.emulated.insert(request.platform.architecture.clone());
    let puller = BuildPuller::new(&args.registry, PullMode::Missing, args.progress)?;
    request.puller = puller.map(|puller| Arc::new(puller) as _);
    for named in &args.build_contexts {
        let context = contexts::named(fetching, named, &mut source.layers)?;
        request.contexts.insert(named.name.clone(), context);
    }
    Ok(request)
}

/// The lock of a build.
///
/// # Errors
/// It is damaged; it must be there, and is not.
pub(super) fn of_build(source: &BuildSource, hold: &HoldArgs) -> Result<Option<RequestLock>, Failure> {
    let Some(text) = &source.lock else {
        let place = source.lock_path.as_ref().map(|path| path.display().to_string());
        return match hold.locked {
            false => Ok(None),
            true => Err(Failure::input(format!(
                "--locked, and there is no {}",
                place.as_deref().unwrap_or("lock beside the Boxfile")
            ))
            .hint("`box lock` writes it")),
        };
    };
    let path = source.lock_path.as_deref();
    Ok(Some(RequestLock {
        name: text.name().to_owned(),
        lock: read(text)?,
        is_strict: hold.locked,
        in_context: path.and_then(|path| in_context(path, &source.directory)),
    }))
}

fn read(text: &Source) -> Result<Lock, Failure> {
    Lock::parse(text).map_err(|error| {
        Failure::of(EXIT_INPUT, &error)
            .hint("`box lock --update` makes it anew; a build without it needs it out of the way")
    })
}

/// Where the lock of a directory's Boxfile is, if there is one.
pub(super) fn own_lock(args: &SourceArgs, directory: &Path) -> Option<PathBuf> {
    let lock = build_source::with_suffix(&build_source::boxfile(args, directory)?, SUFFIX);
    lock.is_file().then_some(lock)
}

/// Where the lock is in the context, if it is in it.
pub(super) fn in_context(lock: &Path, directory: &Path) -> Option<PathBuf> {
    let parent = match lock.parent()? {
        empty if empty.as_os_str().is_empty() => Path::new("."),
        parent => parent,
    };
    let (parent, root) = (parent.canonicalize().ok()?, directory.canonicalize().ok()?);
    Some(parent.strip_prefix(root).ok()?.join(lock.file_name()?))
}

/// All at once: a build beside this one reads the old lock or the new one.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let unfinished = PathBuf::from(name);
    let written = user_files::create_new(&unfinished).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&unfinished, path)
    });
    written.map_err(|error| {
        let _ = std::fs::remove_file(&unfinished);
        Failure::own(format!("cannot write {}: {error}", path.display()))
    })
}
