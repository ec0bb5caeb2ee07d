//! Mounts of a container as the command line says them: what `-v`, `--mount` and `--tmpfs` have in common, and `--mount` itself.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use box_runner::{MountLimits, Tmpfs};
use box_store::VolumeName;

use super::Memory;

/// A mount, of which nothing was looked up yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountArg {
    /// What is mounted.
    pub(crate) source: MountSource,
    /// An absolute path of the container, without `.` and `..`.
    pub(crate) target: PathBuf,
    /// Whether the container may not write to it.
    pub(crate) read_only: bool,
    /// What else is forbidden in it.
    pub(crate) limits: MountLimits,
    /// Whether SELinux labels are to be changed.
    pub(crate) is_relabelled: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MountSource {
    /// A file or directory of the host.
    Bind {
        /// Where it is.
        path: PathBuf,
        /// Whether what is mounted below comes along.
        is_recursive: bool,
    },
    /// A directory of the host whose changes are thrown away.
    Discarded(PathBuf),
    /// A volume.
    Volume {
        /// Its name; none for a new one that nobody names.
        name: Option<VolumeName>,
        /// The directory in it that is meant; empty for the whole.
        part: PathBuf,
        /// Whether it gets what the image holds there when it is empty.
        is_filled: bool,
        /// Labels of a new one.
        labels: BTreeMap<String, String>,
    },
    /// An empty file system in memory.
    Tmpfs(Tmpfs),
    /// An image's root file system.
    Image {
        /// The image, by name or id.
        image: String,
        /// The file or directory in it that is meant; empty for the whole.
        part: PathBuf,
    },
}

impl MountArg {
    /// A writable mount of this at an absolute path.
    pub(super) fn new(source: MountSource, target: &str) -> Result<Self, String> {
        Ok(Self {
            source,
            target: clean_target(target)?,
            read_only: false,
            limits: MountLimits::default(),
            is_relabelled: false,
        })
    }
}

/// A target as Docker takes it: absolute, `.` and `..` resolved by their text alone.
pub(crate) fn clean_target(text: &str) -> Result<PathBuf, String> {
    if !text.starts_with('/') {
        return Err(format!("the target '{text}' must be an absolute path"));
    }
    let mut clean = PathBuf::from("/");
    for part in Path::new(text).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    match clean == Path::new("/") {
        true => Err("nothing can be mounted on / itself; mount on a directory below it".to_owned()),
        false => Ok(clean),
    }
}

/// A path below something: relative, without `..`.
fn clean_part(text: &str) -> Result<PathBuf, String> {
    let mut clean = PathBuf::new();
    for part in Path::new(text).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            _ => {
                return Err(format!(
                    "the subpath '{text}' must be relative and hold no '..'; it is taken below what is mounted"
                ));
            }
        }
    }
    Ok(clean)
}

pub(super) fn parse_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|m| *m <= 0o7777);
    mode.ok_or_else(|| format!("'{text}' is no octal mode; write for example 1777"))
}

pub(super) fn parse_id(text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| format!("'{text}' is no number of a user or group"))
}

/// Mounts of the host that come later do not show in a container, and never the other way.
pub(super) fn check_propagation(text: &str) -> Result<(), String> {
    match text {
        "rprivate" | "private" => Ok(()),
        "rslave" | "slave" | "rshared" | "shared" => Err(format!(
            "the propagation '{text}' is not supported: mounts made later don't pass between host and container; \
             leave it away (rprivate), and mount before the container starts"
        )),
        _ => Err(format!(
            "'{text}' is no propagation; rprivate is the only one supported"
        )),
    }
}

/// Fields as `--mount` and `--secret` have them: between commas, those with commas in double quotes.
pub(super) fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut fields = vec![String::new()];
    let mut is_quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let Some(field) = fields.last_mut() else { break };
        match c {
            '"' if is_quoted && chars.peek() == Some(&'"') => field.extend(chars.next()),
            '"' if is_quoted || field.is_empty() => is_quoted = !is_quoted,
            ',' if !is_quoted => fields.push(String::new()),
            c => field.push(c),
        }
    }
    match is_quoted {
        true => Err(format!("'{text}' has a quote that does not end")),
        false => Ok(fields),
    }
}

/// `--mount type=bind|volume|tmpfs|image,src=,dst=,…`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountFlag(pub(crate) MountArg);

/// What is known for every type; then for each.
const COMMON: &str = "type, source (src), target (destination, dst), readonly (ro), readwrite (rw), exec, noexec, suid, nosuid, nodev, consistency";
const OF_TYPE: [(&str, &str); 4] = [
    ("bind", "bind-propagation, bind-nonrecursive, bind-recursive"),
    (
        "volume",
        "volume-nocopy, volume-subpath, volume-label, volume-driver",
    ),
    (
        "tmpfs",
        "tmpfs-size, tmpfs-mode, tmpfs-uid, tmpfs-gid, tmpfs-inodes",
    ),
    ("image", "image-subpath"),
];

/// The keys that were given.
struct Keys {
    kind: &'static str,
    known: &'static str,
    given: Vec<(String, Option<String>)>,
}

impl Keys {
    fn parse(text: &str) -> Result<Self, String> {
        let mut given: Vec<(String, Option<String>)> = Vec::new();
        for field in fields(text)? {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key, Some(value.to_owned())),
                None => (field.as_str(), None),
            };
            let key = match key.to_ascii_lowercase().as_str() {
                "src" => "source".to_owned(),
                "dst" | "destination" => "target".to_owned(),
                "ro" => "readonly".to_owned(),
                "rw" => "readwrite".to_owned(),
                other => other.to_owned(),
            };
            if key != "volume-label" && given.iter().any(|(known, _)| *known == key) {
                return Err(format!("'{key}' is given twice"));
            }
            given.push((key, value));
        }
        let kind = given.iter().find(|(key, _)| key == "type");
        let kind = kind.map_or("volume", |(_, value)| value.as_deref().unwrap_or_default());
        let Some((kind, known)) = OF_TYPE.into_iter().find(|(known, _)| *known == kind) else {
            return Err(format!(
                "there is no mount type '{kind}'; there are bind, volume, tmpfs and image"
            ));
        };
        Ok(Self { kind, known, given })
    }

    /// Whether the key may be given for this type.
    fn check(&self) -> Result<(), String> {
        let words = |list: &'static str| list.split([',', ' ', '(', ')']).filter(|word| !word.is_empty());
        for (key, _) in &self.given {
            if words(COMMON).chain(words(self.known)).any(|known| known == key) {
                continue;
            }
            let other = OF_TYPE
                .iter()
                .find(|(_, keys)| words(keys).any(|known| known == key));
            return Err(match other {
                Some((other, _)) => {
                    format!("'{key}' is of type={other}, and this mount is type={}", self.kind)
                }
                None => format!(
                    "the key '{key}' is not known; a mount of type={} takes {COMMON}, {}",
                    self.kind, self.known
                ),
            });
        }
        Ok(())
    }

    /// The value of a key; empty is an error.
    fn text(&self, key: &str) -> Result<Option<&str>, String> {
        match self.given.iter().find(|(known, _)| known == key) {
            None => Ok(None),
            Some((_, Some(value))) if !value.is_empty() => Ok(Some(value)),
            Some(_) => Err(format!("'{key}' needs a value")),
        }
    }

    /// Whether a key is there and not false.
    fn is_set(&self, key: &str) -> Result<bool, String> {
        match self.given.iter().find(|(known, _)| known == key) {
            None => Ok(false),
            Some((_, None)) => Ok(true),
            Some((_, Some(value))) => match value.as_str() {
                "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                _ => Err(format!("'{key}={value}' is neither true nor false")),
            },
        }
    }

    fn parsed<T>(&self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, String> {
        self.text(key)?.map(parse).transpose()
    }

    fn source(&self) -> Result<MountSource, String> {
        let source = self.text("source")?;
        let needed = || format!("a mount of type={} needs source=", self.kind);
        match self.kind {
            "bind" => self.bind(source.ok_or_else(needed)?),
            "tmpfs" => match source {
                Some(_) => Err("a mount of type=tmpfs has no source".to_owned()),
                None => self.tmpfs(),
            },
            "image" => Ok(MountSource::Image {
                image: source.ok_or_else(needed)?.to_owned(),
                part: self.parsed("image-subpath", clean_part)?.unwrap_or_default(),
            }),
            _ => self.volume(source),
        }
    }

    fn bind(&self, source: &str) -> Result<MountSource, String> {
        if !source.starts_with(['/', '.']) {
            return Err(format!(
                "the source '{source}' of a bind must be a path that begins with / or ."
            ));
        }
        self.parsed("bind-propagation", check_propagation)?;
        let is_recursive = match self.text("bind-recursive")? {
            None | Some("enabled" | "readonly") => true,
            Some("disabled") => false,
            Some("writable") => {
                return Err(
                    "bind-recursive=writable is not supported: what is mounted below a read-only bind is read-only too"
                        .to_owned(),
                );
            }
            Some(other) => {
                return Err(format!(
                    "bind-recursive is enabled, disabled or readonly, not '{other}'"
                ));
            }
        };
        Ok(MountSource::Bind {
            path: source.into(),
            is_recursive: is_recursive && !self.is_set("bind-nonrecursive")?,
        })
    }

    fn tmpfs(&self) -> Result<MountSource, String> {
        let usual = Tmpfs::default();
        Ok(MountSource::Tmpfs(Tmpfs {
            size: self.parsed("tmpfs-size", |text| Ok(text.parse::<Memory>()?.0))?,
            inodes: self.parsed("tmpfs-inodes", super::tmpfs::parse_inodes)?,
            mode: self.parsed("tmpfs-mode", parse_mode)?.unwrap_or(usual.mode),
            uid: self.parsed("tmpfs-uid", parse_id)?.unwrap_or(usual.uid),
            gid: self.parsed("tmpfs-gid", parse_id)?.unwrap_or(usual.gid),
            exec: self.is_set("exec")?,
        }))
    }

    fn volume(&self, source: Option<&str>) -> Result<MountSource, String> {
        if let Some(driver) = self.text("volume-driver")?.filter(|driver| *driver != "local") {
            return Err(format!(
                "there is no volume driver '{driver}'; the only one is local"
            ));
        }
        let labels = self.given.iter().filter(|(key, _)| key == "volume-label");
        let label = |(_, value): &(String, Option<String>)| {
            let text = value.as_deref().unwrap_or_default();
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            match name {
                "" => Err("volume-label needs NAME=VALUE".to_owned()),
                name => Ok((name.to_owned(), value.to_owned())),
            }
        };
        Ok(MountSource::Volume {
            name: source
                .map(|name| name.parse().map_err(|e: box_store::VolumeError| e.to_string()))
                .transpose()?,
            part: self.parsed("volume-subpath", clean_part)?.unwrap_or_default(),
            is_filled: !self.is_set("volume-nocopy")?,
            labels: labels.map(label).collect::<Result<_, _>>()?,
        })
    }
}

impl FromStr for MountFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let keys = Keys::parse(text)?;
        keys.check()?;
        let target = keys.text("target")?.ok_or("a mount needs target=")?;
        let mut mount = MountArg::new(keys.source()?, target)?;
        for (yes, no) in [("exec", "noexec"), ("suid", "nosuid"), ("readonly", "readwrite")] {
            if keys.is_set(yes)? && keys.is_set(no)? {
                return Err(format!("'{yes}' and '{no}' exclude each other"));
            }
        }
        if let Some(other) = keys.text("consistency")?
            && !matches!(other, "consistent" | "cached" | "delegated" | "default")
        {
            return Err(format!(
                "'{other}' is no consistency; leave it away, it means nothing here"
            ));
        }
        // What an image holds is for all of its users: writes are asked for, and thrown away.
        mount.read_only = match keys.kind {
            "image" => !keys.is_set("readwrite")?,
            _ => keys.is_set("readonly")?,
        };
        mount.limits = MountLimits {
            no_exec: keys.is_set("noexec")?,
            no_suid: keys.is_set("nosuid")?,
        };
        Ok(Self(mount))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<MountArg, String> {
        text.parse::<MountFlag>().map(|flag| flag.0)
    }

    #[test]
    fn what_docker_takes() {
        let bind = parse("type=bind,source=/a,target=/b/./c/../d,readonly").unwrap();
        let source = MountSource::Bind {
            path: "/a".into(),
            is_recursive: true,
        };
        assert_eq!((bind.source, bind.read_only), (source, true));
        assert_eq!(bind.target, Path::new("/b/d"));
        let volume =
            parse("src=data,dst=/b,volume-nocopy=true,volume-subpath=a/./b,volume-label=x=y,nosuid").unwrap();
        assert!(volume.limits.no_suid && !volume.limits.no_exec);
        let source = MountSource::Volume {
            name: Some("data".parse().unwrap()),
            part: "a/b".into(),
            is_filled: false,
            labels: BTreeMap::from([("x".to_owned(), "y".to_owned())]),
        };
        assert_eq!(volume.source, source);
        let tmpfs = parse("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700").unwrap();
        let source = MountSource::Tmpfs(Tmpfs {
            size: Some(1 << 20),
            mode: 0o700,
            ..Tmpfs::default()
        });
        assert_eq!(tmpfs.source, source);
        let image = parse("type=image,source=app:1,target=/i,image-subpath=/").unwrap_err();
        assert!(image.contains("relative"), "{image}");
        assert!(parse("type=image,source=app:1,target=/i").unwrap().read_only);
        assert!(!parse("type=image,source=app:1,target=/i,rw").unwrap().read_only);
        let quoted = parse("type=bind,\"src=/a,\"\"b\",dst=/b").unwrap();
        assert!(matches!(quoted.source, MountSource::Bind { path, .. } if path == Path::new("/a,\"b")));
    }

    #[test]
    fn what_is_refused_and_why() {
        for (text, why) in [
            ("", "is not known"),
            ("type=tmpfs", "needs target"),
            ("type=bind,dst=/b", "needs source"),
            ("type=bind,src=a,dst=/b", "begins with / or ."),
            ("type=npipe,dst=/b", "there is no mount type"),
            ("src=data,dst=b", "absolute"),
            ("src=data,dst=/b/..", "on / itself"),
            ("src=../x,dst=/b", "can't name a volume"),
            ("src=data,dst=/b,volume-subpath=../x", "no '..'"),
            ("src=data,dst=/b,tmpfs-size=1m", "'tmpfs-size' is of type=tmpfs"),
            ("src=data,dst=/b,foo=1", "takes type, source"),
            ("src=data,dst=/b,ro=maybe", "neither true nor false"),
            ("src=data,dst=/b,dst=/c", "twice"),
            ("type=tmpfs,src=a,dst=/b", "no source"),
            (
                "type=bind,src=/a,dst=/b,bind-propagation=rshared",
                "not supported",
            ),
            ("type=bind,src=/a,dst=/b,bind-recursive=writable", "not supported"),
            ("src=data,dst=/b,volume-driver=nfs", "no volume driver"),
            ("\"src=data,dst=/b", "quote"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
