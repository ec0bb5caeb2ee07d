//! The scheduler: from a request to an image.
//!
//! ```text
//! Boxfile ──parse──► graph ──lower──► plan ──stage by stage──► layers ──► config ──► image
//! ```
//!
//! Stages are done side by side ([`schedule`]); each needs only what [`begin::Results`] holds and what [`begin::Shared`] lends. A build
//! that fails or is cancelled leaves what was done before in the cache, and nothing else.

mod ahead;
mod announce;
mod begin;
mod elsewhere;
mod explained;
mod forecast;
mod front;
mod given;
mod images;
mod layouts;
mod lock;
mod parts;
mod pulls;
mod record;
mod schedule;
mod stage;
mod visit;

use std::collections::BTreeMap;

use box_store::Store;
use box_store::error::StoreError;
use box_store::image::{Image, ImageConfig, format_rfc3339};
use box_store::layer::Layer;

use crate::cache::{BuildUses, Cache, UsesLog};
use crate::context::Context;
use crate::error::BuildError;
use crate::exec::{CancelToken, ExecStatus, Executor};
use crate::files::FilesError;
use crate::graph::StageId;
use crate::lower::Plan;
use crate::plan::{Place, StagePlan};
use crate::progress::{Event, EventSink};
use crate::request::{BuildRequest, NamedContext};
use crate::steps::Tools;
use crate::steps::turns::Turns;

use begin::{Shared, StageResult};
pub use forecast::{Foreseen, forecast};
pub(crate) use front::{Front, boxfile_error};
use front::{Planned, plan};
pub use lock::lock;
use pulls::{Puller, Pulls};
use record::{Recorder, diff_ids};

/// What a build gives.
#[derive(Debug)]
pub struct BuildOutcome {
    /// The image; it has no name yet.
    pub image: Image,
    /// Whether every step was found in the cache (or changed the config alone).
    pub is_cached: bool,
    /// What was used, if the request wants to know ([`BuildRequest::notes_uses`]).
    pub uses: BuildUses,
    /// The layers that the steps gave, made now or before, stage by stage in the order of the plan.
    pub layers: Vec<BuiltLayer>,
}

/// A step's layer.
#[derive(Clone, Debug)]
pub struct BuiltLayer {
    /// Its stage.
    pub stage: StageId,
    /// The step.
    pub place: Place,
    /// What it gave.
    pub layer: Layer,
}

/// Builds an image. When this returns, the image and what it consists of are durable.
///
/// Must not be called from within a tokio runtime if the Boxfile fetches anything.
///
/// # Errors
/// See [`BuildError`].
pub fn build(
    store: &Store,
    executor: &dyn Executor,
    request: &BuildRequest,
    events: &dyn EventSink,
) -> Result<BuildOutcome, BuildError> {
    run((store, request, events), executor, image)
}

/// Builds as far as [`BuildRequest::shell_at`] says, and lets a person in there; what they write is thrown away, and no image is made. Gives how
/// their shell ended.
///
/// # Errors
/// See [`BuildError`].
pub fn visit(
    store: &Store,
    executor: &dyn Executor,
    request: &BuildRequest,
    events: &dyn EventSink,
) -> Result<ExecStatus, BuildError> {
    run((store, request, events), executor, |end| {
        end.store.sync()?;
        end.built.visited.ok_or(BuildError::Empty)
    })
}

/// Builds the stages, and ends with what is made of the target.
fn run<T: Send>(
    (store, request, events): (&Store, &BuildRequest, &dyn EventSink),
    executor: &dyn Executor,
    end: impl FnOnce(End<'_>) -> Result<T, BuildError>,
) -> Result<T, BuildError> {
    // What stops the steps and pulls: the caller, or one of them that failed.
    let (cancel, pulls) = (CancelToken::new(), Pulls::default());
    let stop = cancel.clone();
    let _link = request.cancel.on_cancel(move || stop.cancel());
    std::thread::scope(|scope| {
        let way = Puller {
            scope,
            store,
            request,
            events,
            pulls: &pulls,
            cancel: &cancel,
        };
        let built = build_in(way, executor, end);
        if built.is_err() {
            cancel.cancel();
        }
        built
    })
}

/// The target is built.
struct End<'a> {
    store: &'a Store,
    request: &'a BuildRequest,
    events: &'a dyn EventSink,
    plan: &'a Plan,
    built: Target<'a>,
    source_date_epoch: Option<i64>,
    uses: UsesLog,
}

fn build_in<T>(
    way: Puller<'_, '_>,
    executor: &dyn Executor,
    end: impl FnOnce(End<'_>) -> Result<T, BuildError>,
) -> Result<T, BuildError> {
    let Puller {
        store,
        request,
        events,
        pulls,
        ..
    } = way;
    let context = open_context(store, request)?;
    let contexts = named_contexts(store, request)?;
    let Planned {
        plan,
        source_date_epoch,
    } = plan(way, &context)?;
    let (uses, visits) = (UsesLog::new(request.notes_uses), visit::Visits::default());
    let built = elsewhere::attempts(way, &uses, |cancel| {
        let shared = Shared {
            tools: Tools {
                store,
                executor,
                request,
                events,
                context: &context,
                contexts: &contexts,
                source_date_epoch,
                turns: &Turns::new(request.jobs),
                cancel,
                is_forecast: false,
                uses: &uses,
            },
            plan: &plan,
            cache: Cache::new(store, request.imports.as_ref()),
            recorder: Recorder::default(),
            pulls,
            visits: &visits,
        };
        let built = schedule::stages(&shared, &plan);
        keep(&shared, elsewhere::fetched(request, built))
    })?;
    save(&context, &contexts)?;
    end(End {
        store,
        request,
        events,
        plan: &plan,
        built,
        source_date_epoch,
        uses,
    })
}

/// The image of a target that is built.
fn image(end: End<'_>) -> Result<BuildOutcome, BuildError> {
    let End {
        store,
        request,
        events,
        plan,
        built,
        source_date_epoch,
        uses,
    } = end;
    let mut config = config(request, built.plan, &built.result)?;
    if let (Some(limit), true) = (source_date_epoch, built.result.has_own_layers) {
        // Its base may be younger.
        let created = config.created_seconds();
        config.created = created.map(|created| format_rfc3339(created.min(limit)));
    }
    let image = store.put_image(&config)?;
    store.sync()?;
    events.event(Event::Built { id: image.id });
    let target = elsewhere::stages_of(plan, built.plan);
    Ok(BuildOutcome {
        image,
        is_cached: built.is_cached,
        layers: built.layers,
        uses: uses.finish(store, request.imports.as_deref(), &target)?,
    })
}

/// Opens the context of a request.
///
/// # Errors
/// When it can't be opened.
pub(crate) fn open_context<'a>(store: &'a Store, request: &BuildRequest) -> Result<Context<'a>, FilesError> {
    let left_out = request.lock.as_ref().and_then(|lock| lock.in_context.as_deref());
    Ok(Context::open(store, &request.context, request.ignore.clone())?.without(left_out))
}

/// Opens the directories among the named contexts.
fn named_contexts<'a>(
    store: &'a Store,
    request: &BuildRequest,
) -> Result<BTreeMap<String, Context<'a>>, BuildError> {
    let mut contexts = BTreeMap::new();
    for (name, context) in &request.contexts {
        if let NamedContext::Directory(path) = context {
            contexts.insert(name.clone(), Context::open(store, path, None)?);
        }
    }
    Ok(contexts)
}

/// Keeps what was learned of the contexts' files.
fn save(context: &Context<'_>, contexts: &BTreeMap<String, Context<'_>>) -> Result<(), StoreError> {
    let mut all = std::iter::once(context).chain(contexts.values());
    all.try_for_each(Context::save)
}

/// Records what was done, whatever came after it.
fn keep<'a>(shared: &Shared<'_>, built: Result<Target<'a>, BuildError>) -> Result<Target<'a>, BuildError> {
    match built {
        Ok(built) => {
            shared.recorder.finish(&shared.cache)?;
            if let Some(elsewhere) = shared.cache.elsewhere() {
                elsewhere.keep(shared.tools.store)?;
            }
            Ok(built)
        }
        // Whoever presses Ctrl-C waits for no digest and no disk.
        Err(BuildError::Cancelled) => {
            let _ = shared.recorder.poll(&shared.cache);
            Err(BuildError::Cancelled)
        }
        Err(error) => {
            // The error that ended the build says more than one that followed from it.
            let kept = shared.recorder.finish(&shared.cache);
            let Tools {
                context,
                contexts,
                store,
                ..
            } = shared.tools;
            let _ = kept
                .and_then(|()| save(context, contexts))
                .and_then(|()| store.sync());
            Err(error)
        }
    }
}

/// The target, built.
struct Target<'a> {
    plan: &'a StagePlan,
    result: StageResult,
    is_cached: bool,
    layers: Vec<BuiltLayer>,
    /// How the shell ended that was asked for.
    visited: Option<ExecStatus>,
}

/// The image's config: the plan's, with the layers that came of it.
fn config(request: &BuildRequest, plan: &StagePlan, result: &StageResult) -> Result<ImageConfig, StoreError> {
    let mut config = plan.config.clone();
    config.config.labels.extend(request.labels.clone());
    config.rootfs.diff_ids = diff_ids(&result.layers)?;
    if result.has_own_layers {
        // The newest time below, so that whoever builds on this image is later than all of it.
        let newest = result.layers.iter().filter_map(Layer::newest_time).max();
        let last = || result.history.last()?.created.clone();
        config.created = newest.map(format_rfc3339).or_else(last).or(config.created);
    }
    config.history.clone_from(&result.history);
    Ok(config)
}
