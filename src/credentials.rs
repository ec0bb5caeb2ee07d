//! Who the user is at a registry: the files and helpers of Docker and Podman.
//!
//! Read are `$REGISTRY_AUTH_FILE`, else Podman's `$XDG_RUNTIME_DIR/containers/auth.json` and Docker's `config.json`
//! (`$DOCKER_CONFIG`, `~/.docker`). `box login` writes the first of the files that is named, else Docker's.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use box_store::registry::{Credential, Credentials, CredentialsError};
use serde_json::{Map, Value, json};

use crate::error::Failure;

/// What the default registry is called in names, and in these files.
const DEFAULT: (&str, &str) = ("docker.io", "https://index.docker.io/v1/");
/// A helper's name for a token in a password's place.
const TOKEN: &str = "<token>";

/// The user's credentials.
#[derive(Debug, Default)]
pub(crate) struct UserCredentials {
    /// In the order in which they are asked.
    files: Vec<PathBuf>,
    /// Where a login goes.
    own: Option<PathBuf>,
}

impl UserCredentials {
    /// Those of the environment.
    pub(crate) fn of_environment() -> Self {
        let path = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| !path.as_os_str().is_empty())
        };
        let docker = path("DOCKER_CONFIG")
            .or_else(|| path("HOME").map(|home| home.join(".docker")))
            .map(|directory| directory.join("config.json"));
        if let Some(file) = path("REGISTRY_AUTH_FILE") {
            return Self {
                files: vec![file.clone()],
                own: Some(file),
            };
        }
        let podman = path("XDG_RUNTIME_DIR").map(|directory| directory.join("containers/auth.json"));
        Self {
            files: podman.into_iter().chain(docker.clone()).collect(),
            own: docker,
        }
    }

    /// Keeps a login, in the file or with the helper that the file names. Says where.
    pub(crate) fn put(&self, registry: &str, username: &str, password: &str) -> Result<String, Failure> {
        let file = self.own_file()?;
        let mut config = read(file).map_err(Failure::own)?.unwrap_or_default();
        if let Some(helper) = helper(&config, registry) {
            let entry = json!({"ServerURL": key(registry), "Username": username, "Secret": password});
            ask(&helper, "store", &entry.to_string()).map_err(Failure::own)?;
            return Ok(format!("docker-credential-{helper}"));
        }
        let auth = STANDARD.encode(format!("{username}:{password}"));
        let auths = config.entry("auths").or_insert_with(|| json!({}));
        let auths = auths
            .as_object_mut()
            .ok_or_else(|| Failure::own(format!("{}: \"auths\" is no object", file.display())))?;
        auths.retain(|known, _| !is_same(known, registry));
        auths.insert(key(registry).to_owned(), json!({ "auth": auth }));
        write(file, &config)?;
        Ok(file.display().to_string())
    }

    /// Forgets a login; says whether there was one.
    pub(crate) fn remove(&self, registry: &str) -> Result<bool, Failure> {
        let file = self.own_file()?;
        let Some(mut config) = read(file).map_err(Failure::own)? else {
            return Ok(false);
        };
        let mut was_there = false;
        if let Some(helper) = helper(&config, registry) {
            was_there = ask(&helper, "get", key(registry)).is_ok_and(|found| found.is_some());
            ask(&helper, "erase", key(registry)).map_err(Failure::own)?;
        }
        if let Some(auths) = config.get_mut("auths").and_then(Value::as_object_mut) {
            let before = auths.len();
            auths.retain(|known, _| !is_same(known, registry));
            if auths.len() != before {
                was_there = true;
                write(file, &config)?;
            }
        }
        Ok(was_there)
    }

    fn own_file(&self) -> Result<&Path, Failure> {
        self.own.as_deref().ok_or_else(|| {
            Failure::own("there is no place for a login").hint("set HOME, or REGISTRY_AUTH_FILE to a file")
        })
    }
}

impl Credentials for UserCredentials {
    fn of(&self, registry: &str) -> Result<Option<Credential>, CredentialsError> {
        let failed = |reason: String| CredentialsError {
            registry: registry.to_owned(),
            reason,
        };
        for file in &self.files {
            let Some(config) = read(file).map_err(failed)? else {
                continue;
            };
            let found = match helper(&config, registry) {
                Some(helper) => of_helper(&helper, registry).map_err(failed)?,
                None => None,
            };
            let found = found.or_else(|| of_file(&config, registry));
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

/// How a registry is called in the files.
fn key(registry: &str) -> &str {
    match registry {
        name if name == DEFAULT.0 => DEFAULT.1,
        other => other,
    }
}

/// Whether an entry of a file is for the registry: with or without scheme and path, as old versions wrote them.
fn is_same(entry: &str, registry: &str) -> bool {
    let bare = entry.split_once("://").map_or(entry, |(_, rest)| rest);
    let host = bare.split('/').next().unwrap_or(bare);
    let is_default = |host: &str| matches!(host, "docker.io" | "index.docker.io");
    host == registry || registry == DEFAULT.0 && is_default(host)
}

fn read(file: &Path) -> Result<Option<Map<String, Value>>, String> {
    let bytes = match fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(format!("cannot read {}: {error}", file.display())),
    };
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let config = serde_json::from_slice(&bytes);
    config
        .map(Some)
        .map_err(|error| format!("{} is no JSON object: {error}", file.display()))
}

/// Puts the file in its own place, readable by the user alone, at once.
fn write(file: &Path, config: &Map<String, Value>) -> Result<(), Failure> {
    let failed = |error| Failure::own(format!("cannot write {}: {error}", file.display()));
    // A link is followed: many keep these files elsewhere.
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory).map_err(failed)?;
    }
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(name);
    let mut options = fs::OpenOptions::new();
    let text = serde_json::to_vec_pretty(config).unwrap_or_default();
    let written = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)
        .and_then(|mut new| new.write_all(&text).and_then(|()| new.sync_all()))
        .and_then(|()| fs::rename(&beside, &file));
    written.map_err(|error| {
        let _ = fs::remove_file(&beside);
        failed(error)
    })
}

fn of_file(config: &Map<String, Value>, registry: &str) -> Option<Credential> {
    let auths = config.get("auths")?.as_object()?;
    let exact = auths.get(key(registry));
    let entry = exact.or_else(|| {
        let mut others = auths.iter();
        others
            .find(|(entry, _)| is_same(entry, registry))
            .map(|(_, entry)| entry)
    })?;
    let text = |name: &str| {
        entry
            .get(name)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    if let Some(token) = text("registrytoken") {
        return Some(Credential::RegistryToken(token.to_owned()));
    }
    if let Some(token) = text("identitytoken") {
        return Some(Credential::IdentityToken(token.to_owned()));
    }
    if let (Some(username), Some(password)) = (text("username"), text("password")) {
        return Some(Credential::Basic {
            username: username.to_owned(),
            password: password.to_owned(),
        });
    }
    let decoded = STANDARD.decode(text("auth")?.trim()).ok()?;
    let decoded = String::from_utf8(decoded).ok()?;
    let (username, password) = decoded.split_once(':')?;
    Some(Credential::Basic {
        username: username.to_owned(),
        password: password.trim_end_matches('\0').to_owned(),
    })
}

/// The helper for a registry, if its name is one: it becomes a part of a program's name.
fn helper(config: &Map<String, Value>, registry: &str) -> Option<String> {
    let helpers = config.get("credHelpers").and_then(Value::as_object);
    let own = helpers.and_then(|helpers| {
        let mut entries = helpers.iter();
        entries
            .find(|(entry, _)| is_same(entry, registry))
            .map(|(_, helper)| helper)
    });
    let name = own.or_else(|| config.get("credsStore"))?.as_str()?;
    let is_name = !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    is_name.then(|| name.to_owned())
}

fn of_helper(helper: &str, registry: &str) -> Result<Option<Credential>, String> {
    let Some(answer) = ask(helper, "get", key(registry))? else {
        return Ok(None);
    };
    let answer: Value = serde_json::from_str(&answer)
        .map_err(|_| format!("docker-credential-{helper} answers with no JSON"))?;
    let text = |name: &str| {
        answer
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (username, password) = (text("Username"), text("Secret"));
    Ok(match username.as_str() {
        _ if password.is_empty() => None,
        TOKEN => Some(Credential::IdentityToken(password)),
        _ => Some(Credential::Basic { username, password }),
    })
}

/// Asks a helper (Docker's protocol: a word as argument, the rest by the pipes); none if it knows nothing.
fn ask(helper: &str, what: &str, input: &str) -> Result<Option<String>, String> {
    let program = format!("docker-credential-{helper}");
    let failed = |error: std::io::Error| format!("cannot run {program}: {error}");
    let mut child = Command::new(&program)
        .arg(what)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read what it is asked answers with an error of its own.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match output.status.success() {
        true => Ok(Some(said)),
        false if said.contains("not found") => Ok(None),
        false => {
            let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(format!(
                "{program} failed: {}",
                if said.is_empty() { error } else { said }
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(config: &str, registry: &str) -> Option<Credential> {
        let Ok(config) = serde_json::from_str(config) else {
            panic!("{config}")
        };
        of_file(&config, registry)
    }

    #[test]
    fn entries_of_every_form() {
        let basic = |username: &str, password: &str| {
            Some(Credential::Basic {
                username: username.to_owned(),
                password: password.to_owned(),
            })
        };
        // u:p:q
        let auth = r#"{"auths":{"host:5000":{"auth":"dTpwOnE="},"https://index.docker.io/v1/":{"auth":"ZDpl"},"https://other/v2":{"username":"a","password":"b"},
            "t":{"identitytoken":"x","auth":"dTpw"},"r":{"registrytoken":"y"},"bad":{"auth":"%%"}}}"#;
        assert_eq!(found(auth, "host:5000"), basic("u", "p:q"));
        assert_eq!(found(auth, "docker.io"), basic("d", "e"));
        assert_eq!(found(auth, "other"), basic("a", "b"));
        assert_eq!(found(auth, "t"), Some(Credential::IdentityToken("x".to_owned())));
        assert_eq!(found(auth, "r"), Some(Credential::RegistryToken("y".to_owned())));
        for none in ["host", "host:500", "bad", "evil/host:5000"] {
            assert_eq!(found(auth, none), None, "{none}");
        }
        assert_eq!(found("{}", "host"), None);
    }

    #[test]
    fn helpers_have_names_only() {
        let of = |config: &str, registry: &str| {
            let Ok(config) = serde_json::from_str(config) else {
                panic!("{config}")
            };
            helper(&config, registry)
        };
        let config = r#"{"credsStore":"pass","credHelpers":{"gcr.io":"gcloud","evil":"../x"}}"#;
        assert_eq!(of(config, "gcr.io").as_deref(), Some("gcloud"));
        assert_eq!(of(config, "host").as_deref(), Some("pass"));
        assert_eq!(of(config, "evil"), None);
    }
}
