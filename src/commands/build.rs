//! `box build`: an image from a Boxfile.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use box_builder::error::{BuildError, StepError};
use box_builder::exec::{CancelToken, ExecError, Limits, LimitsPolicy, NetworkMode};
use box_builder::git::GitError;
use box_builder::progress::EventSink;
use box_builder::request::{BuildRequest, ImagePuller, TimesMode};
use box_builder::url::without_credentials;
use box_runner::{Rootless, SINGLE_ID};
use box_store::transfer::http::FetchError;
use nix::sys::signal::Signal;

use crate::app::{self, App};
use crate::cli::{BuildArgs, ExplainMode, LimitArgs, LimitsMode, MtimesMode, Network, PullMode};
use crate::error::{EXIT_BOX, EXIT_INPUT, Failure};
use crate::executor::ContainerExecutor;
use crate::registries::BuildPuller;
use crate::report::Recorder;

use super::build_source::{self, BuildSource, Fetching};
use super::metadata::StepFigures;
use super::{call, contexts, export, lock, reproducible, shell, tell};
use crate::build_log::{How, Keeper, LastWords, Subject};
use crate::terminal::Window;
use crate::travel::Travel;
use crate::{binfmt, signals, ui};

const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// The request to end that ends box at once.
const PATIENCE: u32 = 3;

/// Builds, names, and prints the image's id.
pub(super) fn run(app: &App, args: &BuildArgs) -> Result<u8, Failure> {
    let tags: Result<Vec<_>, _> = args.tags.iter().map(|tag| app::reference(tag)).collect();
    let tags = tags?;
    let cancel = CancelToken::new();
    let (screen, window) = (shell::seat(&args.shell)?, Window::default());
    let early = (!waits(args)?).then(|| listen(&cancel, &window)).transpose()?;
    let fetching = Fetching {
        app,
        mode: args.progress,
        cancel: &cancel,
        is_offline: args.front.hold.offline,
    };
    let mut source = build_source::gather(&fetching, &args.source)
        .map_err(|failure| interrupted(failure, early.as_ref()))?;
    let mut request =
        request(app, args, &mut source, &cancel).map_err(|failure| interrupted(failure, early.as_ref()))?;
    if let Some(call) = args.front.asked() {
        return call::run(app, &request, call);
    }
    let ended_by = match early {
        Some(ended_by) => ended_by,
        None => listen(&cancel, &window)?,
    };
    let mode = args.shown();
    let sink = ui::build_sink(mode, args.cache.explain == Some(ExplainMode::Json));
    let executor = ContainerExecutor::new(app).at_terminal(screen, &window);
    let figures = StepFigures::new(sink.as_ref());
    let recorder = Recorder::new(&figures, args.cache.explain.is_some());
    let shown: &dyn EventSink = if args.tell.report.is_some() {
        &recorder
    } else {
        &figures
    };
    let log = Keeper::new(&app.store, shown, subject(args, &request)?);
    if request.shell_at.is_some() {
        let visited = box_builder::build::visit(&app.store, &executor, &request, &log);
        let visited = visited.map_err(|error| ended(app, &error, &ended_by, &log));
        return shell::over(visited, log, mode);
    }
    let is_checked = args.front.hold.check_reproducible;
    let caches = is_checked.then(|| reproducible::Caches::new(app, &mut request));
    let outcome = box_builder::build::build(&app.store, &executor, &request, &log);
    let outcome = outcome.map_err(|error| ended(app, &error, &ended_by, &log));
    if let Ok(outcome) = &outcome {
        log.over(How::Done, Some(outcome.image.id.to_string()), None);
    }
    drop(log);
    let built = outcome.as_ref().map(|outcome| &outcome.image);
    let told = tell::report(app, args.tell.report.as_deref(), recorder, built, &tags);
    let outcome = outcome.map_err(|failure| ui::build_failed(mode, failure))?;
    told?;
    let id = outcome.image.id;
    let steps = figures.finish();
    for tag in &tags {
        app.name(tag, &id)?;
    }
    app.store.sync().map_err(|e| Failure::of(EXIT_BOX, &e))?;
    let travel = Travel {
        store: &app.store,
        registry: &args.registry,
        cancel: &cancel,
    };
    let exported = travel.export(&outcome.uses, &args.front.travel.caches_to, sink.as_ref());
    drop(sink);
    exported.map_err(|failure| interrupted(failure, Some(&ended_by)))?;
    for output in &args.outputs {
        export::write(app, &outcome.image, &tags, output)?;
    }
    tell::files(&args.tell, &id, &tags, steps)?;
    ui::build_finished(mode, &id.to_string());
    // An output that goes to standard output is alone there.
    if args.outputs.iter().all(|output| output.place.is_some()) {
        ui::result(&format!("{id}\n"))?;
    }
    if let Some(caches) = &caches {
        let checked = reproducible::check(caches, &executor, &request, &outcome, mode);
        checked.map_err(|failure| interrupted(failure, Some(&ended_by)))?;
    }
    Ok(0)
}

/// Whether it waits for standard input, or for a pipe: then it can only be killed.
fn waits(args: &BuildArgs) -> Result<bool, Failure> {
    let is_pipe = |file: &PathBuf| file.as_os_str() == "-" || !file.is_file();
    Ok(args.source.context()?.as_os_str() == "-" || args.source.file.as_ref().is_some_and(is_pipe))
}

/// What RUN finds in /etc/hosts. The host's own address is not the same everywhere, and would be in the cache's keys.
fn hosts(given: &[crate::values::HostArg]) -> Result<Vec<(String, std::net::IpAddr)>, Failure> {
    if let Some(name) = given.iter().find_map(crate::values::HostArg::gateway) {
        return Err(Failure::own(format!(
            "--add-host {name}:host-gateway is for box run; a build is told an address"
        ))
        .hint("for root's private network that is 10.200.0.1 as a rule"));
    }
    Ok(given.iter().filter_map(crate::values::HostArg::pair).collect())
}

/// What the log says was built.
fn subject(args: &BuildArgs, request: &BuildRequest) -> Result<Subject, Failure> {
    Ok(Subject {
        boxfile: request.boxfile.name().to_owned(),
        context: without_credentials(&args.source.context()?.to_string_lossy()),
        target: request.target.clone(),
        tags: args.tags.clone(),
    })
}

/// How a build failed, with what is known of it.
fn ended(app: &App, error: &BuildError, ended_by: &AtomicI32, log: &Keeper<'_>) -> Failure {
    let failure = failure(error, ended_by.load(Ordering::SeqCst));
    logged(with_single_id(app, error, failure), error, log)
}

/// The failure with what the step that failed printed last.
fn logged(mut failure: Failure, error: &BuildError, log: &Keeper<'_>) -> Failure {
    let how = match error {
        BuildError::Cancelled => How::Cancelled,
        _ => How::Failed,
    };
    log.over(how, None, Some(failure.message().to_owned()));
    if let (How::Failed, Some(LastWords { output, build })) = (how, log.last_words()) {
        failure.log = ui::last_lines(&output);
        // Of what printed nothing there is nothing more to see.
        failure.build = build.filter(|_| !output.is_empty());
    }
    failure
}

pub(super) fn request(
    app: &App,
    args: &BuildArgs,
    source: &mut BuildSource,
    cancel: &CancelToken,
) -> Result<BuildRequest, Failure> {
    let mut request = BuildRequest::new(source.boxfile.clone(), &source.directory);
    request.ignore.clone_from(&source.ignore);
    request.cancel = cancel.clone();
    request.target = args.target.clone();
    shell::ask(args, &mut request)?;
    request.build_args = args
        .build_args
        .iter()
        .filter_map(crate::values::BuildArg::resolved)
        .collect();
    request.labels = args.labels.iter().map(crate::values::BuildArg::pair).collect();
    request.no_cache = args.cache.no_cache;
    request.no_cache_stages = args.cache.no_cache_filter.iter().cloned().collect();
    request.explain = args.cache.explain.is_some() || args.tell.report.is_some();
    request.network = match &args.network {
        Some(Network::Private) | None => NetworkMode::Private,
        Some(Network::Named(name)) => {
            return Err(
                Failure::own(format!("--network {name}: a build is in no named network"))
                    .hint("private, none and host are there"),
            );
        }
        Some(Network::Container(name)) => {
            return Err(Failure::own(format!(
                "--network container:{name}: a build shares no container's network"
            ))
            .hint("private, none and host are there"));
        }
        Some(Network::None) => NetworkMode::None,
        Some(Network::Host) => NetworkMode::Host,
    };
    request.hosts = hosts(&args.hosts)?;
    request.limits = limits(&args.limit);
    request.limits_policy = policy(args.limit.limits);
    request.mtimes = match args.mtimes {
        MtimesMode::Logical => TimesMode::Logical,
        MtimesMode::Real => TimesMode::Real,
    };
    request.source_date_epoch = source_date_epoch(&request.build_args)?;
    request.proxies = proxies();
    request.lock = lock::of_build(source, &args.front.hold)?;
    request.offline = args.front.hold.offline;
    request.puller = puller(args)?;
    request.imports = Travel {
        store: &app.store,
        registry: &args.registry,
        cancel,
    }
    .imports(&args.front.travel.caches_from)?;
    request.notes_uses = !args.front.travel.caches_to.is_empty();
    request.platform = args.front.platform.clone().unwrap_or(request.platform);
    request.emulated = binfmt::emulated();
    if let Some(jobs) = args.front.jobs {
        request.jobs = usize::from(jobs);
    }
    for secret in &args.front.secrets {
        request.secrets.insert(secret.id.clone(), secret.read()?);
    }
    for agent in &args.front.agents {
        request.ssh.insert(agent.id.clone(), agent.agent()?);
    }
    let fetching = Fetching {
        app,
        mode: args.progress,
        cancel,
        is_offline: request.offline,
    };
    for named in &args.front.build_contexts {
        request.contexts.insert(
            named.name.clone(),
            contexts::named(&fetching, named, &mut source.layers)?,
        );
    }
    Ok(request)
}

/// Who brings images in; nobody where nothing may be asked for.
fn puller(args: &BuildArgs) -> Result<Option<Arc<dyn ImagePuller>>, Failure> {
    if args.front.hold.offline {
        return match args.pull {
            PullMode::Always => Err(Failure::own("--pull asks a registry, and --offline forbids it")),
            PullMode::Missing | PullMode::Never => Ok(None),
        };
    }
    let puller = BuildPuller::new(&args.registry, args.pull, args.progress)?;
    Ok(puller.map(|puller| Arc::new(puller) as _))
}

/// Limits of the command line.
pub(super) fn limits(args: &LimitArgs) -> Limits {
    Limits {
        memory: args.memory.map(|memory| memory.0),
        millicpus: args.cpus.map(|cpus| cpus.0),
        pids: args.pids_limit,
        time: None,
    }
}

fn policy(mode: LimitsMode) -> LimitsPolicy {
    match mode {
        LimitsMode::Enforce => LimitsPolicy::Enforce,
        LimitsMode::BestEffort => LimitsPolicy::BestEffort,
    }
}

/// From `--build-arg SOURCE_DATE_EPOCH=`, else from the environment, as other builders take it. Empty it is unset, and
/// `context` is the builder's to understand.
fn source_date_epoch(build_args: &BTreeMap<String, String>) -> Result<Option<i64>, Failure> {
    const NAME: &str = "SOURCE_DATE_EPOCH";
    let given = build_args.get(NAME).cloned().or_else(|| std::env::var(NAME).ok());
    let Some(text) = given.filter(|text| !text.is_empty() && text != "context") else {
        return Ok(None);
    };
    let time = text.trim().parse::<i64>().ok().filter(|time| *time >= 0);
    time.map(Some)
        .ok_or_else(|| Failure::own(format!("{NAME}={text:?} is no number of seconds since 1970")))
}

/// The proxy variables of the environment, in both spellings.
pub(super) fn proxies() -> BTreeMap<String, String> {
    let names = PROXIES
        .iter()
        .flat_map(|name| [(*name).to_owned(), name.to_ascii_lowercase()]);
    names
        .filter_map(|name| std::env::var(&name).ok().map(|value| (name, value)))
        .collect()
}

/// Ctrl-C and its like end the build in order: the step is killed, and nothing is left. Returns where the signal's number is
/// kept.
pub(super) fn cancel_on_signals(cancel: &CancelToken) -> Result<Arc<AtomicI32>, Failure> {
    listen(cancel, &Window::default())
}

/// The same with a shell that may have the terminal.
fn listen(cancel: &CancelToken, window: &Window) -> Result<Arc<AtomicI32>, Failure> {
    let (cancel, window) = (cancel.clone(), window.clone());
    let ended_by = Arc::new(AtomicI32::new(0));
    let kept = ended_by.clone();
    let mut asked = 0;
    let handler = move |signal| {
        if signal == Signal::SIGWINCH {
            window.resized();
        }
        if matches!(
            signal,
            Signal::SIGINT | Signal::SIGTERM | Signal::SIGHUP | Signal::SIGQUIT
        ) {
            kept.store(signal as i32, Ordering::SeqCst);
            cancel.cancel();
            asked += 1;
            if asked == PATIENCE {
                // Something holds the end up; what is left is removed by a later command.
                window.restore();
                std::process::exit(128 + signal as i32);
            }
        }
    };
    signals::take(handler).map_err(|e| Failure::of(EXIT_BOX, &e))?;
    Ok(ended_by)
}

fn interruption(signal: i32) -> Failure {
    Failure::new(
        128 + signal as u8,
        "the build was interrupted; nothing of the unfinished step is left",
    )
}

/// What failed because of a signal is told as that.
pub(super) fn interrupted(failure: Failure, ended_by: Option<&Arc<AtomicI32>>) -> Failure {
    match ended_by.map_or(0, |signal| signal.load(Ordering::SeqCst)) {
        0 => failure,
        signal => interruption(signal),
    }
}

/// A step of a user with a single id may have failed for want of another.
fn with_single_id(app: &App, error: &BuildError, failure: Failure) -> Failure {
    let has_single_id = app.rootless.as_ref().is_some_and(Rootless::has_single_id);
    match has_single_id && failure.cure().is_none() && matches!(error, BuildError::Step { .. }) {
        true => failure.hint(format!("if it changes owners or its user: {SINGLE_ID}")),
        false => failure,
    }
}

pub(super) fn failure(error: &BuildError, signal: i32) -> Failure {
    if signal != 0 {
        return interruption(signal);
    }
    let mut failure = Failure::of(EXIT_INPUT, error);
    // Whatever it failed for, a full disk included.
    failure.code = EXIT_INPUT;
    match error {
        BuildError::Boxfile { .. } => failure.rendered(),
        BuildError::Step { source, .. } if is_other_content(source) => failure
            .hint("if what it is now is meant: correct --checksum, or, where a lock says what it must be, run `box lock --update`"),
        BuildError::Step { source, .. } if is_unenforceable(source) => failure
            .hint("give box a cgroup of its own with --cgroup-parent, or leave the limit out with --limits=best-effort"),
        _ => failure,
    }
}

fn is_other_content(error: &StepError) -> bool {
    matches!(
        error,
        StepError::Fetch(FetchError::Checksum { .. }) | StepError::Git(GitError::Checksum { .. })
    )
}

fn is_unenforceable(error: &StepError) -> bool {
    matches!(error, StepError::Exec(ExecError::LimitUnenforceable { .. }))
}
