//! box: builds layered images from a Boxfile, keeps them in a content-addressed store, and runs them, with no daemon.

mod agent;
mod app;
mod attached;
mod binfmt;
mod build_log;
mod cli;
mod clock;
mod commands;
mod containers;
mod credentials;
mod error;
mod etc;
mod events;
mod executor;
mod logs;
mod monitor;
mod mounts;
mod named;
mod networks;
mod not_yet;
mod oci;
mod pump;
mod ranges;
mod registries;
mod report;
mod resolv;
mod secrets;
mod signals;
mod step_mounts;
mod streams;
mod terminal;
mod travel;
mod ui;
mod user_files;
mod values;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // A container's init is this program started again; it never returns from here.
    box_runner::init_main_if_requested();
    user_files::set_umask(box_runner::clean_start());
    if std::env::args_os()
        .nth(1)
        .is_some_and(|first| first == monitor::HIDDEN_ARGUMENT)
    {
        return ExitCode::from(monitor::main());
    }
    if let Some(words) = oci::words() {
        return ExitCode::from(oci::main(words));
    }
    match start() {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            if !failure.is_shown {
                ui::error(&failure);
            }
            ExitCode::from(failure.code)
        }
    }
}

fn start() -> Result<u8, error::Failure> {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    commands::run(cli)
}

/// `--help` and `--version` go to standard output and succeed; a wrong option is box's own error (125), as Docker has it.
fn usage(error: &clap::Error) -> Result<u8, error::Failure> {
    if let Some(failure) = not_yet::failure(error) {
        return Err(failure);
    }
    let code = if error.use_stderr() { error::EXIT_BOX } else { 0 };
    error
        .print()
        .map_err(|e| error::Failure::of(error::EXIT_BOX, &e))?;
    Ok(code)
}
