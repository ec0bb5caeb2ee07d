//! `--secret` of `box run`.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::mount::{clean_target, fields, parse_id, parse_mode};
use crate::secrets::SecretArg;

/// Where secrets are.
const DIRECTORY: &str = "/run/secrets";

/// `--secret id=NAME[,src=FILE|,env=VARIABLE][,target=PATH][,uid=N][,gid=N][,mode=OCTAL]`: a file in memory alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunSecretArg {
    /// What it is called, and where it comes from.
    pub(crate) source: SecretArg,
    /// An absolute path of the container.
    pub(crate) target: PathBuf,
    /// Its owner, as the container sees it.
    pub(crate) uid: u32,
    /// Its group, as the container sees it.
    pub(crate) gid: u32,
    /// Its permissions.
    pub(crate) mode: u32,
}

impl FromStr for RunSecretArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut target, mut uid, mut gid, mut mode) = (None, 0, 0, 0o444);
        let mut rest = Vec::new();
        for field in fields(text)? {
            match field.split_once('=') {
                Some(("target" | "dst" | "destination", path)) if !path.is_empty() => {
                    target = Some(path.to_owned());
                }
                Some(("uid", id)) => uid = parse_id(id)?,
                Some(("gid", id)) => gid = parse_id(id)?,
                Some(("mode", bits)) => mode = parse_mode(bits)?,
                _ => rest.push(field),
            }
        }
        // A file is called as it is, if nothing else is said.
        if !rest.iter().any(|field| field.starts_with("id=")) {
            let source = rest.iter().find_map(|field| {
                field
                    .strip_prefix("src=")
                    .or_else(|| field.strip_prefix("source="))
            });
            let name = source.and_then(|path| Path::new(path).file_name()?.to_str());
            let name = name.ok_or("a secret needs id=NAME or src=FILE")?;
            rest.push(format!("id={name}"));
        }
        let source: SecretArg = rest
            .join(",")
            .parse()
            .map_err(|why| format!("{why} (and target=PATH, uid=, gid=, mode=)"))?;
        let target = target.unwrap_or_else(|| source.id.clone());
        if target.split('/').any(|part| part == "..") || (!target.starts_with('/') && target.contains('/')) {
            return Err(format!(
                "'{target}' can't name a secret in {DIRECTORY}; give a plain name, or target=/ABSOLUTE/PATH"
            ));
        }
        let target = clean_target(&Path::new(DIRECTORY).join(target).to_string_lossy())?;
        match target == Path::new(DIRECTORY) {
            true => Err("a secret needs a name".to_owned()),
            false => Ok(Self {
                source,
                target,
                uid,
                gid,
                mode,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets() {
        let check = |text: &str, expected: Option<(&str, &str, u32)>| {
            let parsed = text.parse::<RunSecretArg>();
            let found = parsed.as_ref().ok();
            let found = found.map(|s| (s.source.id.as_str(), s.target.to_str().unwrap(), s.mode));
            assert_eq!(found, expected, "{text}: {parsed:?}");
        };
        check("id=a,src=/f", Some(("a", "/run/secrets/a", 0o444)));
        check("src=/dir/f", Some(("f", "/run/secrets/f", 0o444)));
        check(
            "id=a,env=V,target=b,mode=400",
            Some(("a", "/run/secrets/b", 0o400)),
        );
        check("id=a,src=f,target=/x/./y,uid=7,gid=8", Some(("a", "/x/y", 0o444)));
        for wrong in [
            "",
            "uid=7",
            "id=a/b,src=/f",
            "id=..,src=/f",
            "id=.,src=/f",
            "id=a,target=../b",
            "id=a,target=/x/../y",
            "id=a,mode=9",
            "id=a,uid=x",
            "id=a,foo=1",
            "src=/",
        ] {
            check(wrong, None);
        }
    }
}
