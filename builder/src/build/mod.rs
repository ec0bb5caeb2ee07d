//! The scheduler: from a request to an image.
//!
//! ```text
//! Boxfile ──parse──► graph ──lower──► plan ──stage by stage──► layers ──► config ──► image
//! ```
//!
//! Stages are done one after another in the order of the plan; each needs only what [`Results`] holds and what
//! [`stage::Shared`] lends, so that they can come to run side by side. A build that fails or is cancelled leaves what was
//! done before in the cache, and nothing else.

mod record;
mod stage;

use std::collections::BTreeMap;

use box_store::Store;
use box_store::error::StoreError;
use box_store::image::{Image, ImageConfig, format_rfc3339};
use box_store::layer::Layer;

use crate::ast::Boxfile;
use crate::cache::Cache;
use crate::context::Context;
use crate::diagnostic::Diagnostic;
use crate::error::{BuildError, StepError};
use crate::exec::Executor;
use crate::graph::{GraphOptions, StageGraph, StageId};
use crate::lint::{LintOptions, lint};
use crate::lower::{LowerError, Plan, lower};
use crate::parse::parse;
use crate::plan::StagePlan;
use crate::progress::{Event, EventSink};
use crate::request::{BuildRequest, Platform};
use crate::steps::Tools;

use record::{Recorder, diff_ids};
use stage::{Shared, StageResult, build_stage};

/// What a build gives.
#[derive(Debug)]
pub struct BuildOutcome {
    /// The image; it has no name yet.
    pub image: Image,
    /// Whether every step was found in the cache (or changed the config alone).
    pub is_cached: bool,
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
    let plan = plan(store, request, events)?;
    let context = Context::open(store, &request.context, request.ignore.clone())?;
    let given = request
        .build_args
        .get("SOURCE_DATE_EPOCH")
        .and_then(|text| text.parse().ok());
    let shared = Shared {
        tools: Tools {
            store,
            executor,
            request,
            events,
            context: &context,
            source_date_epoch: request.source_date_epoch.or(given),
        },
        cache: Cache::new(store),
        recorder: Recorder::default(),
    };
    let built = stages(&shared, &plan);
    // What was done is kept, whatever came after it.
    let kept = match &built {
        Err(BuildError::Cancelled) => shared.recorder.poll(&shared.cache),
        _ => shared.recorder.finish(&shared.cache),
    };
    let built = match built {
        Ok(built) => kept.map(|()| built)?,
        Err(error) => {
            // The error that ended the build says more than one that followed from it.
            let _ = kept.and_then(|()| context.save()).and_then(|()| store.sync());
            return Err(error);
        }
    };
    context.save()?;
    let image = store.put_image(&config(built.plan, &built.result)?)?;
    store.sync()?;
    events.event(Event::Built { id: image.id });
    Ok(BuildOutcome {
        image,
        is_cached: built.is_cached,
    })
}

/// Reads the Boxfile; tells what is odd in it.
fn plan(store: &Store, request: &BuildRequest, events: &dyn EventSink) -> Result<Plan, BuildError> {
    let boxfile = parse(&request.boxfile).map_err(|diagnostics| BuildError::Boxfile {
        diagnostics,
        sources: crate::source::Sources::single(request.boxfile.clone()),
    })?;
    let options = GraphOptions {
        target: request.target.clone(),
        build_args: request.build_args.clone(),
        platform_args: platform_args(request),
        ..GraphOptions::default()
    };
    let sources = || boxfile.sources.clone();
    let graph = StageGraph::new(&boxfile, &options).map_err(|diagnostics| BuildError::Boxfile {
        diagnostics,
        sources: sources(),
    })?;
    let lowered = lower(&graph, request, store);
    let base_env = |name: &str| base_env(store, name);
    let lint_options = LintOptions {
        graph: Some(&graph),
        platform_args: Some(&options.platform_args),
        base_env: Some(&base_env),
        ..LintOptions::default()
    };
    warn(&lint(&boxfile, &lint_options), &boxfile, events)?;
    let plan = lowered.map_err(|error| match error {
        LowerError::Boxfile(diagnostics) => BuildError::Boxfile {
            diagnostics,
            sources: sources(),
        },
        LowerError::Store(error) => BuildError::Store(error),
    })?;
    warn(&plan.warnings, &boxfile, events)?;
    if !plan.unused_args.is_empty() {
        let note = format!(
            "no ARG declares these build arguments: {}",
            plan.unused_args.join(", ")
        );
        events.event(Event::Note(&note));
    }
    Ok(plan)
}

/// Tells warnings; they are errors where the Boxfile says so (`# check=error=true`).
fn warn(warnings: &[Diagnostic], boxfile: &Boxfile, events: &dyn EventSink) -> Result<(), BuildError> {
    let is_error = boxfile
        .directives
        .check
        .as_ref()
        .is_some_and(|check| check.error == Some(true));
    if is_error && !warnings.is_empty() {
        let diagnostics = warnings.to_vec();
        return Err(BuildError::Boxfile {
            diagnostics,
            sources: boxfile.sources.clone(),
        });
    }
    warnings
        .iter()
        .for_each(|warning| events.event(Event::Warning(warning)));
    Ok(())
}

/// The environment of an image of the store, if it is one.
fn base_env(store: &Store, name: &str) -> Option<Vec<(String, String)>> {
    let image = store.resolve(name).ok().flatten()?;
    let pairs = image
        .config
        .config
        .env
        .iter()
        .filter_map(|pair| pair.split_once('='));
    Some(
        pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    )
}

fn platform_args(request: &BuildRequest) -> BTreeMap<String, String> {
    let of = |prefix: &str, platform: &Platform| {
        [
            (format!("{prefix}PLATFORM"), platform.to_string()),
            (format!("{prefix}OS"), platform.os.clone()),
            (format!("{prefix}ARCH"), platform.architecture.clone()),
            (
                format!("{prefix}VARIANT"),
                platform.variant.clone().unwrap_or_default(),
            ),
        ]
    };
    let stage = request.target.clone().unwrap_or_else(|| "default".to_owned());
    let all = of("TARGET", &request.platform)
        .into_iter()
        .chain(of("BUILD", &Platform::native()));
    all.chain([("TARGETSTAGE".to_owned(), stage)]).collect()
}

/// The stages that were built.
#[derive(Default)]
struct Results(BTreeMap<StageId, StageResult>);

impl Results {
    /// A stage that others need. The plan has it before them.
    fn get(&self, id: StageId) -> Result<&StageResult, StepError> {
        self.0.get(&id).ok_or(StepError::StageNotBuilt { stage: id.0 })
    }
}

/// The target, built.
struct Target<'a> {
    plan: &'a StagePlan,
    result: StageResult,
    is_cached: bool,
}

fn stages<'a>(shared: &Shared<'_>, plan: &'a Plan) -> Result<Target<'a>, BuildError> {
    let steps = plan.stages.iter().map(|stage| stage.steps.len() + 1);
    let (count, events) = (plan.stages.len(), shared.tools.events);
    events.event(Event::Planned {
        stages: count,
        steps: steps.clone().sum(),
    });
    let mut results = Results::default();
    let mut first = 0;
    let mut last = None;
    for (stage, steps) in plan.stages.iter().zip(steps) {
        let result = build_stage(shared, stage, &results, first)?;
        results.0.insert(stage.id, result.clone());
        last = Some((stage, result));
        first += steps;
    }
    // A graph has at least its target.
    let (plan, result) = last.ok_or(BuildError::Empty)?;
    Ok(Target {
        plan,
        result,
        is_cached: shared.recorder.count() == 0,
    })
}

/// The image's config: the plan's, with the layers that came of it.
fn config(plan: &StagePlan, result: &StageResult) -> Result<ImageConfig, StoreError> {
    let mut config = plan.config.clone();
    config.rootfs.diff_ids = diff_ids(&result.layers)?;
    if result.has_own_layers {
        // The newest time below, so that whoever builds on this image is later than all of it.
        let newest = result.layers.iter().map(Layer::newest_time).max();
        config.created = newest.map(format_rfc3339).or(config.created);
    }
    config.history.clone_from(&result.history);
    Ok(config)
}
