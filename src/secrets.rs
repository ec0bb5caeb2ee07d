//! What `--secret` and `--ssh` give a build: read once, by the command line alone.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use box_builder::exec::Secret;

use crate::error::Failure;

/// The largest secret, in bytes, as with Docker.
const LIMIT: u64 = 500 << 10;

/// `--secret id=ID[,src=FILE|,env=VARIABLE]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SecretArg {
    /// As the Boxfile names it.
    pub(crate) id: String,
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// The variable or the file of the id's name.
    Id,
    File(PathBuf),
    Variable(String),
}

impl FromStr for SecretArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut id, mut source, mut variable, mut is_env) = (None, None, None, false);
        for field in text.split(',') {
            let value = |value: &str| Some(value.to_owned());
            match field.split_once('=') {
                Some(("id", name)) if !name.is_empty() => id = value(name),
                Some(("src" | "source", path)) if !path.is_empty() => source = value(path),
                Some(("env", name)) if !name.is_empty() => variable = value(name),
                Some(("type", "file")) => is_env = false,
                Some(("type", "env")) => is_env = true,
                _ => {
                    return Err(format!(
                        "'{field}' is not understood; write id=NAME,src=FILE or id=NAME,env=VARIABLE"
                    ));
                }
            }
        }
        let id = id.ok_or("a secret needs id=NAME")?;
        let place = match (source, variable) {
            (Some(_), Some(_)) => return Err("a secret has src= or env=, not both".to_owned()),
            (Some(name), None) if is_env => Place::Variable(name),
            (Some(path), None) => Place::File(path.into()),
            (None, Some(name)) => Place::Variable(name),
            (None, None) if is_env => Place::Variable(id.clone()),
            (None, None) => Place::Id,
        };
        Ok(Self { id, place })
    }
}

impl SecretArg {
    /// A secret that is the content of a file.
    pub(crate) fn of_file(id: &str, path: PathBuf) -> Self {
        let place = Place::File(path);
        Self {
            id: id.to_owned(),
            place,
        }
    }

    /// A secret that is the value of a variable.
    pub(crate) fn of_variable(id: &str, name: &str) -> Self {
        let place = Place::Variable(name.to_owned());
        Self {
            id: id.to_owned(),
            place,
        }
    }

    /// The file or else the variable that it comes from: where neither is said, the variable of its name if there is one.
    pub(crate) fn origin(&self) -> Result<PathBuf, String> {
        match &self.place {
            Place::File(path) => Ok(path.clone()),
            Place::Variable(name) => Err(name.clone()),
            Place::Id if std::env::var_os(&self.id).is_some() => Err(self.id.clone()),
            Place::Id => Ok(PathBuf::from(&self.id)),
        }
    }

    /// Reads it.
    pub(crate) fn read(&self) -> Result<Secret, Failure> {
        let bytes = match &self.place {
            Place::File(path) => self.file(path),
            Place::Variable(name) => self.variable(name),
            Place::Id => match std::env::var_os(&self.id) {
                Some(value) => Ok(value.into_vec()),
                None => self.file(Path::new(&self.id)),
            },
        }?;
        Ok(Secret::new(bytes))
    }

    fn file(&self, path: &Path) -> Result<Vec<u8>, Failure> {
        let fail = |why: String| {
            Failure::own(format!(
                "cannot read the secret {} from {}: {why}",
                self.id,
                path.display()
            ))
        };
        let file = std::fs::File::open(path).map_err(|e| fail(e.to_string()))?;
        let mut bytes = Vec::new();
        let read = file.take(LIMIT + 1).read_to_end(&mut bytes);
        read.map_err(|e| fail(e.to_string()))?;
        match bytes.len() as u64 > LIMIT {
            true => Err(fail(format!("it is larger than {LIMIT} bytes"))),
            false => Ok(bytes),
        }
    }

    fn variable(&self, name: &str) -> Result<Vec<u8>, Failure> {
        let value: Option<OsString> = std::env::var_os(name);
        value.map(OsString::into_vec).ok_or_else(|| {
            Failure::own(format!(
                "the secret {} can't be had: the variable {name} is not set",
                self.id
            ))
        })
    }
}

/// `--ssh ID[=SOCKET]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SshArg {
    /// As the Boxfile names it.
    pub(crate) id: String,
    socket: Option<PathBuf>,
}

impl FromStr for SshArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (id, socket) = match text.split_once('=') {
            Some((id, socket)) => (id, Some(socket).filter(|socket| !socket.is_empty())),
            None => (text, None),
        };
        match id {
            "" => Err("an SSH agent needs a name; write default, or NAME=SOCKET".to_owned()),
            id => Ok(Self {
                id: id.to_owned(),
                socket: socket.map(PathBuf::from),
            }),
        }
    }
}

impl SshArg {
    /// Where the agent listens.
    pub(crate) fn agent(&self) -> Result<PathBuf, Failure> {
        let socket = match &self.socket {
            Some(socket) => socket.clone(),
            None => match std::env::var_os("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty()) {
                Some(socket) => socket.into(),
                None => {
                    let message = format!(
                        "there is no SSH agent for --ssh {}: SSH_AUTH_SOCK is not set",
                        self.id
                    );
                    return Err(Failure::own(message)
                        .hint("start one with ssh-agent and ssh-add, or write --ssh NAME=SOCKET"));
                }
            },
        };
        let metadata = std::fs::metadata(&socket)
            .map_err(|e| Failure::own(format!("cannot find the SSH agent {}: {e}", socket.display())))?;
        if !metadata.file_type().is_socket() {
            let message = format!("{} is no socket of an SSH agent", socket.display());
            return Err(Failure::own(message)
                .hint("keys in files are not supported; add them to an agent with ssh-add"));
        }
        Ok(socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets() {
        let check = |text: &str, expected: Option<(&str, Place)>| {
            let parsed = text.parse::<SecretArg>().ok();
            let expected = expected.map(|(id, place)| SecretArg {
                id: id.to_owned(),
                place,
            });
            assert_eq!(parsed, expected, "{text}");
        };
        check("id=a", Some(("a", Place::Id)));
        check("id=a,src=/f", Some(("a", Place::File("/f".into()))));
        check("type=file,source=f,id=a", Some(("a", Place::File("f".into()))));
        check("id=a,env=V", Some(("a", Place::Variable("V".into()))));
        check("id=a,src=V,type=env", Some(("a", Place::Variable("V".into()))));
        check("type=env,id=a", Some(("a", Place::Variable("a".into()))));
        for wrong in [
            "",
            "a",
            "src=/f",
            "id=",
            "id=a,src=/f,env=V",
            "id=a,mode=1",
            "id=a,type=x",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn agents() {
        let check = |text: &str, expected: Option<(&str, Option<&str>)>| {
            let parsed = text.parse::<SshArg>().ok().map(|arg| (arg.id, arg.socket));
            let expected = expected.map(|(id, socket)| (id.to_owned(), socket.map(PathBuf::from)));
            assert_eq!(parsed, expected, "{text}");
        };
        check("default", Some(("default", None)));
        check("a=/run/agent", Some(("a", Some("/run/agent"))));
        check("a=", Some(("a", None)));
        check("", None);
        check("=/x", None);
    }
}
