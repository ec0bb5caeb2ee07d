//! `-v [SOURCE:]TARGET[:OPTIONS]`.

use std::collections::BTreeMap;
use std::str::FromStr;

use box_store::VolumeError;

use super::mount::{MountArg, MountSource, check_propagation};

/// `-v`: a bind, a volume, or a directory of the host whose changes are thrown away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VolumeArg(pub(crate) MountArg);

/// What the options say.
#[derive(Default)]
struct Options {
    read_only: Option<bool>,
    no_exec: Option<bool>,
    no_suid: Option<bool>,
    is_recursive: Option<bool>,
    is_copied: Option<bool>,
    is_discarded: bool,
    is_relabelled: bool,
}

impl Options {
    fn parse(text: &str) -> Result<Self, String> {
        let mut options = Self::default();
        for option in text.split(',') {
            let set = match option {
                "ro" | "readonly" => set(&mut options.read_only, true),
                "rw" => set(&mut options.read_only, false),
                "noexec" => set(&mut options.no_exec, true),
                "exec" => set(&mut options.no_exec, false),
                "nosuid" => set(&mut options.no_suid, true),
                "suid" => set(&mut options.no_suid, false),
                "bind" => set(&mut options.is_recursive, false),
                "rbind" => set(&mut options.is_recursive, true),
                "nocopy" => set(&mut options.is_copied, false),
                "copy" => set(&mut options.is_copied, true),
                "O" => {
                    options.is_discarded = true;
                    true
                }
                "z" | "Z" => {
                    options.is_relabelled = true;
                    true
                }
                // Device nodes stay closed anyway; the host's file systems are one with the container's.
                "nodev" | "consistent" | "cached" | "delegated" => true,
                "dev" => return Err("device nodes of a mount stay closed; --device gives one".to_owned()),
                "U" => {
                    return Err(
                        "'U' is not supported, and not needed: files keep their owners, and a container's ids are mapped"
                            .to_owned(),
                    );
                }
                "shared" | "slave" | "private" | "rshared" | "rslave" | "rprivate" => {
                    check_propagation(option)?;
                    true
                }
                _ => {
                    return Err(format!(
                        "the volume option '{option}' is not supported; ro, rw, O, nocopy, copy, noexec, exec, nosuid, suid, \
                         nodev, bind, rbind, rprivate, z and Z are"
                    ));
                }
            };
            if !set {
                return Err(format!("the volume options '{text}' contradict each other"));
            }
        }
        Ok(options)
    }

    /// Options that mean nothing for this source are mistakes.
    fn check(&self, source: &MountSource) -> Result<(), String> {
        let is_volume = matches!(source, MountSource::Volume { .. });
        match self {
            _ if self.is_copied.is_some() && !is_volume => Err(
                "nocopy and copy are for volumes; nothing is copied into a directory of the host".to_owned(),
            ),
            _ if self.is_recursive.is_some() && is_volume => {
                Err("bind and rbind are for directories of the host, not for volumes".to_owned())
            }
            _ if self.is_discarded && is_volume => Err(
                "O is for directories of the host, not for volumes; a volume may be mounted with ro"
                    .to_owned(),
            ),
            _ if self.is_discarded && self.is_recursive == Some(true) => {
                Err("O shows nothing that is mounted below the directory; leave rbind away".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// Sets what was not said before, or the same.
fn set(option: &mut Option<bool>, value: bool) -> bool {
    *option.get_or_insert(value) == value
}

impl FromStr for VolumeArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, options) = match parts[..] {
            [target] => (None, target, ""),
            [source, target] => (Some(source), target, ""),
            [source, target, options] => (Some(source), target, options),
            _ => {
                return Err(format!(
                    "'{text}' is no [SOURCE:]TARGET[:OPTIONS]; a path with a colon is for --mount"
                ));
            }
        };
        if target.is_empty() {
            return Err(format!("'{text}' has no target"));
        }
        let options = match options {
            "" if parts.len() == 3 => return Err(format!("'{text}' has no options after its last colon")),
            "" => Options::default(),
            options => Options::parse(options)?,
        };
        let source = source_of(source, &options)?;
        options.check(&source)?;
        let mut mount = MountArg::new(source, target)?;
        mount.read_only = options.read_only.unwrap_or(false);
        mount.limits.no_exec = options.no_exec.unwrap_or(false);
        mount.limits.no_suid = options.no_suid.unwrap_or(false);
        mount.is_relabelled = options.is_relabelled;
        Ok(Self(mount))
    }
}

fn source_of(source: Option<&str>, options: &Options) -> Result<MountSource, String> {
    let volume = |name| MountSource::Volume {
        name,
        part: std::path::PathBuf::new(),
        is_filled: options.is_copied.unwrap_or(true),
        labels: BTreeMap::new(),
    };
    match source {
        None => Ok(volume(None)),
        Some("") => {
            Err("the source of a volume is empty; write NAME:TARGET, /PATH:TARGET or TARGET alone".to_owned())
        }
        Some(path) if path.starts_with(['/', '.']) && options.is_discarded => {
            Ok(MountSource::Discarded(path.into()))
        }
        Some(path) if path.starts_with(['/', '.']) => Ok(MountSource::Bind {
            path: path.into(),
            is_recursive: options.is_recursive.unwrap_or(true),
        }),
        Some(path) if path.starts_with('~') => Err(format!(
            "'{path}': only a shell knows what ~ means; leave it outside of quotes, or write $HOME"
        )),
        Some(name) => {
            let name = name.parse().map_err(|e: VolumeError| e.to_string())?;
            Ok(volume(Some(name)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<MountArg, String> {
        text.parse::<VolumeArg>().map(|arg| arg.0)
    }

    fn volume(name: Option<&str>, is_filled: bool) -> MountSource {
        MountSource::Volume {
            name: name.map(|name| name.parse().unwrap()),
            part: "".into(),
            is_filled,
            labels: BTreeMap::new(),
        }
    }

    fn bind(path: &str, is_recursive: bool) -> MountSource {
        MountSource::Bind {
            path: path.into(),
            is_recursive,
        }
    }

    #[test]
    fn sources() {
        let check = |text: &str, source: MountSource, read_only: bool| {
            let parsed = parse(text).unwrap();
            assert_eq!((parsed.source, parsed.read_only), (source, read_only), "{text}");
            assert_eq!(parsed.target.to_str(), Some("/b"), "{text}");
        };
        check("/a:/b:ro", bind("/a", true), true);
        check("./a:/b", bind("./a", true), false);
        check(".:/b:bind,rw", bind(".", false), false);
        check("/a:/b:O", MountSource::Discarded("/a".into()), false);
        check("/b", volume(None, true), false);
        check("data:/b/", volume(Some("data"), true), false);
        check("data:/b:nocopy,ro,z", volume(Some("data"), false), true);
        let limits = parse("/a:/b:noexec,nosuid,nodev,Z,rprivate,cached").unwrap();
        assert!(limits.limits.no_exec && limits.limits.no_suid && limits.is_relabelled);
    }

    #[test]
    fn what_is_refused_and_why() {
        for (text, why) in [
            ("", "no target"),
            ("a:/b", "can't name a volume"),
            ("../x", "absolute"),
            ("dir/x:/b", "can't name a volume"),
            ("~/x:/b", "a shell"),
            (":/b", "empty"),
            ("/a:", "no target"),
            ("/a:b", "absolute"),
            ("/a:/", "on / itself"),
            ("/a:/b:", "no options"),
            ("/a:/b:x", "not supported; ro"),
            ("/a:/b:ro,rw", "contradict"),
            ("/a:/b:rshared", "not supported"),
            ("/a:/b:dev", "--device"),
            ("/a:/b:nocopy", "for volumes"),
            ("data:/b:O", "not for volumes"),
            ("data:/b:rbind", "not for volumes"),
            ("/a:/b:ro:x", "--mount"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
