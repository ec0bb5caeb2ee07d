//! What every talk with a registry shares: who the user is, how the registry is reached, how it is shown.

use box_builder::exec::CancelToken;
use box_builder::progress::Event;
use box_builder::request::{ImagePuller, Platform, Pulling};
use box_store::registry::{RegistryError, RegistryOptions};
use box_store::remote::RegistryAccess;
use box_store::transfer::http::Proxies;
use box_store::{Digest, Image, Reference, Store, StoreError};

use crate::app::{self, App};
use crate::cli::{ProgressMode, PullMode, RegistryArgs};
use crate::credentials::UserCredentials;
use crate::error::{EXIT_BOX, EXIT_INPUT, Failure};
use crate::events::Kind;
use crate::ui;

/// How registries are reached in this run of box.
#[derive(Debug)]
pub(crate) struct Registries {
    credentials: UserCredentials,
    tls_verify: bool,
    ca_bundle: Option<Vec<u8>>,
}

impl Registries {
    /// As the command line and the environment say.
    pub(crate) fn new(args: &RegistryArgs) -> Result<Self, Failure> {
        Ok(Self {
            credentials: UserCredentials::of_environment(),
            tls_verify: args.tls_verify,
            ca_bundle: args.ca_cert.as_deref().map(app::read_file).transpose()?,
        })
    }

    /// The user's logins.
    pub(crate) fn credentials(&self) -> &UserCredentials {
        &self.credentials
    }

    /// Options for one transfer.
    pub(crate) fn options(&self, platform: Option<&Platform>) -> RegistryOptions<'_> {
        let mut options = RegistryOptions::new(&self.credentials);
        options.tls_verify = self.tls_verify;
        options.ca_bundle.clone_from(&self.ca_bundle);
        options.proxies = proxies();
        if let Some(platform) = platform {
            options.platform.os.clone_from(&platform.os);
            options.platform.architecture.clone_from(&platform.architecture);
        }
        options
    }
}

impl RegistryAccess for Registries {
    fn options(&self) -> RegistryOptions<'_> {
        Registries::options(self, None)
    }
}

/// Pulls what a build names.
#[derive(Debug)]
pub(crate) struct BuildPuller {
    registries: Registries,
    mode: PullMode,
    progress: ProgressMode,
}

impl BuildPuller {
    /// None where nothing may be pulled.
    pub(crate) fn new(
        args: &RegistryArgs,
        mode: PullMode,
        progress: ProgressMode,
    ) -> Result<Option<Self>, Failure> {
        if mode == PullMode::Never {
            return Ok(None);
        }
        Ok(Some(Self {
            registries: Registries::new(args)?,
            mode,
            progress,
        }))
    }
}

impl ImagePuller for BuildPuller {
    fn asks_always(&self) -> bool {
        self.mode == PullMode::Always
    }

    fn pull(
        &self,
        store: &Store,
        name: &Reference,
        platform: &Platform,
        pulling: Pulling<'_>,
    ) -> Result<(), String> {
        let Pulling {
            cancel,
            events,
            found,
        } = pulling;
        events.event(Event::Note(&format!("pulling {name}")));
        let progress = ui::Transfers::new(self.progress, false, cancel);
        let options = self.registries.options(Some(platform));
        let pulled = box_store::registry::pull_telling(store, name, &options, &progress, found);
        let pulled = pulled.map_err(|error| failure(&error, Some(cancel)).message().to_owned())?;
        let id = pulled.image.id.to_string();
        crate::events::note(store, Kind::Image, "pull", &id, &[("name", &name.familiar())]);
        events.event(Event::Note(&format!(
            "pulled {name}, {} layer(s) fetched; manifest {}",
            pulled.fetched, pulled.manifest
        )));
        Ok(())
    }

    fn resolve(
        &self,
        name: &Reference,
        platform: &Platform,
        cancel: &CancelToken,
    ) -> Result<(Digest, Image), String> {
        let options = self.registries.options(Some(platform));
        let cancelled = || cancel.is_cancelled();
        let resolved = box_store::registry::resolve(name, &options, &cancelled);
        resolved.map_err(|error| failure(&error, Some(cancel)).message().to_owned())
    }
}

/// The proxies of the environment. `HTTP_PROXY` counts in lower case alone, since others can set the upper one (CGI).
pub(crate) fn proxies() -> Proxies {
    let get = |names: &[&str]| {
        let mut values = names.iter().filter_map(|name| std::env::var(name).ok());
        values.find(|value| !value.is_empty())
    };
    Proxies {
        http: get(&["http_proxy"]),
        https: get(&["https_proxy", "HTTPS_PROXY"]),
        no_proxy: get(&["no_proxy", "NO_PROXY"]),
    }
}

/// The image to run: of the store, or pulled as the mode says.
pub(crate) fn image_to_run(
    app: &App,
    text: &str,
    args: &RegistryArgs,
    mode: PullMode,
) -> Result<Image, Failure> {
    if mode == PullMode::Never {
        return app.image(text, EXIT_BOX);
    }
    let found = match app.store.resolve(text) {
        // It may well be here.
        Err(error @ StoreError::Io { .. }) => return Err(Failure::of(EXIT_BOX, &error)),
        found => found.ok().flatten(),
    };
    let Ok(name) = Reference::parse(text) else {
        return found.map_or_else(|| app.image(text, EXIT_BOX), Ok);
    };
    if let Some(image) = found {
        // An id can only be here.
        let is_name = || -> Result<bool, Failure> {
            let names = app.store.names().map_err(|e| Failure::of(EXIT_BOX, &e))?;
            Ok(names.iter().any(|known| known.reference == name))
        };
        if mode == PullMode::Missing || !is_name()? {
            return Ok(image);
        }
    }
    let registries = Registries::new(args)?;
    let cancel = CancelToken::new();
    let progress = ui::Transfers::new(ProgressMode::Auto, false, &cancel);
    ui::note(&format!("pulling {name}"));
    let pulled = box_store::registry::pull(&app.store, &name, &registries.options(None), &progress);
    match pulled {
        Ok(pulled) => {
            app.note_image("pull", &pulled.image.id, &name.familiar());
            Ok(pulled.image)
        }
        Err(error) => {
            let mut failure = failure(&error, None);
            failure.code = EXIT_BOX;
            Err(failure)
        }
    }
}

/// A registry's failure, with the cure.
pub(crate) fn failure(error: &RegistryError, cancel: Option<&CancelToken>) -> Failure {
    if cancel.is_some_and(CancelToken::is_cancelled) {
        return Failure::new(EXIT_INPUT, "interrupted; what came whole is kept");
    }
    match error {
        RegistryError::Denied { registry, .. } => Failure::of(EXIT_INPUT, error)
            .hint(format!("box login {registry}, if you have an account there; the name may be wrong, too")),
        RegistryError::Connect { .. } => Failure::of(EXIT_INPUT, error).hint(
            "is the host right, and up? For plain HTTP or a certificate that nobody knows: --tls-verify=false, or --ca-cert FILE",
        ),
        RegistryError::Setup(_) | RegistryError::Store(_) | RegistryError::Credentials(_) => {
            Failure::of(EXIT_BOX, error)
        }
        _ => Failure::of(EXIT_INPUT, error),
    }
}
