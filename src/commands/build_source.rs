//! Where a build's files come from: a directory, standard input, a URL or a git repository. What is not a directory becomes a
//! layer of the store, whose tree is read in place as any context is.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use box_builder::exec::CancelToken;
use box_builder::git::{GitError, Wanted};
use box_builder::git_ref::GitRef;
use box_builder::source::Source;
use box_builder::url::without_credentials;
use box_store::layer::apply::is_archive;
use box_store::scratch::Scratch;
use box_store::snapshot::PrepareOptions;
use box_store::transfer::Progress;
use box_store::tree::Tree;
use box_store::{ApplyOptions, Layer};

use crate::app::{self, App};
use crate::cli::{ProgressMode, SourceArgs};
use crate::error::{EXIT_BOX, EXIT_INPUT, Failure};
use crate::ui;

use super::import;

/// What a context's Boxfile may be called, in the order they are looked for.
const BOXFILES: [&str; 3] = ["Boxfile", "Containerfile", "Dockerfile"];
/// What a Boxfile's ignore file is called beside it.
const IGNORE_SUFFIXES: [&str; 2] = [".boxignore", ".dockerignore"];

/// What a build reads.
pub(super) struct BuildSource {
    /// The Boxfile.
    pub(super) boxfile: Source,
    /// The context.
    pub(super) directory: PathBuf,
    /// What replaces the context's own ignore file.
    pub(super) ignore: Option<Source>,
    /// What the directories are the trees of: their place is good as long as there is a handle.
    pub(super) layers: Vec<Layer>,
    /// Where the context is empty, and made for this build.
    _empty: Option<Scratch>,
}

/// A context's address.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    Directory(PathBuf),
    Stdin,
    Url(String),
    Git(Box<GitRef>),
}

impl Place {
    /// As Docker tells them apart; a directory that is there goes before a guess.
    pub(super) fn parse(path: &Path) -> Result<Place, Failure> {
        let directory = || Ok(Place::Directory(path.to_owned()));
        let Some(text) = path.to_str() else {
            return directory();
        };
        if text == "-" {
            return Ok(Place::Stdin);
        }
        match GitRef::parse(text) {
            Ok(Some(git)) if git.ambiguous && path.exists() => directory(),
            Ok(Some(mut git)) => {
                if git.ambiguous {
                    git.remote = format!("https://{}", git.remote);
                }
                Ok(Place::Git(Box::new(git)))
            }
            Ok(None) if text.starts_with("http://") || text.starts_with("https://") => {
                Ok(Place::Url(text.to_owned()))
            }
            Ok(None) => directory(),
            Err(error) => Err(Failure::of(EXIT_BOX, &error)),
        }
    }
}

/// Gets what a build reads.
pub(super) fn gather(fetching: &Fetching<'_>, args: &SourceArgs) -> Result<BuildSource, Failure> {
    let is_stdin = args.file.as_ref().is_some_and(|file| file.as_os_str() == "-");
    let context = args.context()?;
    match Place::parse(context)? {
        Place::Stdin if is_stdin => Err(Failure::own(
            "the Boxfile and the context can't both come from standard input",
        )),
        Place::Directory(directory) if !directory.is_dir() => Err(Failure::own(format!(
            "the build context {} is no directory",
            directory.display()
        ))
        .hint("a context is a directory, - for standard input, the URL of an archive, or a git repository")),
        Place::Directory(directory) if is_stdin => Ok(BuildSource {
            boxfile: stdin_boxfile(io::stdin().lock())?,
            directory,
            ignore: None,
            layers: Vec::new(),
            _empty: None,
        }),
        Place::Directory(directory) => local(args, directory),
        Place::Stdin => {
            let (scratch, file) = fetching.spool()?;
            fetching.archive_or_boxfile(args, "standard input", file, scratch)
        }
        Place::Url(url) => {
            let file = fetching.fetch(&url)?;
            let scratch = fetching
                .app
                .store
                .scratch()
                .map_err(|e| Failure::of(EXIT_BOX, &e))?;
            fetching.archive_or_boxfile(args, &without_credentials(&url), file, scratch)
        }
        Place::Git(git) => {
            let layer = fetching.check_out(&git)?;
            inside(args, &layer, &without_credentials(&context.to_string_lossy()))
        }
    }
}

/// The layer of a named context that is elsewhere; its tree is the context as long as there is a handle.
pub(super) fn named(fetching: &Fetching<'_>, place: &Place) -> Result<Option<Layer>, Failure> {
    let layer = match place {
        Place::Directory(_) | Place::Stdin => return Ok(None),
        Place::Git(git) => fetching.check_out(git)?,
        Place::Url(url) => {
            let file = fetching.fetch(url)?;
            let shown = without_credentials(url);
            if !starts_an_archive(&file, &shown)? {
                return Err(Failure::input(format!("{shown} is no archive"))
                    .hint("a context at a URL is a tar archive, plain or as gzip, bzip2, xz or zstd"));
            }
            fetching.unpack(file, &shown)?
        }
    };
    Ok(Some(layer))
}

/// A build in a directory, with the Boxfile where -f says, or in it.
fn local(args: &SourceArgs, directory: PathBuf) -> Result<BuildSource, Failure> {
    let file = boxfile(args, &directory).ok_or_else(|| no_boxfile(&directory.display().to_string()))?;
    Ok(BuildSource {
        boxfile: Source::new(file.display().to_string(), app::read_file(&file)?),
        ignore: beside(args, &file, &directory)?,
        directory,
        layers: Vec::new(),
        _empty: None,
    })
}

/// The ignore file that stands beside the Boxfile, if there are both.
pub(super) fn own_ignore(args: &SourceArgs, directory: &Path) -> Result<Option<Source>, Failure> {
    match boxfile(args, directory) {
        Some(file) => beside(args, &file, directory),
        None => Ok(None),
    }
}

fn boxfile(args: &SourceArgs, directory: &Path) -> Option<PathBuf> {
    let found = || {
        let mut paths = BOXFILES.iter().map(|name| directory.join(name));
        paths.find(|path| is_inside(path, directory))
    };
    args.file.clone().or_else(found)
}

fn beside(args: &SourceArgs, file: &Path, directory: &Path) -> Result<Option<Source>, Failure> {
    for suffix in IGNORE_SUFFIXES {
        let mut path = file.as_os_str().to_owned();
        path.push(suffix);
        let path = PathBuf::from(path);
        if path.is_file() && (args.file.is_some() || is_inside(&path, directory)) {
            return Ok(Some(Source::new(
                path.display().to_string(),
                app::read_file(&path)?,
            )));
        }
    }
    Ok(None)
}

/// A build in a layer's tree, with the Boxfile in it, too. Links are followed inside of it alone.
fn inside(args: &SourceArgs, layer: &Layer, name: &str) -> Result<BuildSource, Failure> {
    let tree = Tree::new(std::slice::from_ref(layer));
    let read = |path: &Path| -> Result<Option<Source>, Failure> {
        let fail = |e: box_store::error::StoreError| Failure::of(EXIT_INPUT, &e);
        let found = tree.resolve(path, true).map_err(fail)?;
        let is_file =
            |entry: &box_store::tree::TreeEntry| entry.metadata.kind == box_store::beneath::Kind::File;
        if !found.entry.as_ref().is_some_and(is_file) {
            return Ok(None);
        }
        let file = tree.open_file(&found.path).map_err(fail)?;
        Ok(Some(read_boxfile(file, &path.display().to_string())?))
    };
    let names: Vec<PathBuf> = match &args.file {
        Some(file) => vec![file.clone()],
        None => BOXFILES.iter().map(PathBuf::from).collect(),
    };
    for path in names {
        let Some(boxfile) = read(&path)? else { continue };
        let mut ignore = None;
        for suffix in IGNORE_SUFFIXES {
            if ignore.is_none() {
                let mut beside = path.as_os_str().to_owned();
                beside.push(suffix);
                ignore = read(Path::new(&beside))?;
            }
        }
        return Ok(BuildSource {
            boxfile,
            directory: layer.path().to_owned(),
            ignore,
            layers: vec![layer.clone()],
            _empty: None,
        });
    }
    match &args.file {
        Some(file) => Err(Failure::own(format!("no {} in {name}", file.display()))),
        None => Err(no_boxfile(name)),
    }
}

/// Whether a path is a file of the directory, links followed: a context may be a stranger's.
fn is_inside(path: &Path, directory: &Path) -> bool {
    match (path.canonicalize(), directory.canonicalize()) {
        (Ok(path), Ok(directory)) => path.is_file() && path.starts_with(directory),
        _ => false,
    }
}

fn no_boxfile(place: &str) -> Failure {
    Failure::own(format!("no {} in {place}", BOXFILES.join(", no "))).hint("name the file with -f")
}

fn stdin_boxfile(stdin: impl Read) -> Result<Source, Failure> {
    read_boxfile(stdin, "<stdin>")
}

fn read_boxfile(file: impl Read, name: &str) -> Result<Source, Failure> {
    let mut bytes = Vec::new();
    file.take(app::MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Failure::input(format!("cannot read {name}: {e}")))?;
    if bytes.len() as u64 > app::MAX_FILE {
        return Err(Failure::input(format!("{name} is longer than 64 MiB")));
    }
    Ok(Source::new(name, bytes))
}

fn starts_an_archive(mut file: &File, name: &str) -> Result<bool, Failure> {
    let failed = |e| Failure::input(format!("cannot read {name}: {e}"));
    file.rewind().map_err(failed)?;
    let is_archive = is_archive(file);
    file.rewind().map_err(failed)?;
    Ok(is_archive)
}

/// How what is elsewhere is fetched.
pub(super) struct Fetching<'a> {
    pub(super) app: &'a App,
    pub(super) mode: ProgressMode,
    pub(super) cancel: &'a CancelToken,
}

impl Fetching<'_> {
    /// Standard input as a file, to be read twice.
    fn spool(&self) -> Result<(Scratch, File), Failure> {
        let scratch = self.app.store.scratch().map_err(|e| Failure::of(EXIT_BOX, &e))?;
        let path = scratch.path().join("stdin");
        let failed = |e| Failure::own(format!("cannot keep standard input in {}: {e}", path.display()));
        let mut options = File::options();
        let mut file = options
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(failed)?;
        io::copy(&mut io::stdin().lock(), &mut file).map_err(failed)?;
        std::fs::remove_file(&path).map_err(failed)?;
        Ok((scratch, file))
    }

    fn fetch(&self, url: &str) -> Result<File, Failure> {
        let progress = Stoppable {
            transfer: ui::Transfer::new(self.mode),
            cancel: self.cancel,
        };
        import::fetch(self.app, url, None, &progress)
    }

    fn check_out(&self, git: &GitRef) -> Result<Layer, Failure> {
        let progress = ui::Transfer::new(self.mode);
        progress.start(None);
        let wanted = Wanted {
            address: git,
            keep_git_dir: git.keep_git_dir.unwrap_or(false),
        };
        let checkout = wanted.checkout(&self.app.store, &PrepareOptions::default(), self.cancel);
        progress.finish();
        match checkout {
            Ok(checkout) => Ok(checkout.layer),
            Err(error @ GitError::NotInstalled { .. }) => {
                Err(Failure::of(EXIT_BOX, &error).hint("install git, or build a directory"))
            }
            Err(error) => Err(Failure::of(EXIT_INPUT, &error)),
        }
    }

    fn unpack(&self, file: File, name: &str) -> Result<Layer, Failure> {
        let unpacked = self.app.store.apply_archive(file, &ApplyOptions::default());
        let layer = unpacked.map_err(|e| Failure::input(format!("cannot unpack {name}: {e}")))?;
        Ok(layer)
    }

    /// What is an archive is the context; anything else is a Boxfile, whose context is empty.
    fn archive_or_boxfile(
        &self,
        args: &SourceArgs,
        name: &str,
        file: File,
        scratch: Scratch,
    ) -> Result<BuildSource, Failure> {
        if starts_an_archive(&file, name)? {
            let layer = self.unpack(file, name)?;
            return inside(args, &layer, name);
        }
        if let Some(path) = &args.file {
            let message = format!("{name} is no archive that could hold {}", path.display());
            return Err(Failure::own(message).hint("leave -f out if it is the Boxfile itself"));
        }
        let name = if name == "standard input" { "<stdin>" } else { name };
        Ok(BuildSource {
            boxfile: read_boxfile(file, name)?,
            directory: scratch.path().to_owned(),
            ignore: None,
            layers: Vec::new(),
            _empty: Some(scratch),
        })
    }
}

/// A transfer that Ctrl-C ends.
struct Stoppable<'a> {
    transfer: ui::Transfer,
    cancel: &'a CancelToken,
}

impl Progress for Stoppable<'_> {
    fn start(&self, total: Option<u64>) {
        self.transfer.start(total);
    }

    fn advance(&self, bytes: u64) {
        self.transfer.advance(bytes);
    }

    fn finish(&self) {
        self.transfer.finish();
    }

    fn cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        Place::parse(Path::new(text)).unwrap_or_else(|failure| panic!("{}", failure.message()))
    }

    #[test]
    fn places_are_told_apart() {
        assert_eq!(place("-"), Place::Stdin);
        assert_eq!(place("."), Place::Directory(".".into()));
        assert_eq!(place("no/such.git"), Place::Directory("no/such.git".into()));
        let url = "https://host/a.tar";
        assert_eq!(place(url), Place::Url(url.into()));
        for (text, remote) in [
            ("https://host/a.git#main:sub", "https://host/a.git"),
            ("git@host:a.git", "git@host:a.git"),
            ("ssh://host/a", "ssh://host/a"),
            ("github.com/a/b", "https://github.com/a/b"),
        ] {
            let Place::Git(git) = place(text) else {
                panic!("{text} is no repository");
            };
            assert_eq!(git.remote, remote);
        }
        assert!(Place::parse(Path::new("https://host/a.git?x=y")).is_err());
    }
}
