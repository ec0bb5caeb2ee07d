//! The commands, one file each: options in, calls of the libraries, results to standard output.

mod build;
mod build_source;
mod cache;
mod call;
mod contexts;
mod cp;
mod diff;
mod export;
mod fsck;
mod gc;
mod history;
mod images;
mod import;
mod inspect;
mod load;
mod login;
mod pull;
mod push;
mod rmi;
mod run;
mod run_options;
mod save;
mod tag;
mod volume;

use crate::app::App;
use crate::cli::{Cli, Command};
use crate::error::Failure;

/// Does what the command line asks for; returns the exit code.
pub(crate) fn run(cli: Cli) -> Result<u8, Failure> {
    let app = App::open(&cli.global)?;
    match cli.command {
        Command::Build(args) => build::run(&app, &args),
        Command::Run(args) => run::run(&app, &args),
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
        Command::History(args) => history::run(&app, &args),
    }
}
