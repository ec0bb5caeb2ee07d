//! Names that mean removed files (OCI image spec, layer.md, "Whiteouts").

use super::error::{EntryName, Problem};

/// How the names of removed files begin.
const PREFIX: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What AUFS kept in the root of its branches, and old versions of Docker in layers.
const AUFS: [&[u8]; 3] = [b".wh..wh.aufs", b".wh..wh.plnk", b".wh..wh.orph"];

/// What a name in a layer means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning<'a> {
    /// An entry.
    Plain,
    /// What is below the directory is hidden.
    Opaque,
    /// This name is removed from what is below.
    Removed(&'a [u8]),
    /// AUFS' own.
    Ignored,
}

/// Of an entry `name` in the directory `parents` of a layer.
pub(super) fn meaning<'a>(parents: &[Vec<u8>], name: &'a [u8]) -> Result<Meaning<'a>, Problem> {
    if parents.first().is_some_and(|p| AUFS.contains(&p.as_slice())) {
        return Ok(Meaning::Ignored);
    }
    if let Some(bad) = parents.iter().find(|p| p.starts_with(PREFIX)) {
        return Err(Problem::BelowWhiteout(EntryName::new(bad.clone())));
    }
    let Some(removed) = name.strip_prefix(PREFIX) else {
        return Ok(Meaning::Plain);
    };
    match removed {
        _ if name == OPAQUE => Ok(Meaning::Opaque),
        _ if parents.is_empty() && AUFS.contains(&name) => Ok(Meaning::Ignored),
        b"" | b"." | b".." => Err(Problem::InvalidWhiteout(EntryName::new(removed))),
        _ if removed.starts_with(PREFIX) => Err(Problem::InvalidWhiteout(EntryName::new(removed))),
        _ => Ok(Meaning::Removed(removed)),
    }
}

/// In a rootfs archive: no name may look like a removed file.
pub(super) fn refuse(components: &[Vec<u8>]) -> Result<(), Problem> {
    match components.iter().any(|c| c.starts_with(PREFIX)) {
        true => Err(Problem::WhiteoutName),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_their_meanings() {
        let check = |path: &str| {
            let mut parents: Vec<Vec<u8>> = path.split('/').map(|c| c.as_bytes().to_vec()).collect();
            let name = parents.pop().unwrap_or_default();
            meaning(&parents, &name).map(|m| format!("{m:?}")).map_err(|_| ())
        };
        assert_eq!(check("a/b"), Ok("Plain".into()));
        assert_eq!(check("a/.wh..wh..opq"), Ok("Opaque".into()));
        assert_eq!(check("a/.whx"), Ok("Plain".into()));
        assert_eq!(check(".wh.a"), Ok(format!("{:?}", Meaning::Removed(b"a"))));
        assert_eq!(
            check(".wh..hidden"),
            Ok(format!("{:?}", Meaning::Removed(b".hidden")))
        );
        assert_eq!(check(".wh..wh.plnk/1.2"), Ok("Ignored".into()));
        assert_eq!(check(".wh..wh.aufs"), Ok("Ignored".into()));
        for bad in [
            ".wh.",
            "a/.wh..",
            ".wh...",
            ".wh..wh.x",
            "a/.wh..wh.aufs",
            ".wh.d/x",
            "a/.wh.b/c/d",
        ] {
            assert_eq!(check(bad), Err(()), "{bad}");
        }
    }
}
