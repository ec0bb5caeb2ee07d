//! From a request to a plan: nothing is built yet, and what is wrong is said at once.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use box_store::{Image, Store, StoreError};

use crate::ast::{Boxfile, Check, InstructionKind};
use crate::context::{Context, resolve};
use crate::diagnostic::Diagnostic;
use crate::error::BuildError;
use crate::files::{EntryKind, FileTree, FilesError};
use crate::graph::{Base, GraphOptions, StageGraph, StageId};
use crate::lint::{LintOptions, lint};
use crate::lower::{Loaded, LowerError, Plan, lower};
use crate::parse::{MAX_SOURCE, SyntaxErrors, parse_check_comment, parse_with};
use crate::progress::{Event, EventSink};
use crate::request::{BuildRequest, NamedContext, ShellAt};
use crate::source::Source;

use super::given::{platform_args, source_date_epoch};
use super::pulls::Puller;
use super::{images, layouts};

/// The build argument that goes before `# check=`.
const CHECK_ARG: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// What is to be done.
pub(super) struct Planned {
    pub(super) plan: Plan,
    /// Nothing in the image is later than this.
    pub(super) source_date_epoch: Option<i64>,
}

/// Reads the Boxfile; tells what is odd in it.
pub(super) fn plan(way: Puller<'_, '_>, context: &Context<'_>) -> Result<Planned, BuildError> {
    let Puller {
        store,
        request,
        events,
        ..
    } = way;
    let front = Front::read(store, request, context).map_err(boxfile_error)?;
    check_stages(request, &front.boxfile)?;
    if let Some(lock) = &request.lock {
        events.event(Event::Note(&format!("{} is honoured: {}", lock.name, lock.lock)));
    }
    let (graph, loaded) = front.loaded(way)?;
    let lowered = lower(&graph, request, store, &loaded);
    let check = front.check();
    warn(
        &front.lint(Some(&graph), &loaded)?,
        &check,
        &front.boxfile,
        events,
    )?;
    let plan = lowered.map_err(|error| match error {
        LowerError::Boxfile { diagnostics, .. } => front.error(diagnostics),
        LowerError::Store(error) => BuildError::Store(error),
    })?;
    warn(&plan.warnings, &check, &front.boxfile, events)?;
    // Those after the point may be declared.
    if !plan.unused_args.is_empty() && request.shell_at.is_none() {
        let note = format!(
            "no ARG declares these build arguments: {}",
            plan.unused_args.join(", ")
        );
        events.event(Event::Note(&note));
    }
    let source_date_epoch = source_date_epoch(&front.boxfile, &graph, request)?;
    Ok(Planned {
        plan,
        source_date_epoch,
    })
}

/// The same with what is here alone: nothing is fetched, loaded or told.
///
/// # Errors
/// As of [`plan`]; [`BuildError::OnlyBuilt`] for what would have to be loaded.
pub(super) fn plan_alone(
    store: &Store,
    request: &BuildRequest,
    context: &Context<'_>,
) -> Result<Planned, BuildError> {
    let loads = |what: &str| BuildError::OnlyBuilt {
        what: format!("the OCI layout {what}"),
    };
    for (name, context) in &request.contexts {
        if matches!(context, NamedContext::Layout { .. }) {
            return Err(loads(name));
        }
    }
    let front = Front::read(store, request, context).map_err(boxfile_error)?;
    check_stages(request, &front.boxfile)?;
    let loaded = Loaded::default();
    let graph = front.built_graph(&loaded)?;
    for stage in &graph.stages {
        if let Base::OciLayout { directory, .. } = &stage.base {
            return Err(loads(&directory.value));
        }
    }
    let plan = lower(&graph, request, store, &loaded).map_err(|error| match error {
        LowerError::Boxfile { diagnostics, .. } => front.error(diagnostics),
        LowerError::Store(error) => BuildError::Store(error),
    })?;
    let source_date_epoch = source_date_epoch(&front.boxfile, &graph, request)?;
    Ok(Planned {
        plan,
        source_date_epoch,
    })
}

/// Stages that are to be built anew must be there: else a wrong name would be found out by nobody.
fn check_stages(request: &BuildRequest, boxfile: &Boxfile) -> Result<(), BuildError> {
    let froms = boxfile
        .instructions
        .iter()
        .filter_map(|instruction| match &instruction.kind {
            InstructionKind::From(from) => Some(from),
            _ => None,
        });
    let names: Vec<String> = froms
        .enumerate()
        .map(|(number, from)| match &from.alias {
            Some(alias) => alias.name.clone(),
            None => number.to_string(),
        })
        .collect();
    let is_there = |stage: &str| {
        let number = stage.parse::<usize>();
        number.is_ok_and(|number| number < names.len())
            || names.iter().any(|name| name.eq_ignore_ascii_case(stage))
    };
    match request.no_cache_stages.iter().find(|stage| !is_there(stage)) {
        Some(stage) => Err(BuildError::NoSuchStage {
            name: stage.clone(),
            stages: names.join(", "),
        }),
        None => Ok(()),
    }
}

/// Syntax errors as an error of a build.
pub(crate) fn boxfile_error(errors: SyntaxErrors) -> BuildError {
    BuildError::Boxfile {
        diagnostics: errors.diagnostics,
        sources: errors.sources,
    }
}

/// A Boxfile that was read, and what is known of its surroundings.
pub(crate) struct Front<'a> {
    store: &'a Store,
    request: &'a BuildRequest,
    context: &'a Context<'a>,
    pub(crate) boxfile: Boxfile,
    options: GraphOptions,
}

impl<'a> Front<'a> {
    /// Parses the Boxfile and the files that it includes.
    pub(crate) fn read(
        store: &'a Store,
        request: &'a BuildRequest,
        context: &'a Context<'a>,
    ) -> Result<Front<'a>, SyntaxErrors> {
        let boxfile = parse_with(&request.boxfile, &mut |path| included(context, path))?;
        let options = GraphOptions {
            target: request.target.clone(),
            until: match request.shell_at {
                Some(ShellAt::Step(step)) => Some(step),
                Some(ShellAt::End) | None => None,
            },
            build_args: request.build_args.clone(),
            platform_args: platform_args(request, &boxfile),
            contexts: request.contexts.keys().cloned().collect(),
        };
        Ok(Front {
            store,
            request,
            context,
            boxfile,
            options,
        })
    }

    /// The stages that are built, with the images of OCI layouts and registries brought in. Triggers of such an image may lead to further
    /// stages, which may be on one, too.
    fn loaded(&self, way: Puller<'_, '_>) -> Result<(StageGraph, Loaded), BuildError> {
        let mut loaded = Loaded::default();
        layouts::load_contexts(self.store, self.request, &mut loaded)?;
        loop {
            let graph = self.built_graph(&loaded)?;
            let before = (loaded.stages.len(), loaded.pulled.len());
            layouts::load_stages(self.store, self.request, self.context, &graph, &mut loaded)?;
            images::pull(way, &graph, &mut loaded)?;
            if (loaded.stages.len(), loaded.pulled.len()) == before {
                return Ok((graph, loaded));
            }
        }
    }

    /// The stages that are built; without the triggers of images that can't be read.
    pub(crate) fn graph(&self, loaded: &Loaded) -> Result<StageGraph, Vec<Diagnostic>> {
        let find = |name: &str| images::find(self.store, self.request, loaded, name);
        self.graph_of(loaded, &|name| find(name).ok().flatten())
    }

    fn graph_of(
        &self,
        loaded: &Loaded,
        find: &dyn Fn(&str) -> Option<Image>,
    ) -> Result<StageGraph, Vec<Diagnostic>> {
        let find = |name: &str| loaded.coming.get(name).cloned().or_else(|| find(name));
        let triggers = |stage: StageId, base: &Base| {
            let image = match base {
                Base::Image(name) => find(name),
                Base::OciLayout { .. } => loaded.stages.get(&stage).cloned(),
                Base::Context(name) => match self.request.contexts.get(&name.value) {
                    Some(NamedContext::Image(image)) => find(image),
                    _ => loaded.contexts.get(&name.value).cloned(),
                },
                _ => None,
            };
            let triggers = image.and_then(|image| image.config.config.on_build);
            triggers.unwrap_or_default()
        };
        StageGraph::with_triggers(&self.boxfile, &self.options, &triggers)
    }

    /// As [`Front::graph`]; what is wrong is an error of the build.
    pub(crate) fn built_graph(&self, loaded: &Loaded) -> Result<StageGraph, BuildError> {
        let failed = Cell::new(None);
        let find = |name: &str| match images::find(self.store, self.request, loaded, name) {
            Ok(image) => image,
            // Else its triggers would be left out, if it can be read the next time.
            Err(error @ StoreError::Io { .. }) => {
                failed.set(Some(error));
                None
            }
            // What is no name, or damaged, is told of later.
            Err(_) => None,
        };
        let graph = self.graph_of(loaded, &find);
        match failed.take() {
            Some(error) => Err(error.into()),
            None => graph.map_err(|diagnostics| self.error(diagnostics)),
        }
    }

    /// What the lints say.
    pub(crate) fn lint(
        &self,
        graph: Option<&StageGraph>,
        loaded: &Loaded,
    ) -> Result<Vec<Diagnostic>, FilesError> {
        let check = self.check();
        // The ignore file is read for the sake of one lint, which must be asked for.
        if !check.experimental.is_empty() {
            self.context.load_rules()?;
        }
        let find = |name: &str| self.store.resolve_base(name).ok().flatten();
        let base_env = |name: &str| base_env(loaded.coming.get(name).cloned().or_else(|| find(name))?);
        let options = LintOptions {
            graph,
            ignore: self.context.rules(),
            platform_args: Some(&self.options.platform_args),
            base_env: Some(&base_env),
            check: Some(&check),
        };
        Ok(lint(&self.boxfile, &options))
    }

    /// What the lints are told: by the caller in a build argument, as Docker has it, else by the Boxfile.
    pub(crate) fn check(&self) -> Check {
        let given = self.request.build_args.get(CHECK_ARG);
        let given = given.and_then(|text| parse_check_comment(&format!("check={text}")));
        let own = || self.boxfile.directives.check.as_ref();
        given
            .or_else(|| own().map(|check| check.value.clone()))
            .unwrap_or_default()
    }

    /// The values of ARGs that the caller gave.
    pub(crate) fn build_args(&self) -> &BTreeMap<String, String> {
        &self.request.build_args
    }

    pub(super) fn error(&self, diagnostics: Vec<Diagnostic>) -> BuildError {
        BuildError::Boxfile {
            diagnostics,
            sources: self.boxfile.sources.clone(),
        }
    }
}

/// A file that the Boxfile includes, whatever the ignore file says of it.
fn included(context: &Context<'_>, path: &str) -> Result<Source, String> {
    let said = |error: FilesError| error.to_string();
    let found = resolve(context, Path::new(path)).map_err(said)?;
    let Some((found, meta)) = found else {
        return Err(format!("{path} is not in the build context"));
    };
    match meta.kind {
        EntryKind::File if meta.size <= MAX_SOURCE as u64 => {}
        EntryKind::File => return Err(format!("{path} is larger than {} MiB", MAX_SOURCE >> 20)),
        _ => return Err(format!("{path} is not a regular file")),
    }
    let mut text = Vec::new();
    let file = context.open(&found, &meta).map_err(said)?;
    let read = file.take(MAX_SOURCE as u64).read_to_end(&mut text);
    read.map_err(|error| format!("cannot read {path}: {error}"))?;
    Ok(Source::new(path, text))
}

/// Tells warnings; they are errors where the Boxfile says so (`# check=error=true`).
fn warn(
    warnings: &[Diagnostic],
    check: &Check,
    boxfile: &Boxfile,
    events: &dyn EventSink,
) -> Result<(), BuildError> {
    if check.error == Some(true) && !warnings.is_empty() {
        return Err(BuildError::Boxfile {
            diagnostics: warnings.to_vec(),
            sources: boxfile.sources.clone(),
        });
    }
    warnings
        .iter()
        .for_each(|warning| events.event(Event::Warning(warning, &boxfile.sources)));
    Ok(())
}

/// The environment of an image.
fn base_env(image: Image) -> Option<Vec<(String, String)>> {
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
