//! `--tmpfs TARGET[:OPTIONS]`.

use std::str::FromStr;

use box_runner::Tmpfs;

use super::Memory;
use super::mount::{MountArg, MountSource, parse_id, parse_mode};

/// `--tmpfs`: an empty file system in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TmpfsArg(pub(crate) MountArg);

/// A number of files: as sizes are, thousands by 1024.
pub(super) fn parse_inodes(text: &str) -> Result<u64, String> {
    text.parse::<Memory>()
        .map(|count| count.0)
        .map_err(|_| format!("'{text}' is no number of files; write for example 1000 or 10k"))
}

impl FromStr for TmpfsArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (target, options) = text.split_once(':').unwrap_or((text, ""));
        let mut tmpfs = Tmpfs::default();
        let mut read_only = false;
        for option in options.split(',').filter(|o| !o.is_empty()) {
            match option.split_once('=').unwrap_or((option, "")) {
                ("size", value) => tmpfs.size = Some(value.parse::<Memory>()?.0),
                ("nr_inodes", value) => tmpfs.inodes = Some(parse_inodes(value)?),
                ("mode", value) => tmpfs.mode = parse_mode(value)?,
                ("uid", value) => tmpfs.uid = parse_id(value)?,
                ("gid", value) => tmpfs.gid = parse_id(value)?,
                ("exec", "") => tmpfs.exec = true,
                ("noexec", "") => tmpfs.exec = false,
                ("ro", "") => read_only = true,
                ("rw", "") => read_only = false,
                // As it is anyway.
                ("nosuid" | "nodev", "") => {}
                _ => {
                    return Err(format!(
                        "the tmpfs option '{option}' is not supported; size=, mode=, uid=, gid=, nr_inodes=, exec, noexec, \
                         nosuid, nodev, ro and rw are"
                    ));
                }
            }
        }
        let mut mount = MountArg::new(MountSource::Tmpfs(tmpfs), target)?;
        mount.read_only = read_only;
        Ok(Self(mount))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let mount = "/t:rw,exec,size=1m,mode=0751,uid=3,gid=4,nr_inodes=2k,nosuid,nodev";
        let mount = mount.parse::<TmpfsArg>().unwrap().0;
        let expected = Tmpfs {
            size: Some(1 << 20),
            inodes: Some(2048),
            mode: 0o751,
            uid: 3,
            gid: 4,
            exec: true,
        };
        assert_eq!(mount.source, MountSource::Tmpfs(expected));
        assert!("/t:ro".parse::<TmpfsArg>().unwrap().0.read_only);
        for wrong in [
            "t",
            "/",
            "/t:uid=-1",
            "/t:size=50%",
            "/t:suid",
            "/t:dev",
            "/t:mode=9",
            "/t:exec=1",
        ] {
            assert!(wrong.parse::<TmpfsArg>().is_err(), "{wrong}");
        }
    }
}
