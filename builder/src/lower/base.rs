//! What FROM names, with the state that it begins with.

use box_store::error::StoreError;
use box_store::image::Image;

use crate::diagnostic::Diagnostic;
use crate::graph::{ArchiveBase, ArchiveLocation, Base, Stage};
use crate::plan::BasePlan;
use crate::request::Platform;
use crate::source::{Span, Spanned};

use super::Lowering;
use super::state::State;

impl Lowering<'_> {
    pub(super) fn base(&mut self, stage: &Stage) -> Result<Option<(BasePlan, State)>, StoreError> {
        let asked = stage.platform.as_ref().map(|platform| self.platform(platform));
        let platform = asked.unwrap_or_else(|| self.request.platform.clone());
        let found = match &stage.base {
            Base::Scratch => Some((BasePlan::Scratch, State::scratch(platform))),
            Base::Stage(id) => {
                let state = self.states.get(id).map(State::inherited);
                state.map(|state| (BasePlan::Stage(*id), state))
            }
            Base::Image(name) => self.image(name)?.map(|image| {
                self.check_image(name.span, &image, stage.platform.as_ref(), &platform);
                let state = State::of_image(&image, &platform);
                (BasePlan::Image(Box::new(image)), state)
            }),
            Base::Archive(archive) => self.archive(archive).map(|base| (base, State::scratch(platform))),
            Base::Context(name) => self.refuse(name.span, "FROM a named build context"),
            Base::OciLayout { directory, .. } => self.refuse(directory.span, "FROM oci:"),
        };
        Ok(found)
    }

    fn archive(&mut self, archive: &ArchiveBase) -> Option<BasePlan> {
        let checksum = match &archive.checksum {
            None => None,
            Some(text) => match text.value.parse() {
                Ok(digest) => Some(digest),
                Err(_) => {
                    let problem = Diagnostic::error(text.span, "invalid checksum");
                    self.problems
                        .push(problem.expected("sha256: and 64 lower-case hex digits"));
                    return None;
                }
            },
        };
        Some(match &archive.location {
            ArchiveLocation::Url(url) => BasePlan::Url {
                url: url.clone(),
                checksum,
            },
            ArchiveLocation::Path(path) => BasePlan::File {
                path: path.clone(),
                checksum,
            },
        })
    }

    /// The image of that name; none if there is none (which is noted).
    pub(super) fn image(&mut self, name: &Spanned<String>) -> Result<Option<Image>, StoreError> {
        let problem = match self.store.resolve_base(&name.value) {
            Ok(Some(image)) => return Ok(Some(image)),
            Ok(None) => Diagnostic::error(name.span, format!("image {} is not in the store", name.value))
                .suggest("bring it in with box import or box load; pulling is not supported yet"),
            Err(error @ (StoreError::Reference(_) | StoreError::AmbiguousId { .. })) => {
                Diagnostic::error(name.span, error.to_string())
            }
            Err(error) => return Err(error),
        };
        self.lacks_image = true;
        self.problems.push(problem);
        Ok(None)
    }

    fn check_image(
        &mut self,
        span: Span,
        image: &Image,
        asked: Option<&Spanned<String>>,
        platform: &Platform,
    ) {
        let (os, architecture) = (&image.config.os, &image.config.architecture);
        if asked.is_some() && (*os != platform.os || *architecture != platform.architecture) {
            let message = format!("the base image is for {os}/{architecture}, not for {platform}");
            self.warnings
                .push(Diagnostic::warning(span, message).code("InvalidBaseImagePlatform"));
        }
    }

    fn platform(&mut self, text: &Spanned<String>) -> Platform {
        let mut parts = text.value.split('/');
        let first = parts.next().unwrap_or_default();
        let (os, architecture) = match parts.next() {
            Some(architecture) => (first, architecture),
            None => ("linux", first),
        };
        let (architecture, implied) = match architecture {
            "x86_64" | "x86-64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "armhf" => ("arm", Some("v7")),
            "armel" => ("arm", Some("v6")),
            "i386" => ("386", None),
            other => (other, None),
        };
        let variant = parts
            .next()
            .or(implied)
            .filter(|variant| !(architecture == "arm64" && *variant == "v8"));
        if os != "linux" || architecture.is_empty() || parts.next().is_some() {
            let problem = Diagnostic::error(text.span, format!("unknown platform {}", text.value));
            self.problems
                .push(problem.expected("linux/ARCHITECTURE[/VARIANT]"));
        }
        Platform {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }
}
