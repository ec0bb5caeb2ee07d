//! Names of users and groups, looked up in a rootfs' own passwd and group by ourselves: no code and no module of the
//! rootfs is loaded for it.

use std::io::Read;
use std::path::Path;

use box_store::tree::Tree;

use crate::error::{PlaceError, StepError};

/// The largest passwd or group that is read.
const LIMIT: u64 = 8 << 20;

/// The owner that `user[:group]` means. A user alone brings its primary group; a number alone is both.
///
/// # Errors
/// [`PlaceError::UnknownUser`], [`PlaceError::UnknownGroup`]; when the files can't be read.
pub(crate) fn owner(tree: &Tree, text: &str) -> Result<(u32, u32), StepError> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let (uid, primary) = match number(user) {
        Some(number) => (number, number),
        None if user.is_empty() => (0, 0),
        None => find_user(tree, user)?,
    };
    let gid = match group.map(|group| (group, number(group))) {
        None => primary,
        Some((_, Some(number))) => number,
        Some((name, None)) => find_group(tree, name)?,
    };
    Ok((uid, gid))
}

/// The last id, 2³²−1, means "leave it as it is" to chown(2), and no file can have it.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

fn find_user(tree: &Tree, name: &str) -> Result<(u32, u32), StepError> {
    let passwd = read(tree, "/etc/passwd")?;
    let ids =
        lines(&passwd, name).find_map(|fields| Some((number(fields.get(2)?)?, number(fields.get(3)?)?)));
    // Root is root where there is no passwd, too.
    let ids = ids.or((name == "root").then_some((0, 0)));
    ids.ok_or_else(|| {
        PlaceError::UnknownUser {
            name: name.to_owned(),
        }
        .into()
    })
}

fn find_group(tree: &Tree, name: &str) -> Result<u32, StepError> {
    let group = read(tree, "/etc/group")?;
    let id = lines(&group, name).find_map(|fields| number(fields.get(2)?));
    let id = id.or((name == "root").then_some(0));
    id.ok_or_else(|| {
        PlaceError::UnknownGroup {
            name: name.to_owned(),
        }
        .into()
    })
}

/// The fields of all lines that begin with this name.
fn lines<'a>(text: &'a [u8], name: &'a str) -> impl Iterator<Item = Vec<&'a str>> + 'a {
    let lines = text
        .split(|byte| *byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok());
    lines
        .map(|line| line.trim().split(':').collect::<Vec<_>>())
        .filter(move |fields| fields.first() == Some(&name))
}

/// The file's bytes; empty if there is none.
fn read(tree: &Tree, path: &str) -> Result<Vec<u8>, StepError> {
    let path = Path::new(path);
    let resolved = tree.resolve(path, true)?;
    if resolved.entry.is_none() {
        return Ok(Vec::new());
    }
    let file = tree.open_file(&resolved.path)?;
    let mut text = Vec::new();
    let read = file.take(LIMIT + 1).read_to_end(&mut text);
    read.map_err(|source| PlaceError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    match text.len() as u64 > LIMIT {
        true => Err(PlaceError::TooLarge {
            path: path.to_owned(),
            limit: LIMIT,
        }
        .into()),
        false => Ok(text),
    }
}
