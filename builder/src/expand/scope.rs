//! What ARG and ENV have set at one point of a stage.

use std::collections::BTreeMap;

use super::types::Variables;

/// ARGs and environment at one point of a stage.
///
/// There is one build environment, and who writes last wins: ENV beats an earlier ARG, an ARG that has
/// a value beats an earlier ENV. The image keeps what ENV said, whatever ARG says. A stage built FROM
/// another starts with a clone of that one's scope: ARGs are inherited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    build: BTreeMap<String, String>,
    args: BTreeMap<String, Option<String>>,
    image: Vec<(String, String)>,
    places: BTreeMap<String, usize>,
}

impl Scope {
    /// The scope right after FROM an image with this environment.
    pub fn from_image(env: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut scope = Scope::default();
        for (name, value) in env {
            scope.set_env(&name, &value);
        }
        scope
    }

    /// `ENV name=value`
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.build.insert(name.to_owned(), value.to_owned());
        match self.places.get(name) {
            Some(place) => value.clone_into(&mut self.image[*place].1),
            None => {
                self.places.insert(name.to_owned(), self.image.len());
                self.image.push((name.to_owned(), value.to_owned()));
            }
        }
    }

    /// `ARG name`, with its value from [`arg_value`]; one without a value changes no variable.
    pub fn declare_arg(&mut self, name: &str, value: Option<String>) {
        if let Some(value) = &value {
            self.build.insert(name.to_owned(), value.clone());
        }
        self.args.insert(name.to_owned(), value);
    }

    /// What RUN sees, and words are expanded with.
    pub fn build_env(&self) -> &BTreeMap<String, String> {
        &self.build
    }

    /// What the image's config holds, in the order of first setting.
    pub fn image_env(&self) -> &[(String, String)] {
        &self.image
    }

    /// The variables of the build environment that are there by ARG alone.
    pub fn arg_names(&self) -> impl Iterator<Item = &str> {
        let names = self.build.keys().filter(|name| !self.places.contains_key(*name));
        names.map(String::as_str)
    }

    /// The declared ARGs with their values.
    pub fn args(&self) -> &BTreeMap<String, Option<String>> {
        &self.args
    }
}

impl Variables for Scope {
    fn get(&self, name: &str) -> Option<&str> {
        self.build.get(name).map(String::as_str)
    }
}

/// The value of an ARG in a stage: what the caller gave, else its own default (expanded already), else,
/// for a bare one, the global value. A default that is not needed (`build_args` has the name) must not be
/// expanded: it may be `${NAME:?message}`.
pub fn arg_value(
    name: &str,
    default: Option<&str>,
    build_args: &BTreeMap<String, String>,
    global_args: &BTreeMap<String, String>,
) -> Option<String> {
    let given = build_args.get(name).map(String::as_str);
    given
        .or(default)
        .or_else(|| global_args.get(name).map(String::as_str))
        .map(str::to_owned)
}
