//! `RUN --mount=`

use super::csv::csv_fields;
use super::units::parse_size;
use crate::ast::{Mount, MountError, MountField, MountKind, RunMount, Sharing, Word};
use crate::diagnostic::Diagnostic;
use crate::expand::ExpandError;
use crate::source::{Span, Spanned};
use crate::suggest::did_you_mean;

const KINDS: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "id",
    "sharing",
    "required",
    "mode",
    "uid",
    "gid",
    "size",
    "env",
];

/// A mount has no more fields than this.
const MAX_FIELDS: usize = 100;

/// Splits a mount into fields, and checks it as far as it holds no variables.
pub(super) fn parse_mount(word: Word) -> Result<RunMount, Diagnostic> {
    let span = word.span;
    let mut fields = Vec::new();
    if word.text.bytes().filter(|b| *b == b',').count() >= MAX_FIELDS {
        return Err(Diagnostic::error(
            span,
            format!("a mount has at most {MAX_FIELDS} fields"),
        ));
    }
    let mut at = 0;
    for (text, len) in csv_fields(&word.text) {
        let start = u32::try_from(at).unwrap_or(u32::MAX);
        let mut place = span;
        if span.len as usize == word.text.len() {
            place.offset += start;
            place.column += start;
            place.len = u32::try_from(len).unwrap_or(u32::MAX);
        }
        fields.push(field(&text, place));
        at += len + 1;
    }
    let from = fields
        .iter()
        .rfind(|f| f.key.value == "from")
        .and_then(|f| f.value.clone());
    let from = from.map(|w| Spanned::new(w.text, w.span));
    refuse_variable(from.as_ref())?;
    let mount = RunMount { span, fields, from };
    let constant = |f: &MountField| f.value.as_ref().is_none_or(|v| !v.text.contains('$'));
    if mount.fields.iter().all(constant) {
        resolve_mount(&mount, |w| Ok(w.text.clone())).map_err(Diagnostic::from)?;
    }
    Ok(mount)
}

impl From<MountError> for Diagnostic {
    fn from(error: MountError) -> Diagnostic {
        let mut diagnostic = Diagnostic::error(error.span, error.message);
        diagnostic.expected = error.expected;
        diagnostic.suggestion = error.suggestion;
        diagnostic
    }
}

fn refuse_variable(from: Option<&Spanned<String>>) -> Result<(), Diagnostic> {
    let Some(from) = from.filter(|f| f.contains('$')) else {
        return Ok(());
    };
    Err(
        Diagnostic::error(from.span, "'from' doesn't support variable expansion")
            .expected("a stage, an image or a named context")
            .suggest("define an alias stage instead: FROM with a global ARG, AS a name"),
    )
}

fn field(text: &str, span: Span) -> MountField {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(Word::new(value, span))),
        None => (text, None),
    };
    MountField {
        key: Spanned::new(key.to_lowercase(), span),
        value,
    }
}

/// The values of a mount's fields, while they are collected.
#[derive(Default)]
struct Draft {
    kind: Option<String>,
    from: Option<String>,
    source: Option<String>,
    target: Option<String>,
    id: Option<String>,
    env: Option<String>,
    sharing: Option<Sharing>,
    read_only: Option<bool>,
    required: Option<bool>,
    size: Option<u64>,
    copy_up: bool,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
}

/// The mount that is meant, when `expand` knows its variables. `from` is never expanded.
///
/// # Errors
/// An unknown type, key or value, or a key that the type does not have.
pub fn resolve_mount(
    mount: &RunMount,
    mut expand: impl FnMut(&Word) -> Result<String, ExpandError>,
) -> Result<Mount, MountError> {
    let mut draft = Draft::default();
    for field in &mount.fields {
        let value = match &field.value {
            Some(word) if field.key.value != "from" => {
                Some(expand(word).map_err(|e| wrong(word.span, e.to_string()))?)
            }
            value => value.as_ref().map(|w| w.text.clone()),
        };
        draft.take(field, value)?;
    }
    draft.finish(mount)
}

impl Draft {
    fn take(&mut self, field: &MountField, value: Option<String>) -> Result<(), MountError> {
        let key = field.key.value.as_str();
        let span = field.key.span;
        match (key, value) {
            ("readonly" | "ro", v) => self.read_only = Some(switch(key, v, span)?),
            ("readwrite" | "rw", v) => self.read_only = Some(!switch(key, v, span)?),
            ("required", v) => self.required = Some(switch(key, v, span)?),
            // Podman's: labels for SELinux, and what a tmpfs starts with.
            ("z", None) => {}
            ("tmpcopyup", None) => self.copy_up = true,
            (_, None) if KEYS.contains(&key) => {
                return Err(wrong(
                    span,
                    format!("invalid field '{key}' must be a key=value pair"),
                ));
            }
            (_, Some(v)) if KEYS.contains(&key) => self.set(key, v, span)?,
            _ => return Err(unknown_key(key, span)),
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: String, span: Span) -> Result<(), MountError> {
        match key {
            "type" => self.kind = Some(kind(&value, span)?),
            "from" if value.is_empty() => return Err(wrong(span, "'from' points to an empty value".into())),
            "from" => self.from = Some(value),
            "source" | "src" => self.source = Some(value),
            "target" | "dst" | "destination" => self.target = Some(value),
            "id" => self.id = Some(value),
            "env" => self.env = Some(value),
            "sharing" => self.sharing = Some(sharing(&value, span)?),
            "size" => self.size = Some(number(key, parse_size(&value), &value, span)?),
            "mode" => self.mode = Some(number(key, u32::from_str_radix(&value, 8).ok(), &value, span)?),
            "uid" => self.uid = Some(number(key, id(&value), &value, span)?),
            _ => self.gid = Some(number(key, id(&value), &value, span)?),
        }
        Ok(())
    }

    fn finish(self, mount: &RunMount) -> Result<Mount, MountError> {
        let kind = self.kind.clone().unwrap_or_else(|| "bind".to_owned());
        self.check(&kind, mount)?;
        let writable = matches!(kind.as_str(), "cache" | "tmpfs");
        let read_only = self.read_only.unwrap_or(!writable);
        let Draft {
            from,
            source,
            target,
            id,
            env,
            mode,
            uid,
            gid,
            ..
        } = self;
        let required = self.required.unwrap_or(false);
        let kind = match kind.as_str() {
            "bind" => MountKind::Bind { from, source },
            "cache" => {
                let sharing = self.sharing.unwrap_or_default();
                MountKind::Cache {
                    id,
                    from,
                    source,
                    sharing,
                    mode,
                    uid,
                    gid,
                }
            }
            "tmpfs" => MountKind::Tmpfs {
                size: self.size,
                copy_up: self.copy_up,
            },
            // Older Dockerfiles call a secret's id `source`.
            "secret" => MountKind::Secret {
                id: id.or(source),
                env,
                required,
                mode,
                uid,
                gid,
            },
            _ => MountKind::Ssh {
                id: id.or(source),
                required,
                mode,
                uid,
                gid,
            },
        };
        Ok(Mount {
            kind,
            target: target.filter(|t| !t.is_empty()),
            read_only,
        })
    }

    /// Refuses keys that the type doesn't have, and a secret without a name.
    fn check(&self, kind: &str, mount: &RunMount) -> Result<(), MountError> {
        if let Some(key) = self.misplaced(kind) {
            let message = format!("unexpected key '{key}' for mount type '{kind}'");
            return Err(wrong(place_of(mount, &[key]), message));
        }
        let unnamed = self.id.is_none() && self.source.is_none() && self.target.is_none();
        if kind == "secret" && unnamed {
            let error = wrong(
                mount.span,
                "invalid secret mount: it has neither id nor target".into(),
            );
            let expected = Some("type=secret,id=NAME".into());
            return Err(MountError { expected, ..error });
        }
        if kind == "secret" && self.id.is_some() && self.source.is_some() {
            return Err(wrong(
                place_of(mount, &["source", "src"]),
                "both source and id can't be set".into(),
            ));
        }
        let is_root = |t: &str| !t.is_empty() && t.bytes().all(|b| b == b'/');
        if self.target.as_deref().is_some_and(is_root) {
            let error = wrong(
                place_of(mount, &["target", "dst", "destination"]),
                "invalid mount target \"/\"".into(),
            );
            return Err(MountError {
                expected: Some("a directory or file below /".into()),
                ..error
            });
        }
        Ok(())
    }

    fn misplaced(&self, kind: &str) -> Option<&'static str> {
        let is = |kinds: &[&str]| kinds.contains(&kind);
        let owned = ["secret", "ssh", "cache"];
        let keys = [
            ("sharing", self.sharing.is_some() && !is(&["cache"])),
            ("size", self.size.is_some() && !is(&["tmpfs"])),
            ("tmpcopyup", self.copy_up && !is(&["tmpfs"])),
            ("required", self.required.is_some() && !is(&["secret", "ssh"])),
            ("env", self.env.is_some() && !is(&["secret"])),
            ("from", self.from.is_some() && !is(&["bind", "cache"])),
            ("mode", self.mode.is_some() && !is(&owned)),
            ("uid", self.uid.is_some() && !is(&owned)),
            ("gid", self.gid.is_some() && !is(&owned)),
        ];
        keys.iter().find(|(_, wrong)| *wrong).map(|(key, _)| *key)
    }
}

/// The field with one of these keys; the whole mount where there is none.
fn place_of(mount: &RunMount, keys: &[&str]) -> Span {
    let field = mount
        .fields
        .iter()
        .rfind(|f| keys.contains(&f.key.value.as_str()));
    field.map_or(mount.span, |f| f.key.span)
}

fn wrong(span: Span, message: String) -> MountError {
    MountError {
        message,
        span,
        expected: None,
        suggestion: None,
    }
}

fn unknown_key(key: &str, span: Span) -> MountError {
    let suggestion = did_you_mean(key, KEYS);
    let expected = Some(KEYS.join(", "));
    MountError {
        expected,
        suggestion,
        ..wrong(span, format!("unexpected key '{key}' in a mount"))
    }
}

fn kind(value: &str, span: Span) -> Result<String, MountError> {
    let lower = value.to_lowercase();
    if KINDS.contains(&lower.as_str()) {
        return Ok(lower);
    }
    let (expected, suggestion) = (Some(KINDS.join(", ")), did_you_mean(value, KINDS));
    Err(MountError {
        expected,
        suggestion,
        ..wrong(span, format!("unsupported mount type {value:?}"))
    })
}

fn sharing(value: &str, span: Span) -> Result<Sharing, MountError> {
    match value.to_lowercase().as_str() {
        "shared" => Ok(Sharing::Shared),
        "private" => Ok(Sharing::Private),
        "locked" => Ok(Sharing::Locked),
        _ => {
            let names = ["shared", "private", "locked"];
            let (expected, suggestion) = (Some(names.join(", ")), did_you_mean(value, names));
            Err(MountError {
                expected,
                suggestion,
                ..wrong(span, format!("unsupported sharing value {value:?}"))
            })
        }
    }
}

/// A switch alone means yes; values as Go's ParseBool has them.
fn switch(key: &str, value: Option<String>, span: Span) -> Result<bool, MountError> {
    match value.as_deref() {
        None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(v) => Err(MountError {
            expected: Some("true or false".into()),
            ..wrong(span, format!("invalid value for {key}: {v}"))
        }),
    }
}

/// A user or group; the highest number means none to the kernel.
fn id(value: &str) -> Option<u32> {
    value.parse().ok().filter(|id| *id != u32::MAX)
}

fn number<T>(key: &str, parsed: Option<T>, value: &str, span: Span) -> Result<T, MountError> {
    parsed.ok_or_else(|| wrong(span, format!("invalid value {value} for {key}")))
}
