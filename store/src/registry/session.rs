//! What is known of one repository of one registry: where it is, and the tokens for it. Shared by all connections.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use reqwest::Url;

use super::challenge::Challenge;
use super::client::Client;
use super::error::RegistryError;
use super::options::{Credential, Credentials, CredentialsError, RegistryOptions};

/// What the default registry is called in names, and where it is.
const DEFAULT: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// What is wanted of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Pull,
    Push,
}

impl Action {
    pub(super) fn name(self) -> &'static str {
        match self {
            Action::Pull => "pull",
            Action::Push => "push to",
        }
    }

    fn scope(self) -> &'static str {
        match self {
            Action::Pull => "pull",
            Action::Push => "pull,push",
        }
    }
}

/// A token, and until when it is good.
#[derive(Clone)]
pub(super) struct Token {
    pub(super) value: String,
    pub(super) until: Instant,
}

/// One repository.
pub(super) struct Session<'a> {
    pub(super) options: &'a RegistryOptions<'a>,
    /// The registry as names have it.
    pub(super) registry: String,
    pub(super) repository: String,
    pub(super) action: Action,
    /// Other repositories of the registry that are read, too.
    pub(super) also: Vec<String>,
    pub(super) base: Url,
    credential: OnceLock<Result<Option<Credential>, CredentialsError>>,
    challenge: Mutex<Option<Challenge>>,
    tokens: Mutex<BTreeMap<String, Token>>,
    /// Held by who gets a token, so that others need not.
    pub(super) getting: tokio::sync::Mutex<()>,
}

impl<'a> Session<'a> {
    /// Finds the registry: by HTTPS, or by HTTP where that may be and nothing else answers.
    pub(super) fn open(
        options: &'a RegistryOptions<'a>,
        (registry, repository): (&str, &str),
        action: Action,
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<Session<'a>, RegistryError> {
        let host = if registry == DEFAULT.0 {
            DEFAULT.1
        } else {
            registry
        };
        let url = |scheme: &str| -> Result<Url, RegistryError> {
            let url = Url::parse(&format!("{scheme}://{host}/v2/")).ok();
            let is_host = |url: &Url| url.has_host() && url.username().is_empty() && url.path() == "/v2/";
            url.filter(is_host).ok_or_else(|| RegistryError::BadHost {
                host: host.to_owned(),
            })
        };
        let mut session = Session {
            options,
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            action,
            also: Vec::new(),
            base: url("https")?,
            credential: OnceLock::new(),
            challenge: Mutex::default(),
            tokens: Mutex::default(),
            getting: tokio::sync::Mutex::default(),
        };
        if is_loopback(&session.base) || !options.tls_verify {
            let answers = Client::new(&session, cancelled)?.answers()?;
            if !answers {
                session.base = url("http")?;
            }
        }
        Ok(session)
    }

    /// A URL below `/v2/`.
    pub(super) fn url(&self, rest: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("/v2/{rest}"));
        url
    }

    /// A URL of the repository.
    pub(super) fn of_repository(&self, rest: &str) -> Url {
        self.url(&format!("{}/{rest}", self.repository))
    }

    /// Whose credentials may be shown to this URL: only the registry's own origin.
    pub(super) fn is_own(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    pub(super) fn credential(&self) -> Result<Option<&Credential>, RegistryError> {
        let found = self
            .credential
            .get_or_init(|| self.options.credentials.of(&self.registry));
        match found {
            Ok(credential) => Ok(credential.as_ref()),
            Err(error) => Err(error.clone().into()),
        }
    }

    pub(super) fn challenge(&self) -> Option<Challenge> {
        lock(&self.challenge).clone()
    }

    pub(super) fn set_challenge(&self, challenge: Challenge) {
        *lock(&self.challenge) = Some(challenge);
    }

    /// What a token must be good for; nothing where only the login is tried.
    pub(super) fn scopes(&self) -> Vec<String> {
        if self.repository.is_empty() {
            return Vec::new();
        }
        let own = format!("repository:{}:{}", self.repository, self.action.scope());
        let also = self.also.iter().map(|name| format!("repository:{name}:pull"));
        std::iter::once(own).chain(also).collect()
    }

    /// The token for the scopes, if it is good for some time yet.
    pub(super) fn token(&self) -> Option<String> {
        let tokens = lock(&self.tokens);
        let token = tokens.get(&self.scopes().join(" "))?;
        (token.until > Instant::now()).then(|| token.value.clone())
    }

    pub(super) fn set_token(&self, token: Token) {
        lock(&self.tokens).insert(self.scopes().join(" "), token);
    }

    /// A token that was refused is of no use.
    pub(super) fn forget_token(&self, refused: &str) {
        lock(&self.tokens).retain(|_, token| token.value != refused);
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the host is this machine, by its name or address alone.
pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether the registry takes these credentials.
///
/// # Errors
/// [`RegistryError::Denied`] if it does not; others if it can't be asked.
pub fn check_login(registry: &str, options: &RegistryOptions<'_>) -> Result<(), RegistryError> {
    let cancelled = || false;
    let session = Session::open(options, (registry, ""), Action::Pull, &cancelled)?;
    Client::new(&session, &cancelled)?.check_login()
}

/// Credentials that are tried.
impl Credentials for Credential {
    fn of(&self, _registry: &str) -> Result<Option<Credential>, CredentialsError> {
        Ok(Some(self.clone()))
    }
}
