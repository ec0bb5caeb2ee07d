//! Each entry is put in its place.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::attrs::Attrs;
use super::beneath::{Components, Root, join, look_at, split};
use super::content::fill;
use super::ending::Ending;
use super::error::{ApplyError, EntryName, Problem};
use super::member::{Content, Kind, Member, Members};
use super::options::{Extract, Extracted, Source};
use super::trouble::{Trouble, failed};
use super::users;
use super::whiteout::{self, Meaning};

/// As many symbolic links as the kernel follows in one name.
const MAX_LINKS: usize = 40;

/// Makes the entries of one archive, in its order.
pub(super) struct Placer<'a> {
    root: Root<'a>,
    how: &'a Extract<'a>,
    /// What is known only at the end.
    ending: Ending<'a>,
    /// The directory of the last entry: most entries are beside it.
    last: Option<(Components, Rc<Parent>)>,
}

/// An open directory and its path from the root, which has no links in it.
struct Parent {
    path: Vec<u8>,
    fd: OwnedFd,
}

/// Where an entry goes.
struct Place<'n> {
    parent: Rc<Parent>,
    name: &'n [u8],
}

impl Place<'_> {
    fn path(&self) -> Vec<u8> {
        join(&self.parent.path, self.name)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.parent.fd.as_fd()
    }
}

impl<'a> Placer<'a> {
    pub(super) fn new(root: BorrowedFd<'a>, how: &'a Extract<'a>) -> Placer<'a> {
        let root = Root(root);
        Placer {
            root,
            how,
            ending: Ending::new(root, how.source),
            last: None,
        }
    }

    /// Makes one entry; a file's content is read from `members`.
    pub(super) fn place<R: Read>(
        &mut self,
        member: Member,
        members: &mut Members<'_, R>,
    ) -> Result<(), ApplyError> {
        let name = member.name.clone();
        self.place_member(member, members)
            .map_err(|trouble| trouble.of(&name))
    }

    fn place_member<R: Read>(
        &mut self,
        mut member: Member,
        members: &mut Members<'_, R>,
    ) -> Result<(), Trouble> {
        let mut parents = components(&member.name, "name", self.how)?.ok_or(Problem::DotDot)?;
        let Some(name) = parents.pop() else {
            is_root(&member.kind)?;
            self.ending.root(Attrs::of(&mut member, self.how)?);
            return Ok(());
        };
        if self.is_whiteout(&parents, &name, &member.kind)? {
            return Ok(());
        }
        let attrs = Attrs::of(&mut member, self.how)?;
        self.ending.note_time(attrs.mtime, self.how);
        let place = Place {
            parent: self.parent(&parents)?,
            name: &name,
        };
        match member.kind {
            Kind::Directory => self.directory(&place, attrs),
            Kind::File(content) => self.file(&place, &attrs, &content, members),
            Kind::Symlink(target) => self.symlink(&place, &attrs, &target),
            Kind::HardLink(target) => self.hard_link(&place, &target),
            Kind::Fifo => self.node(&place, &attrs, FileType::Fifo, 0),
            Kind::Character(0, 0) => Err(Problem::WhiteoutDevice.into()),
            Kind::Character(major, minor) => self.node(
                &place,
                &attrs,
                FileType::CharacterDevice,
                rustix::fs::makedev(major, minor),
            ),
            Kind::Block(major, minor) => self.node(
                &place,
                &attrs,
                FileType::BlockDevice,
                rustix::fs::makedev(major, minor),
            ),
        }
    }

    /// Notes a whiteout; true if the entry needs nothing else.
    fn is_whiteout(&mut self, parents: &Components, name: &[u8], kind: &Kind) -> Result<bool, Trouble> {
        if self.how.source == Source::Rootfs {
            let all: Components = parents.iter().cloned().chain([name.to_vec()]).collect();
            whiteout::refuse(&all)?;
            return Ok(false);
        }
        let meaning = whiteout::meaning(parents, name)?;
        match (&meaning, kind) {
            (Meaning::Plain, _) => return Ok(false),
            (Meaning::Ignored, _) => return Ok(true),
            // AUFS' whiteouts were hard links to one file.
            (_, Kind::File(_) | Kind::HardLink(_)) => {}
            _ => return Err(Problem::WhiteoutKind.into()),
        }
        let parent = self.parent(parents)?;
        match meaning {
            Meaning::Removed(removed) => self.ending.remove(join(&parent.path, removed)),
            _ => self.ending.make_opaque(parent.path.clone()),
        }
        Ok(true)
    }

    /// The directory that these names lead to, made where it is missing.
    fn parent(&mut self, parents: &Components) -> Result<Rc<Parent>, Trouble> {
        if let Some((of, parent)) = &self.last
            && of == parents
        {
            return Ok(parent.clone());
        }
        let path = parents.join(&b'/');
        let parent = match self.root.directory(&path) {
            Ok(fd) => Parent { path, fd },
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => {
                let path = self.walk(parents)?;
                self.make_missing(&path)?;
                let fd = self.root.directory(&path).map_err(failed("open its directory"))?;
                Parent { path, fd }
            }
            Err(e) => return Err(failed("open its directory")(e)),
        };
        let limit = self.how.limits.max_depth;
        if parent.path.split(|b| *b == b'/').count() >= limit {
            return Err(Problem::TooDeep(limit).into());
        }
        let parent = Rc::new(parent);
        self.last = Some((parents.clone(), parent.clone()));
        Ok(parent)
    }

    /// Goes down name by name and returns where these names lead inside of the root, links resolved as far as the
    /// source allows that. The end may not exist yet.
    fn walk(&self, parents: &[Vec<u8>]) -> Result<Vec<u8>, Trouble> {
        let mut waiting: Vec<Vec<u8>> = parents.iter().rev().cloned().collect();
        let mut here = Vec::new();
        let mut links = 0;
        while let Some(name) = waiting.pop() {
            if name == b".." {
                here.truncate(split(&here).0.len());
                continue;
            }
            let next = join(&here, &name);
            let found = match self.root.look(&next) {
                Err(Errno::NOENT) => None,
                other => other.map_err(failed("look at its parent"))?,
            };
            match found {
                None | Some(FileType::Directory) => here = next,
                Some(FileType::Symlink) => {
                    links += 1;
                    let target = self.follow(&next, links)?;
                    if target.starts_with(b"/") {
                        here.clear();
                    }
                    let names = target.split(|b| *b == b'/').filter(|n| !matches!(*n, b"" | b"."));
                    waiting.extend(names.rev().map(<[u8]>::to_vec));
                }
                Some(_) => return Err(Problem::ParentNotDirectory(EntryName::new(next)).into()),
            }
        }
        Ok(here)
    }

    fn follow(&self, link: &[u8], links: usize) -> Result<Vec<u8>, Trouble> {
        match self.how.source {
            Source::Rootfs => Err(Problem::ThroughSymlink(EntryName::new(link)).into()),
            Source::Layer { .. } if links > MAX_LINKS => {
                Err(Problem::BrokenParentLink(EntryName::new(link)).into())
            }
            Source::Layer { .. } => self
                .root
                .read_link(link)
                .map_err(failed("read its parent's link")),
        }
    }

    /// Makes the directories of `path` that are not there. They are not the archive's own: it only implies them.
    fn make_missing(&mut self, path: &[u8]) -> Result<(), Trouble> {
        let ends = path
            .iter()
            .enumerate()
            .filter(|(_, b)| **b == b'/')
            .map(|(at, _)| at);
        for end in ends.chain((!path.is_empty()).then_some(path.len())) {
            let (parent, name) = split(&path[..end]);
            let parent = self
                .root
                .directory(parent)
                .map_err(failed("open its directory"))?;
            match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
                Ok(()) => {
                    self.ending.imply_directory(&path[..end]);
                }
                Err(Errno::EXIST) => {}
                Err(e) => return Err(failed("make its directory")(e)),
            }
        }
        Ok(())
    }

    /// Tries to make something, and again after what was in its place is gone.
    fn make<T>(
        &mut self,
        place: &Place<'_>,
        action: &'static str,
        make: impl Fn() -> Result<T, Errno>,
    ) -> Result<T, Trouble> {
        match make() {
            Err(Errno::EXIST) => {
                self.clear(place)?;
                make().map_err(failed(action))
            }
            other => other.map_err(failed(action)),
        }
    }

    /// Removes what an earlier entry made here.
    fn clear(&mut self, place: &Place<'_>) -> Result<(), Trouble> {
        let found = look_at(place.fd(), place.name).map_err(failed("look at what it replaces"))?;
        if self.how.is_into_users && found == Some(FileType::Directory) {
            return Err(Problem::OverDirectory.into());
        }
        if found != Some(FileType::Directory) {
            return rustix::fs::unlinkat(place.fd(), place.name, AtFlags::empty())
                .map_err(failed("replace what was there"));
        }
        let path = place.path();
        self.root
            .remove_tree(&path)
            .map_err(failed("replace what was there"))?;
        self.last = None;
        self.ending.forget(&path);
        Ok(())
    }

    fn directory(&mut self, place: &Place<'_>, attrs: Attrs) -> Result<(), Trouble> {
        let make = || match rustix::fs::mkdirat(place.fd(), place.name, Mode::RWXU) {
            Err(Errno::EXIST) if look_at(place.fd(), place.name)? == Some(FileType::Directory) => Ok(()),
            other => other,
        };
        if self.how.is_into_users {
            make().map_err(|error| match error {
                Errno::EXIST => Problem::OverFile.into(),
                error => failed("make the directory")(error),
            })?;
        } else {
            self.make(place, "make the directory", make)?;
        }
        self.ending.directory(place.path(), attrs);
        Ok(())
    }

    fn file<R: Read>(
        &mut self,
        place: &Place<'_>,
        attrs: &Attrs,
        content: &Content,
        members: &mut Members<'_, R>,
    ) -> Result<(), Trouble> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if self.how.is_into_users {
            return users::put_file(place.fd(), place.name, |mut file| {
                fill(&mut file, content, members)?;
                Ok(attrs.set_on(file.as_fd())?)
            });
        }
        let make = || rustix::fs::openat(place.fd(), place.name, flags, Mode::RUSR | Mode::WUSR);
        let mut file = File::from(self.make(place, "make the file", make)?);
        fill(&mut file, content, members)?;
        attrs.set_on(file.as_fd())?;
        Ok(())
    }

    fn symlink(&mut self, place: &Place<'_>, attrs: &Attrs, target: &[u8]) -> Result<(), Trouble> {
        let limit = self.how.limits.max_path;
        if target.len() > limit {
            return Err(Problem::TooLong {
                what: "link target",
                limit,
            }
            .into());
        }
        let make = || rustix::fs::symlinkat(target, place.fd(), place.name);
        self.make(place, "make the symbolic link", make)?;
        Ok(attrs.set_at(place.fd(), place.name, false)?)
    }

    fn node(&mut self, place: &Place<'_>, attrs: &Attrs, kind: FileType, device: u64) -> Result<(), Trouble> {
        let action = if kind == FileType::Fifo {
            "make the FIFO"
        } else {
            "make the device node"
        };
        let make = || rustix::fs::mknodat(place.fd(), place.name, kind, Mode::RUSR | Mode::WUSR, device);
        self.make(place, action, make)?;
        Ok(attrs.set_at(place.fd(), place.name, true)?)
    }

    /// A second name for what this archive made already. The link's own header says nothing of attributes.
    fn hard_link(&mut self, place: &Place<'_>, target: &[u8]) -> Result<(), Trouble> {
        let shown = || EntryName::new(target);
        let names = components(target, "link target", self.how)?;
        let mut names = names.ok_or_else(|| Problem::LinkDotDot(shown()))?;
        let name = names.pop().ok_or_else(|| Problem::LinkTargetKind(shown()))?;
        let parent = self.walk(&names)?;
        if join(&parent, &name) == place.path() {
            return Err(Problem::LinkToSelf.into());
        }
        let missing = || Trouble::from(Problem::LinkTargetMissing(shown()));
        let parent = self.root.directory(&parent).map_err(|_| missing())?;
        match look_at(parent.as_fd(), &name).map_err(failed("look at the hard link's target"))? {
            Some(FileType::RegularFile | FileType::Symlink) => {}
            Some(_) => return Err(Problem::LinkTargetKind(shown()).into()),
            None => return Err(missing()),
        }
        let make = || rustix::fs::linkat(&parent, name.as_slice(), place.fd(), place.name, AtFlags::empty());
        match self.make(place, "make the hard link", make) {
            Err(Trouble::Failed((_, Errno::NOENT))) => Err(missing()),
            other => other,
        }
    }

    /// Makes the whiteouts and gives the directories their attributes.
    pub(super) fn finish(self) -> Result<Extracted, ApplyError> {
        self.ending.finish()
    }
}

/// The root itself may be listed, as a directory.
fn is_root(kind: &Kind) -> Result<(), Trouble> {
    match kind {
        Kind::Directory => Ok(()),
        _ => Err(Problem::Root.into()),
    }
}

/// The names of a path in an archive, without empty ones and `.`; `None` if there is a `..` in it.
fn components(path: &[u8], what: &'static str, how: &Extract<'_>) -> Result<Option<Components>, Problem> {
    let limit = how.limits.max_path;
    if path.contains(&0) {
        return Err(Problem::Nul(what));
    }
    let names = path.split(|b| *b == b'/').filter(|n| !matches!(*n, b"" | b"."));
    let names: Components = names.map(<[u8]>::to_vec).collect();
    match path.len() > limit {
        true => Err(Problem::TooLong { what, limit }),
        false if names.len() > how.limits.max_depth => Err(Problem::TooDeep(how.limits.max_depth)),
        false if names.iter().any(|n| n == b"..") => Ok(None),
        false => Ok(Some(names)),
    }
}
