//! Options of `box build` that say what is read and asked of the Boxfile.

use std::str::FromStr;

use box_builder::request::Platform;
use clap::Args;

use super::HoldArgs;
use crate::secrets::{SecretArg, SshArg};
use crate::values::{CacheFrom, CacheTo};

// Options of `box build` about caches elsewhere.
#[derive(Debug, Args)]
pub(crate) struct TravelArgs {
    /// Look for steps in a cache elsewhere, too: type=local,src=DIR, type=registry,ref=NAME or type=s3,bucket=NAME (may be repeated); with
    /// key-file=FILE only in what is signed with that key. Layers are fetched when they are needed.
    #[arg(long = "cache-from", value_name = "CACHE")]
    pub(crate) caches_from: Vec<CacheFrom>,
    /// Put the steps of this build into a cache elsewhere when it has succeeded: type=local,dest=DIR, type=registry,ref=NAME or
    /// type=s3,bucket=NAME, with mode=min|max, cache-mounts=true, max-size=BYTES, key-file=FILE, ignore-error=false (may be repeated).
    #[arg(long = "cache-to", value_name = "CACHE")]
    pub(crate) caches_to: Vec<CacheTo>,
}

// Options of `box build` for its front.
#[derive(Debug, Args)]
pub(crate) struct FrontArgs {
    #[command(flatten)]
    pub(crate) travel: TravelArgs,
    /// Check the Boxfile and build nothing: the same as --call=check.
    #[arg(long, conflicts_with = "call")]
    pub(crate) check: bool,
    /// Ask something of the Boxfile instead of building it: check, outline or targets; with ,format=json as JSON, with
    /// ,ignorestatus always successful.
    #[arg(long, value_name = "METHOD[,format=json]")]
    pub(crate) call: Option<Call>,
    /// What the image is for; RUN then needs an emulator if the machine is another.
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<Platform>,
    /// A context by name, for FROM and COPY --from: a directory, an image of the store (docker-image://NAME), an
    /// OCI layout (oci:DIR[:TAG]), the URL of an archive or a git repository.
    #[arg(long = "build-context", value_name = "NAME=PLACE")]
    pub(crate) build_contexts: Vec<BuildContext>,
    /// A secret for RUN --mount=type=secret; without src= and env= the variable, or else the file, of the id's name.
    #[arg(long = "secret", value_name = "id=ID[,src=FILE|,env=VARIABLE]")]
    pub(crate) secrets: Vec<SecretArg>,
    /// How many steps work at once; with 1 they are done one after another [default: the number of processors, at least 4].
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) jobs: Option<u16>,
    #[command(flatten)]
    pub(crate) hold: HoldArgs,
    /// An SSH agent for RUN --mount=type=ssh [default socket: that of SSH_AUTH_SOCK].
    #[arg(long = "ssh", value_name = "default|ID[=SOCKET]")]
    pub(crate) agents: Vec<SshArg>,
}

/// `--build-context`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BuildContext {
    /// As the Boxfile names it.
    pub(crate) name: String,
    /// What it is, as written.
    pub(crate) place: String,
}

impl FromStr for BuildContext {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, place)) if !name.is_empty() && !place.is_empty() => Ok(Self {
                name: box_builder::graph::context_name(name).to_owned(),
                place: place.to_owned(),
            }),
            _ => Err(format!(
                "'{text}' is no context; write NAME=DIRECTORY, for example"
            )),
        }
    }
}

impl FrontArgs {
    /// What is asked instead of a build.
    pub(crate) fn asked(&self) -> Option<Call> {
        let check = Call {
            method: Method::Check,
            is_json: false,
            ignores_status: false,
        };
        let call = if self.check { Some(check) } else { self.call };
        call.filter(|call| call.method != Method::Build)
    }
}

/// `--call`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    /// What is asked.
    pub(crate) method: Method,
    /// Whether the answer is JSON.
    pub(crate) is_json: bool,
    /// Whether findings are no failure.
    pub(crate) ignores_status: bool,
}

/// What `--call` asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// Nothing: a build.
    Build,
    /// The lints.
    Check,
    /// What the target takes.
    Outline,
    /// Which targets there are.
    Targets,
}

impl FromStr for Call {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut fields = text.split(',');
        let method = match fields.next().unwrap_or_default() {
            "build" => Method::Build,
            "check" | "lint" => Method::Check,
            "outline" => Method::Outline,
            "targets" => Method::Targets,
            other => {
                return Err(format!(
                    "'{other}' is unknown; write check, outline, targets or build"
                ));
            }
        };
        let mut call = Call {
            method,
            is_json: false,
            ignores_status: false,
        };
        for field in fields {
            match field {
                "format=json" => call.is_json = true,
                "format=text" => call.is_json = false,
                "ignorestatus" | "ignorestatus=true" => call.ignores_status = true,
                "ignorestatus=false" => call.ignores_status = false,
                other => return Err(format!("'{other}' is unknown; write format=json or ignorestatus")),
            }
        }
        Ok(call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read() {
        let check = |text: &str, want: Option<(Method, bool, bool)>| {
            let got = text.parse::<Call>().ok();
            assert_eq!(
                got.map(|c| (c.method, c.is_json, c.ignores_status)),
                want,
                "{text}"
            );
        };
        check("check", Some((Method::Check, false, false)));
        check("lint,format=json", Some((Method::Check, true, false)));
        check(
            "outline,format=text,ignorestatus",
            Some((Method::Outline, false, true)),
        );
        check("targets,format=json", Some((Method::Targets, true, false)));
        check("build", Some((Method::Build, false, false)));
        check("chekc", None);
        check("check,json", None);
        check("", None);
    }
}
