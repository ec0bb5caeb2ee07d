//! What holds at one point of a stage.

use box_store::image::{Image, ImageConfig};

use crate::exec::Limits;
use crate::expand::Scope;
use crate::request::Platform;

/// Where programs are looked for when an image says nothing; Docker's.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The image so far and what surrounds its making.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// The image's config; its environment is brought up to date with [`State::set_env`].
    pub(super) config: ImageConfig,
    /// ENV and ARG.
    pub(super) scope: Scope,
    /// LIMIT
    pub(super) limits: Limits,
    /// What is built for.
    pub(super) platform: Platform,
    /// Whether CMD was set in this stage: then ENTRYPOINT does not clear it.
    pub(super) has_own_cmd: bool,
}

impl State {
    /// After `FROM scratch` or an archive: nothing but a PATH and a directory to be in, as BuildKit has it.
    pub(super) fn scratch(platform: Platform) -> State {
        let config = ImageConfig {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone(),
            ..ImageConfig::default()
        };
        let mut state = State {
            config,
            scope: Scope::default(),
            limits: Limits::default(),
            platform,
            has_own_cmd: false,
        };
        state.config.config.working_dir = "/".to_owned();
        state.set_env("PATH", DEFAULT_PATH);
        state
    }

    /// After FROM an image.
    pub(super) fn of_image(image: &Image, platform: &Platform) -> State {
        let mut config = image.config.clone();
        // They are done now, and not inherited.
        config.config.on_build = None;
        let pairs = config
            .config
            .env
            .iter()
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let scope = Scope::from_image(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let known = Platform {
            os: config.os.clone(),
            architecture: config.architecture.clone(),
            variant: config.variant.clone(),
        };
        let platform = if known.architecture.is_empty() {
            platform.clone()
        } else {
            known
        };
        let has_path = config.config.env.iter().any(|pair| pair.starts_with("PATH="));
        let mut state = State {
            config,
            scope,
            limits: Limits::default(),
            platform,
            has_own_cmd: false,
        };
        // As BuildKit: an image without a PATH gets one, also in its configuration.
        if !has_path {
            state.set_env("PATH", DEFAULT_PATH);
        }
        state
    }

    /// After FROM a stage that ends in this state: ARGs are inherited, limits are not.
    pub(super) fn inherited(&self) -> State {
        let mut state = State {
            limits: Limits::default(),
            has_own_cmd: false,
            ..self.clone()
        };
        // They are done now, and not inherited.
        state.config.config.on_build = None;
        state
    }

    /// `ENV name=value`
    pub(super) fn set_env(&mut self, name: &str, value: &str) {
        self.scope.set_env(name, value);
        let pairs = self.scope.image_env().iter();
        self.config.config.env = pairs.map(|(name, value)| format!("{name}={value}")).collect();
    }

    /// The shell of the shell forms.
    pub(super) fn shell(&self) -> Vec<String> {
        let default = || ["/bin/sh", "-c"].map(str::to_owned).into();
        self.config
            .config
            .shell
            .clone()
            .filter(|shell| !shell.is_empty())
            .unwrap_or_else(default)
    }

    /// The working directory, absolute.
    pub(super) fn workdir(&self) -> &str {
        match self.config.config.working_dir.as_str() {
            "" => "/",
            path => path,
        }
    }
}

/// A path put on a directory, without `.`, `..` and doubled slashes; absolute.
pub(super) fn join(directory: &str, path: &str) -> String {
    let mut components: Vec<&str> = Vec::new();
    let start = if path.starts_with('/') { "" } else { directory };
    for component in start.split('/').chain(path.split('/')) {
        match component {
            "" | "." => {}
            ".." => drop(components.pop()),
            other => components.push(other),
        }
    }
    format!("/{}", components.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_joined_and_cleaned() {
        let cases = [
            ("/", "a", "/a"),
            ("/a", "b/./c//", "/a/b/c"),
            ("/a", "/b", "/b"),
            ("/a/b", "../..", "/"),
            ("/a", "../../../c", "/c"),
            ("a", "b", "/a/b"),
        ];
        for (directory, path, expected) in cases {
            assert_eq!(join(directory, path), expected, "{directory} {path}");
        }
    }
}
