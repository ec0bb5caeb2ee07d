//! The commands, one file each: options in, calls of the libraries, results to standard output.

mod build;
mod build_logs;
mod build_source;
mod bundle;
mod cache;
mod call;
mod context;
mod contexts;
mod cp;
mod cp_container;
mod diff;
mod events;
mod exec;
mod export;
mod fsck;
mod gc;
mod history;
mod images;
mod import;
mod inspect;
mod load;
mod lock;
mod login;
mod logs;
mod metadata;
mod network;
mod plan;
mod port;
mod ps;
mod pull;
mod push;
mod reproducible;
mod rm;
mod rmi;
mod run;
mod save;
mod shell;
mod start;
mod stats;
mod stop;
mod tag;
mod tell;
mod volume;

use crate::app::App;
use crate::cli::{BuildAction, Cli, Command, ContainerAction};
use crate::containers;
use crate::error::Failure;
use crate::monitor::{self, Request};
use crate::ui;

/// Does what the command line asks for; returns the exit code.
pub(crate) fn run(cli: Cli) -> Result<u8, Failure> {
    let app = App::open(&cli.global, |root| match runs_containers(&cli.command) {
        true => monitor::home(root),
        false => None,
    })?;
    containers::reap(&app)?;
    match cli.command {
        Command::Build(args) => match &args.action {
            Some(BuildAction::Logs(logs)) => build_logs::run(&app, logs),
            None => build::run(&app, &args.build),
        },
        Command::Lock(args) => lock::run(&app, &args),
        Command::Plan(args) => plan::run(&app, &args),
        Command::Context(action) => context::run(&app, &action),
        Command::Run(args) => run::run(&app, &args),
        Command::Create(args) => run::create(&app, &args),
        Command::Import(args) => import::run(&app, &args),
        Command::Load(args) => load::run(&app, &args),
        Command::Save(args) => save::run(&app, &args),
        Command::Export(args) => export::run(&app, &args),
        Command::Cp(args) => cp::run(&app, &args),
        Command::Diff(args) => diff::run(&app, &args),
        Command::Pull(args) => pull::run(&app, &args),
        Command::Push(args) => push::run(&app, &args),
        Command::Login(args) => login::login(&args),
        Command::Logout(args) => login::logout(&args),
        Command::Images(args) => images::run(&app, &args),
        Command::Rmi(args) => rmi::run(&app, &args),
        Command::Tag(args) => tag::run(&app, &args),
        Command::Inspect(args) => inspect::run(&app, &args),
        Command::Gc(args) => gc::gc(&app, &args),
        Command::Prune(args) => gc::prune(&app, &args),
        Command::Df(args) => gc::df(&app, &args),
        Command::Fsck(args) => fsck::run(&app, &args),
        Command::Cache(action) => cache::run(&app, &action),
        Command::Volume(action) => volume::run(&app, &action),
        Command::Network(action) => network::run(&app, &action),
        Command::Bundle(args) => bundle::run(&app, &args),
        Command::History(args) => history::run(&app, &args),
        Command::Events(args) => events::run(&app, &args),
        command => of_containers(&app, command),
    }
}

/// Whether it starts containers that may share namespaces with others.
fn runs_containers(command: &Command) -> bool {
    matches!(command, Command::Run(_) | Command::Start(_) | Command::Restart(_))
}

/// The commands for containers that are there.
fn of_containers(app: &App, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Start(args) => start::run(app, &args),
        Command::Attach(args) => start::attach(app, &args),
        Command::Restart(args) => start::restart(app, &args),
        Command::Ps(args) | Command::Container(ContainerAction::Ls(args)) => ps::run(app, &args),
        Command::Logs(args) => logs::run(app, &args),
        Command::Exec(args) => exec::run(app, &args),
        Command::Stop(args) => stop::run(app, &args),
        Command::Kill(args) => stop::kill(app, &args),
        Command::Pause(args) => stop::pause(app, &args, &Request::Pause),
        Command::Unpause(args) => stop::pause(app, &args, &Request::Resume),
        Command::Wait(args) => stop::wait(app, &args),
        Command::Rename(args) => stop::rename(app, &args),
        Command::Update(args) => stop::update(app, &args),
        Command::Rm(args) => rm::run(app, &args),
        Command::Container(ContainerAction::Prune(args)) => rm::prune(app, &args),
        Command::Port(args) => port::run(app, &args),
        Command::Top(args) => stats::top(app, &args),
        Command::Stats(args) => stats::run(app, &args),
        _ => Err(Failure::own("a command without a place")),
    }
}

/// The same for all at once, as far as that is sensible: for what takes as long as a container takes to end.
fn each_at_once(names: &[String], work: impl Fn(&str) -> Result<(), Failure> + Sync) -> Result<u8, Failure> {
    const AT_ONCE: usize = 64;
    let mut code = 0;
    for part in names.chunks(AT_ONCE) {
        let results: Vec<Result<(), Failure>> = std::thread::scope(|scope| {
            let all: Vec<_> = part.iter().map(|name| scope.spawn(|| work(name))).collect();
            let joined = all.into_iter().map(std::thread::ScopedJoinHandle::join);
            joined
                .map(|one| one.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        let mut results = results.into_iter();
        let told = each(part, |_| results.next().unwrap_or(Ok(())))?;
        code = if told == 0 { code } else { told };
    }
    Ok(code)
}

/// Does it for each, also when it fails for one: those failures are told, and the last one's exit code is box's.
fn each(names: &[String], mut work: impl FnMut(&str) -> Result<(), Failure>) -> Result<u8, Failure> {
    let mut code = 0;
    for name in names {
        if let Err(failure) = work(name) {
            if !failure.is_shown {
                ui::error(&failure);
            }
            code = failure.code;
        }
    }
    Ok(code)
}
