//! What FROM names, with the state that it begins with.

use box_store::error::StoreError;
use box_store::image::Image;

use crate::diagnostic::Diagnostic;
use crate::graph::{ArchiveBase, ArchiveLocation, Base, Stage};
use crate::plan::BasePlan;
use crate::request::Platform;
use crate::source::{Span, Spanned};
use crate::suggest::did_you_mean;

use super::Lowering;
use super::contexts::ContextSource;
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
            Base::Image(name) => {
                let image = self.image(name, &platform)?;
                image.map(|image| self.on_image(stage, name.span, image, &platform))
            }
            Base::Archive(archive) => self.archive(archive).map(|base| (base, State::scratch(platform))),
            Base::Context(name) => match self.context(name, &platform)? {
                Some(ContextSource::Image(image)) => Some(self.on_image(stage, name.span, *image, &platform)),
                // Its files are copied by the first step.
                Some(ContextSource::Directory(_)) => Some((BasePlan::Scratch, State::scratch(platform))),
                None => None,
            },
            Base::OciLayout { directory, .. } => {
                let image = self.loaded.stages.get(&stage.id).cloned();
                self.lacks_image |= image.is_none();
                image.map(|image| self.on_image(stage, directory.span, image, &platform))
            }
        };
        Ok(found)
    }

    fn on_image(
        &mut self,
        stage: &Stage,
        span: Span,
        image: Image,
        platform: &Platform,
    ) -> (BasePlan, State) {
        self.check_image(span, &image, stage.platform.as_ref(), platform);
        let state = State::of_image(&image, platform);
        (BasePlan::Image(Box::new(image)), state)
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
                checksum: self.url_of_lock(url, archive.span, checksum).ok()?,
            },
            ArchiveLocation::Path(path) => BasePlan::File {
                path: path.clone(),
                checksum,
            },
        })
    }

    /// The image of that name; none if there is none (which is noted).
    pub(super) fn image(
        &mut self,
        name: &Spanned<String>,
        platform: &Platform,
    ) -> Result<Option<Image>, StoreError> {
        let key = (name.value.clone(), platform.to_string());
        if let Some(image) = self.loaded.resolved.get(&key) {
            return Ok(Some(image.clone()));
        }
        if let Ok(found) = self.image_of_lock(&name.value, name.span, platform)? {
            return Ok(found);
        }
        if let Some(Some(reason)) = self.loaded.pulled.get(&name.value) {
            let problem = Diagnostic::error(name.span, format!("cannot pull {}: {reason}", name.value));
            self.lacks_image = true;
            self.problems
                .push(problem.maybe_suggest(self.near_image(&name.value)?));
            return Ok(None);
        }
        if let Some(image) = self.loaded.coming.get(&name.value) {
            return Ok(Some(image.clone()));
        }
        let problem = match self.store.resolve_base(&name.value) {
            Ok(Some(image)) => return Ok(Some(image)),
            Ok(None) => {
                let offline = match self.request.offline {
                    true => ", and --offline forbids to pull it",
                    false => "",
                };
                let message = format!("image {} is not in the store{offline}", name.value);
                let problem = Diagnostic::error(name.span, message);
                problem.suggest(match self.near_image(&name.value)? {
                    Some(near) => near,
                    None => "bring it in with box pull, box import or box load".to_owned(),
                })
            }
            Err(error @ (StoreError::Reference(_) | StoreError::AmbiguousId { .. })) => {
                Diagnostic::error(name.span, error.to_string())
            }
            Err(error) => return Err(error),
        };
        self.lacks_image = true;
        self.problems.push(problem);
        Ok(None)
    }

    /// A stage or an image that was perhaps meant.
    fn near_image(&self, name: &str) -> Result<Option<String>, StoreError> {
        let images = self.store.names()?;
        let familiar: Vec<String> = images.iter().map(|image| image.reference.familiar()).collect();
        let latest = familiar.iter().filter_map(|name| name.strip_suffix(":latest"));
        let candidates = self
            .graph
            .names()
            .chain(latest)
            .chain(familiar.iter().map(String::as_str));
        Ok(did_you_mean(name, candidates))
    }

    /// An image for another platform than FROM asks for is odd, as with Docker; than the caller asks for, it is wrong.
    fn check_image(
        &mut self,
        span: Span,
        image: &Image,
        asked: Option<&Spanned<String>>,
        platform: &Platform,
    ) {
        let (os, architecture) = (&image.config.os, &image.config.architecture);
        if *os == platform.os && *architecture == platform.architecture {
            return;
        }
        if *platform == self.request.platform && *platform != Platform::native() {
            let message =
                format!("the base image is for {os}/{architecture}, not for {platform} as --platform asks");
            self.problems.push(Diagnostic::error(span, message));
        } else if asked.is_some() {
            let message = format!("the base image is for {os}/{architecture}, not for {platform}");
            self.warnings
                .push(Diagnostic::warning(span, message).code("InvalidBaseImagePlatform"));
        }
    }

    fn platform(&mut self, text: &Spanned<String>) -> Platform {
        text.value.parse().unwrap_or_else(|_| {
            let problem = Diagnostic::error(text.span, format!("unknown platform {}", text.value));
            self.problems
                .push(problem.expected("linux/ARCHITECTURE[/VARIANT]"));
            self.request.platform.clone()
        })
    }

    /// Notes a RUN whose programs can't run here.
    pub(super) fn check_runnable(&mut self, platform: &Platform, span: Span) {
        if platform.is_native() || self.request.emulated.contains(&platform.architecture) {
            return;
        }
        let message = format!(
            "programs for {platform} can't run on this machine ({})",
            Platform::native()
        );
        let hint = "register an emulator (QEMU) with binfmt_misc, its flag F set; or build for this machine's platform";
        self.problems.push(Diagnostic::error(span, message).suggest(hint));
    }
}
