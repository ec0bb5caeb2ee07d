//! `box bundle`: an image as a bundle that every runtime can run.

use std::fs;
use std::io::Read;
use std::path::Path;

use box_runner::bundle::{Command, default_config, find_user};
use box_store::{Image, Tree};

use crate::app::App;
use crate::cli::BundleArgs;
use crate::error::{EXIT_BOX, Failure};
use crate::user_files;

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where the root file system lies in a bundle.
const ROOT: &str = "rootfs";
/// The largest passwd or group that is read.
const LIMIT: u64 = 8 << 20;

/// Writes the image's root file system and a config.json into a directory that must be new or empty.
pub(super) fn run(app: &App, args: &BundleArgs) -> Result<u8, Failure> {
    let image = app.image(&args.image, EXIT_BOX)?;
    let layers = app.layers(&image)?;
    let directory = &args.directory;
    let fail = |e: std::io::Error| Failure::own(format!("cannot make {}: {e}", directory.display()));
    user_files::create_dir_all(directory).map_err(fail)?;
    if fs::read_dir(directory).map_err(fail)?.next().is_some() {
        return Err(Failure::own(format!("{} is not empty", directory.display()))
            .hint("name a directory that is not there yet"));
    }
    // First: an image that says nothing to run, or an unknown user, makes no bundle.
    let command = command(&image, &Tree::new(&layers))?;
    let rootfs = directory.join(ROOT);
    box_store::export::extract_rootfs(&layers, &rootfs).map_err(|e| Failure::of(EXIT_BOX, &e))?;
    let config = default_config(&command, Path::new(ROOT));
    let path = directory.join("config.json");
    let write = || -> std::io::Result<()> {
        let mut file = user_files::create(&path)?;
        std::io::Write::write_all(&mut file, format!("{config:#}\n").as_bytes())
    };
    write().map_err(|e| Failure::own(format!("cannot write {}: {e}", path.display())))?;
    Ok(0)
}

fn command(image: &Image, tree: &Tree) -> Result<Command, Failure> {
    let config = &image.config.config;
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let args = [list(&config.entrypoint), list(&config.cmd)].concat();
    if args.is_empty() {
        return Err(Failure::own("the image says no command to run").hint("give it a CMD"));
    }
    let mut env = config.env.clone();
    if !env.iter().any(|variable| variable.starts_with("PATH=")) {
        env.insert(0, DEFAULT_PATH.to_owned());
    }
    let (passwd, group) = (read(tree, "/etc/passwd")?, read(tree, "/etc/group")?);
    let user = find_user(&config.user, &passwd, &group);
    let cwd = match config.working_dir.as_str() {
        "" => "/".to_owned(),
        dir => dir.to_owned(),
    };
    Ok(Command {
        args,
        env,
        cwd,
        user: user.map_err(|reason| Failure::own(format!("user {:?}: {reason}", config.user)))?,
        hostname: "box".to_owned(),
    })
}

/// A file's text; none if there is none. A stranger's, so no more than is sensible.
fn read(tree: &Tree, path: &str) -> Result<String, Failure> {
    let fail = |e: &dyn std::fmt::Display| Failure::own(format!("{path} of the image: {e}"));
    let resolved = tree.resolve(Path::new(path), true)?;
    if resolved.entry.is_none() {
        return Ok(String::new());
    }
    let mut text = Vec::new();
    let file = tree.open_file(&resolved.path)?;
    file.take(LIMIT + 1)
        .read_to_end(&mut text)
        .map_err(|e| fail(&e))?;
    match text.len() as u64 > LIMIT {
        true => Err(fail(&format!("is larger than {LIMIT} bytes"))),
        false => Ok(String::from_utf8_lossy(&text).into_owned()),
    }
}
