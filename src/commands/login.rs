//! `box login` and `box logout`.

use std::io::{IsTerminal, Read, Write};

use box_store::registry::Credential;

use crate::cli::{LoginArgs, LogoutArgs, RegistryArgs};
use crate::error::Failure;
use crate::registries::{self, Registries};
use crate::terminal;
use crate::ui;

/// Tries the login, and keeps it if the registry takes it.
pub(super) fn login(args: &LoginArgs) -> Result<u8, Failure> {
    let registries = Registries::new(&args.registry)?;
    let username = match &args.username {
        Some(username) => username.clone(),
        None if args.password_stdin => return Err(Failure::own("--password-stdin needs --username")),
        None => ask("Username: ", false)?,
    };
    let password = match &args.password {
        Some(password) => password.clone(),
        None if args.password_stdin => from_stdin()?,
        None => ask("Password: ", true)?,
    };
    if username.is_empty() || password.is_empty() || username.contains(':') {
        return Err(Failure::own(
            "a login needs a name (without a colon) and a password",
        ));
    }
    let tried = Credential::Basic {
        username: username.clone(),
        password: password.clone(),
    };
    let mut options = registries.options(None);
    options.credentials = &tried;
    let checked = box_store::registry::check_login(&args.host, &options);
    checked.map_err(|error| match registries::failure(&error, None) {
        failure if matches!(error, box_store::registry::RegistryError::Denied { .. }) => {
            failure.hint("the name or the password is wrong")
        }
        failure => failure,
    })?;
    let place = registries.credentials().put(&args.host, &username, &password)?;
    ui::note(&format!("logged in at {}; kept in {place}", args.host));
    Ok(0)
}

/// Forgets a login.
pub(super) fn logout(args: &LogoutArgs) -> Result<u8, Failure> {
    let registries = Registries::new(&RegistryArgs {
        tls_verify: true,
        ca_cert: None,
    })?;
    let was_there = registries.credentials().remove(&args.host)?;
    let news = if was_there {
        "logged out of"
    } else {
        "there was no login at"
    };
    ui::note(&format!("{news} {}", args.host));
    Ok(0)
}

fn from_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().lock().take(1 << 16).read_to_string(&mut text);
    read.map_err(|e| Failure::own(format!("cannot read the password: {e}")))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks on the terminal.
fn ask(question: &str, is_secret: bool) -> Result<String, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::own("there is no terminal to ask for the login")
            .hint("give --username and --password-stdin"));
    }
    let failed = |e: std::io::Error| Failure::own(format!("cannot ask on the terminal: {e}"));
    std::io::stderr().write_all(question.as_bytes()).map_err(failed)?;
    let silent = match is_secret {
        true => Some(terminal::Silent::enter().map_err(|e| failed(e.into()))?),
        false => None,
    };
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line);
    if silent.is_some() {
        drop(silent);
        ui::note("");
    }
    read.map_err(failed)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
