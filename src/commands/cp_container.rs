//! `box cp` from and to containers. What has to be looked up in a container is looked up from within it (see [`FileCopy`]).

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use box_runner::{FileCopy, LimitsPolicy, Stdio, Stream};
use box_store::export::extract_tar;

use super::cp::{last_name, place};
use crate::app::App;
use crate::containers::{self, Container};
use crate::error::{EXIT_INPUT, Failure, runner_failure};
use crate::executor::Ids;
use crate::monitor::{self, Exec, Reply, Request};
use crate::mounts::{self, MountGuard};
use crate::step_mounts;

/// How a copy is made.
pub(super) struct How {
    /// Keep owners and setuid bits.
    pub(super) archive: bool,
    pub(super) follow_link: bool,
}

/// From the container to the host; `dest` is none for a tar on standard output.
pub(super) fn out(
    app: &App,
    container: &Container,
    path: &str,
    dest: Option<&Path>,
    how: &How,
) -> Result<(), Failure> {
    let name = PathBuf::from(last_name(path).unwrap_or_default());
    let mut copy = FileCopy::Out {
        path: absolute(path),
        name: name.clone(),
        follow: how.follow_link || path.ends_with('/'),
        owner: (!how.archive && dest.is_some())
            .then(|| (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw())),
    };
    let Some(dest) = dest else {
        return copying(app, container, copy, |_, from| {
            let mut to = io::stdout().lock();
            io::copy(from, &mut to)
                .and_then(|_| to.flush())
                .map_err(|e| e.to_string())
        });
    };
    // Into a directory that is there under its own name, else it is called as `dest` says.
    let is_content = name.as_os_str().is_empty();
    let mut subtree = box_store::export::Subtree {
        name,
        ..Default::default()
    };
    if is_content {
        crate::user_files::create_dir_all(dest)
            .map_err(|e| Failure::own(format!("cannot copy to {}: {e}", dest.display())))?;
    }
    let directory = place(dest, is_content || dest.is_dir(), &mut subtree)?;
    if let FileCopy::Out { name, .. } = &mut copy {
        *name = if is_content { PathBuf::new() } else { subtree.name };
    }
    copying(app, container, copy, |_, from| {
        extract_tar(from, &directory).map_err(|e| format!("cannot copy to {}: {e}", dest.display()))
    })
}

/// From the host into the container; `source` is none for a tar from standard input.
pub(super) fn into(
    app: &App,
    container: &Container,
    source: Option<&Path>,
    dest: &str,
    how: &How,
) -> Result<(), Failure> {
    let Some(source) = source else {
        let copy = FileCopy::Unpack { dest: absolute(dest) };
        return copying(app, container, copy, |to, _| {
            io::copy(&mut io::stdin().lock(), to)
                .map(drop)
                .map_err(|e| e.to_string())
        });
    };
    let fail = |e: io::Error| Failure::input(format!("cannot read {}: {e}", source.display()));
    let text = source.to_string_lossy();
    let is_content = text.ends_with("/.") || text == ".";
    let follow = how.follow_link || text.ends_with('/') || is_content;
    let found = if follow {
        source.metadata()
    } else {
        source.symlink_metadata()
    }
    .map_err(fail)?;
    let real = if follow {
        std::fs::canonicalize(source).map_err(fail)?
    } else {
        source.to_owned()
    };
    let name = match (is_content, real.file_name()) {
        (false, Some(name)) => PathBuf::from(name),
        // What is in it goes into the directory itself.
        _ => PathBuf::from("."),
    };
    let copy = FileCopy::In {
        dest: absolute(dest),
        name,
        is_dir: found.is_dir(),
    };
    let owner = (!how.archive).then_some((0, 0));
    copying(app, container, copy, |to, _| {
        pack(&real, owner, to).map_err(|e| format!("cannot read {}: {e}", source.display()))
    })
}

fn absolute(path: &str) -> PathBuf {
    Path::new("/").join(path)
}

/// A tar of a file or a directory, in which every path begins with the same name.
fn pack(source: &Path, owner: Option<(u32, u32)>, to: &mut dyn Write) -> io::Result<()> {
    let mut tar = tar::Builder::new(BufWriter::with_capacity(1 << 18, to));
    for entry in walkdir::WalkDir::new(source).sort_by_file_name() {
        let entry = entry?;
        let metadata = entry.path().symlink_metadata()?;
        let below = entry.path().strip_prefix(source).unwrap_or(Path::new(""));
        // Joined with nothing it would end as a directory does.
        let name = match below.as_os_str().is_empty() {
            true => PathBuf::from("copy"),
            false => Path::new("copy").join(below),
        };
        let mut header = tar::Header::new_gnu();
        header.set_metadata(&metadata);
        if let Some((uid, gid)) = owner {
            header.set_uid(uid.into());
            header.set_gid(gid.into());
        }
        let kind = metadata.file_type();
        if kind.is_symlink() {
            header.set_size(0);
            tar.append_link(&mut header, name, std::fs::read_link(entry.path())?)?;
        } else if kind.is_file() {
            let file = File::open(entry.path())?;
            let length = file.metadata()?.len();
            header.set_size(length);
            tar.append_data(&mut header, name, file.take(length))?;
        } else if header.entry_type() != tar::EntryType::Regular {
            header.set_size(0);
            tar.append_data(&mut header, name, io::empty())?;
        }
    }
    tar.into_inner()?.flush()
}

/// Has it copied by a process in the container, while `work` writes what it reads, or reads what it writes.
fn copying(
    app: &App,
    container: &Container,
    copy: FileCopy,
    work: impl FnOnce(&mut dyn Write, &mut dyn Read) -> Result<(), String>,
) -> Result<(), Failure> {
    let pipe = || io::pipe().map_err(|e| Failure::own(format!("cannot make a pipe: {e}")));
    let ((stdin, mut to), (mut from, stdout), (mut errors, stderr)) = (pipe()?, pipe()?, pipe()?);
    let started = Started::new(app, container, copy, [stdin.into(), stdout.into(), stderr.into()])?;
    let listening = std::thread::spawn(move || {
        let mut text = String::new();
        // What is wrong with a message is not what is wrong.
        let _ = errors.by_ref().take(1 << 16).read_to_string(&mut text);
        text
    });
    let worked = work(&mut to, &mut from);
    drop((to, from));
    let code = started.wait()?;
    let message = listening.join().unwrap_or_default();
    match (code, worked) {
        (0, Ok(())) => Ok(()),
        // It knows better what was wrong than whoever met the end of the pipe.
        (1.., _) if !message.is_empty() => Err(Failure::new(
            EXIT_INPUT,
            format!("in {}: {message}", container.config.name),
        )),
        (_, Err(message)) => Err(Failure::own(message)),
        (code, _) => Err(Failure::own(format!("the process that copies ended with {code}"))),
    }
}

/// The process that copies.
enum Started {
    /// In a container that runs.
    Asked(monitor::Connection),
    /// In one of its own, on the root file system of one that does not.
    Own(Box<(box_runner::Running, box_store::LockGuard, Ids, MountGuard)>),
}

impl Started {
    fn new(
        app: &App,
        container: &Container,
        copy: FileCopy,
        streams: [std::os::fd::OwnedFd; 3],
    ) -> Result<Self, Failure> {
        if let Some(connection) = monitor::connect(app, container)? {
            let exec = Exec::copying(copy.clone());
            let fds: Vec<_> = streams.iter().map(AsFd::as_fd).collect();
            if connection.ask(&Request::Exec(exec), &fds)?.is_some() {
                return Ok(Self::Asked(connection));
            }
        }
        Self::own(app, container, copy, streams)
    }

    fn own(
        app: &App,
        container: &Container,
        copy: FileCopy,
        streams: [std::os::fd::OwnedFd; 3],
    ) -> Result<Self, Failure> {
        // Nobody starts it meanwhile.
        let lock = containers::lock(app, &container.id)?;
        let runtime = app.runtime(false)?;
        let layers = container.layers(app)?;
        let plan = &container.config.mounts;
        let pages: BTreeSet<u32> =
            containers::id_pages(layers.iter().chain(&mounts::image_layers(app, plan)?));
        let ids = containers::ids(app, &runtime, &container.config.namespaces.user, &pages)?;
        let dirs = containers::dirs(app, container, &layers)?;
        let root_fs = step_mounts::root_fs(&dirs, container.is_transient, container.config.read_only);
        let mut spec = containers::spec(
            &container.config,
            containers::short(&container.id),
            root_fs,
            (&ids.namespace, None),
        )?;
        let opening = mounts::Opening {
            layers: &layers,
            is_fleeting: container.is_transient,
        };
        let (mounted, guard) = mounts::open(app, plan, &opening)?;
        spec.mounts = mounted;
        containers::copy_instead(&mut spec, copy);
        containers::alone(&mut spec);
        spec.limits_policy = LimitsPolicy::BestEffort;
        let [stdin, stdout, stderr] = streams.map(Stream::Fd);
        let running = runtime.spawn(
            &spec,
            &ids.namespace,
            Stdio {
                stdin,
                stdout,
                stderr,
            },
        );
        let running = running.map_err(|e| runner_failure(&e))?;
        Ok(Self::Own(Box::new((running, lock, ids, guard))))
    }

    fn wait(self) -> Result<i32, Failure> {
        match self {
            Self::Asked(connection) => match connection.answer()? {
                Some((Reply::Exited { code, .. }, _)) => Ok(code),
                _ => Err(Failure::own("the container ended while files were copied")),
            },
            Self::Own(own) => {
                let (running, lock, ids, guard) = *own;
                let outcome = running.wait().map_err(|e| runner_failure(&e))?;
                drop((lock, ids, guard));
                Ok(outcome.status.code())
            }
        }
    }
}
