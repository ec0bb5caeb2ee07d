//! Names of images, by Docker's grammar (distribution's `reference` package).
//!
//! `busybox` is short for `docker.io/library/busybox:latest`. A first component with a dot, a colon or upper case, or
//! `localhost`, is a registry's host.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;

/// An image's name: `host/path:tag` or `host/path@sha256:…`, always whole (defaults filled in).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not an image's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid image name {text:?}: {reason}")]
pub struct ReferenceError {
    /// The text as given.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

const DEFAULT_DOMAIN: &str = "docker.io";
const DEFAULT_NAMESPACE: &str = "library/";
const DEFAULT_TAG: &str = "latest";

impl Reference {
    /// Parses a name as people write it. Without a tag and a digest the tag is `latest`.
    pub fn parse(text: &str) -> Result<Reference, ReferenceError> {
        let wrong = |reason| ReferenceError {
            text: text.chars().take(300).collect(),
            reason,
        };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (
                rest,
                Some(
                    digest
                        .parse()
                        .map_err(|_| wrong("expected sha256: and 64 hex digits after @"))?,
                ),
            ),
            None => (text, None),
        };
        let (name, tag) = split_tag(rest);
        if is_hex_id(name) {
            return Err(wrong("64 hex digits are an image's id, not its name"));
        }
        let (domain, path) = split_domain(name);
        check_domain(domain).map_err(wrong)?;
        let path = if domain == DEFAULT_DOMAIN && !path.contains('/') {
            format!("{DEFAULT_NAMESPACE}{path}")
        } else {
            path.to_owned()
        };
        check_path(&path).map_err(wrong)?;
        if let Some(tag) = tag {
            check_tag(tag).map_err(wrong)?;
        }
        let tag = tag
            .map(str::to_owned)
            .or_else(|| digest.is_none().then(|| DEFAULT_TAG.to_owned()));
        Ok(Reference {
            domain: domain.to_owned(),
            path,
            tag,
            digest,
        })
    }

    /// The registry's host, `docker.io` by default.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository's path at that host, `library/` filled in.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, if it has one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if it has one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The repository as people write it, without tag and digest.
    pub fn repository(&self) -> String {
        if self.domain == DEFAULT_DOMAIN {
            return self
                .path
                .strip_prefix(DEFAULT_NAMESPACE)
                .unwrap_or(&self.path)
                .to_owned();
        }
        format!("{}/{}", self.domain, self.path)
    }

    /// The whole name, host and all; two names mean the same exactly when these are equal.
    pub fn full(&self) -> String {
        self.with_suffix(format!("{}/{}", self.domain, self.path))
    }

    /// The name as people write it (`busybox:latest`).
    pub fn familiar(&self) -> String {
        self.with_suffix(self.repository())
    }

    fn with_suffix(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        text
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.familiar())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        Reference::parse(text)
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.full())
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Reference, D::Error> {
        Reference::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

fn is_hex_id(name: &str) -> bool {
    Digest::from_hex(name).is_ok()
}

/// A colon after the last slash begins a tag; one before it belongs to the host's port.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rfind(':') {
        Some(colon) if !text[colon..].contains('/') => (&text[..colon], Some(&text[colon + 1..])),
        _ => (text, None),
    }
}

fn split_domain(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':'])
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (
                if first == "index.docker.io" {
                    DEFAULT_DOMAIN
                } else {
                    first
                },
                rest,
            )
        }
        _ => (DEFAULT_DOMAIN, name),
    }
}

fn check_domain(domain: &str) -> Result<(), &'static str> {
    let (host, port) = match domain.rfind(':').filter(|_| !domain.ends_with(']')) {
        Some(colon) => (&domain[..colon], Some(&domain[colon + 1..])),
        None => (domain, None),
    };
    if port.is_some_and(|port| port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err("the registry's port must be a number");
    }
    let ipv6 = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let fine = match ipv6 {
        Some(address) => {
            !address.is_empty()
                && address
                    .bytes()
                    .all(|byte| byte.is_ascii_hexdigit() || byte == b':')
        }
        None => host.split('.').all(is_host_label),
    };
    if fine {
        Ok(())
    } else {
        Err("the registry's host must be letters, digits, dashes and dots")
    }
}

fn is_host_label(label: &str) -> bool {
    !label.is_empty()
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn check_path(path: &str) -> Result<(), &'static str> {
    if path.len() > 255 {
        return Err("the name is longer than 255 characters");
    }
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("repository names must be lower case");
    }
    if path.split('/').all(is_path_component) {
        return Ok(());
    }
    Err("a repository's name is made of a-z and 0-9, with single . or _, __ or dashes between them")
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends_well = bytes.first().is_some_and(alphanumeric) && bytes.last().is_some_and(alphanumeric);
    let separators = bytes
        .split(alphanumeric)
        .filter(|separator| !separator.is_empty());
    let separators_fine = |separator: &[u8]| {
        matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|&byte| byte == b'-')
    };
    ends_well && separators.into_iter().all(separators_fine)
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let fine = (1..=128).contains(&tag.len())
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-');
    if fine {
        Ok(())
    } else {
        Err("a tag is 1 to 128 letters, digits, _, . and -, and begins with none of . and -")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_docker_reads_them() {
        let digest = Digest::of(b"").to_string();
        let with_digest = format!("busybox@{digest}");
        for (text, full, familiar) in [
            ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
            ("user/app", "docker.io/user/app:latest", "user/app:latest"),
            (
                "docker.io/busybox",
                "docker.io/library/busybox:latest",
                "busybox:latest",
            ),
            (
                "index.docker.io/library/busybox",
                "docker.io/library/busybox:latest",
                "busybox:latest",
            ),
            ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
            (
                "localhost:5000/app",
                "localhost:5000/app:latest",
                "localhost:5000/app:latest",
            ),
            ("ghcr.io/a/b/c:v1", "ghcr.io/a/b/c:v1", "ghcr.io/a/b/c:v1"),
            ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
            (
                "a__b/c-d.e_f---g",
                "docker.io/a__b/c-d.e_f---g:latest",
                "a__b/c-d.e_f---g:latest",
            ),
            ("Host/app", "Host/app:latest", "Host/app:latest"),
            (
                &with_digest,
                &format!("docker.io/library/busybox@{digest}"),
                &with_digest,
            ),
        ] {
            let reference = Reference::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(
                (reference.full().as_str(), reference.to_string().as_str()),
                (full, familiar),
                "{text}"
            );
            assert_eq!(Reference::parse(&reference.full()).unwrap(), reference, "{text}");
        }
    }

    #[test]
    fn what_is_no_name() {
        let id = Digest::of(b"").hex();
        let long = "a".repeat(256);
        let tag = format!("a:{}", "t".repeat(129));
        for text in [
            "",
            ":tag",
            "a:",
            "Busybox",
            "a//b",
            "/a",
            "a/",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a:-t",
            "a:.t",
            "a b",
            "a@sha256:00",
            "a@",
            "ex ample.com/a",
            "host:port/a",
            "../a",
            "a/../b",
            "é",
            &id,
            &long,
            &tag,
        ] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
    }
}
