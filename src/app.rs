//! What the commands share: the open store, who the user is, and how images are named and found. The environment is read here, and in
//! `values`, `credentials` and `registries`.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use box_runner::{BusAddress, Rootless, Runtime, RuntimeConfig, Systemd};
use box_store::{Digest, Image, ImageId, OverlayXattrs, Reference, Store, StoreOptions};

use crate::cli::Global;
use crate::error::{EXIT_BOX, Failure};
use crate::events::{self, Kind};
use crate::user_files;

/// A command's surroundings.
pub(crate) struct App {
    /// The open store.
    pub(crate) store: Store,
    /// The ordinary user's mapped ids; none for root.
    pub(crate) rootless: Option<Rootless>,
    cgroup_parent: Option<PathBuf>,
}

impl App {
    /// Enters the ordinary user's namespace where one is needed, and opens the store. `home` finds, for the store's root, the namespace that
    /// containers of this user are in already.
    pub(crate) fn open(
        global: &Global,
        home: impl FnOnce(&Path) -> Option<OwnedFd>,
    ) -> Result<Self, Failure> {
        let is_rootless = box_runner::needs_user_namespace();
        let root = match &global.root {
            Some(root) => root.clone(),
            None => default_root(!nix::unistd::geteuid().is_root())?,
        };
        let rootless = match is_rootless {
            false => None,
            true => Some(Self::enter(home(&root))?),
        };
        Self::open_in(&root, rootless, global.cgroup_parent.clone())
    }

    fn enter(home: Option<OwnedFd>) -> Result<Rootless, Failure> {
        let joined = home.map(|home| box_runner::join_user_namespace(home.as_fd()));
        match joined {
            Some(Ok(Some(joined))) => return Ok(joined),
            Some(Err(error)) => {
                let failure = Failure::of(EXIT_BOX, &error);
                return Err(failure.hint(
                    "the containers that run were started with another group (newgrp, sg); use that one, or stop them",
                ));
            }
            Some(Ok(None)) | None => {}
        }
        // What could not be joined is left alone. The tools that write the maps are started from here.
        let entered = user_files::with_umask(box_runner::enter_user_namespace);
        entered.map_err(|e| Failure::of(EXIT_BOX, &e))
    }

    /// Opens the store for a process that is in the right namespace already.
    pub(crate) fn open_in(
        root: &Path,
        rootless: Option<Rootless>,
        cgroup_parent: Option<PathBuf>,
    ) -> Result<Self, Failure> {
        let overlay_xattrs = if rootless.is_some() {
            OverlayXattrs::User
        } else {
            OverlayXattrs::Trusted
        };
        let options = StoreOptions {
            overlay_xattrs,
            has_single_id: rootless.as_ref().is_some_and(Rootless::has_single_id),
            ..StoreOptions::default()
        };
        let store = Store::open(root, options).map_err(|e| Failure::of(EXIT_BOX, &e))?;
        let app = Self {
            store,
            rootless,
            cgroup_parent,
        };
        app.reap()?;
        Ok(app)
    }

    /// The cgroup that containers get theirs under, if that was said.
    pub(crate) fn cgroup_parent(&self) -> Option<&Path> {
        self.cgroup_parent.as_deref()
    }

    /// Removes the cgroups, networks and volumes that a killed box left; its temporary files went when the store was opened.
    fn reap(&self) -> Result<(), Failure> {
        if self.rootless.is_none() {
            crate::networks::reap().map_err(|e| Failure::of(EXIT_BOX, &e))?;
        }
        let mark = self.store_mark()?;
        // Another store's containers are that store's to judge.
        let is_alive = |owner: &str| {
            owner
                .strip_prefix(&mark)
                .is_none_or(|own| self.store.owner_is_alive(own))
        };
        let reaped = box_runner::reap(self.cgroup_parent.as_deref(), self.rootless.is_some(), &is_alive);
        reaped.map_err(|e| Failure::of(EXIT_BOX, &e))?;
        self.store.reap_volumes().map_err(|e| Failure::of(EXIT_BOX, &e))
    }

    /// What starts containers; those that are kept are looked at and changed while they run.
    pub(crate) fn runtime(&self, is_keeping: bool) -> Result<Runtime, Failure> {
        let mark = self.store_mark()?;
        let owner = self.store.owner().map_err(|e| Failure::of(EXIT_BOX, &e))?;
        let owner = format!("{mark}{}", owner.as_str());
        let runtime = Runtime::new(RuntimeConfig {
            program: PathBuf::from("/proc/self/exe"),
            owner,
            rootless: self.rootless.is_some(),
            cgroup_parent: self.cgroup_parent.clone(),
            systemd: systemd(self.rootless.as_ref()),
            is_keeping,
        });
        runtime.map_err(|e| Failure::of(EXIT_BOX, &e))
    }

    /// Tells this store's containers from another's: eight digits that depend on where the store is.
    pub(crate) fn store_mark(&self) -> Result<String, Failure> {
        let root = self.store.layout().root();
        let place = root
            .metadata()
            .map_err(|e| Failure::own(format!("cannot look at {}: {e}", root.display())))?;
        let digest = Digest::of(format!("{}:{}", place.dev(), place.ino()).as_bytes());
        Ok(digest.hex().chars().take(8).collect())
    }

    /// The image of a name or id; `code` is the exit code when there is none.
    pub(crate) fn image(&self, text: &str, code: u8) -> Result<Image, Failure> {
        match self.store.resolve(text) {
            Ok(Some(image)) => Ok(image),
            Ok(None) => Err(
                Failure::new(code, format!("no image named {text:?} in the store")).hint(
                    "`box images` lists what is there; `box build`, `import` and `load` bring images in",
                ),
            ),
            Err(error) => Err(Failure::of(code, &error)),
        }
    }

    /// All names of an image.
    pub(crate) fn names_of(&self, image: &Image) -> Result<Vec<Reference>, Failure> {
        let names = self.store.names().map_err(|e| Failure::of(EXIT_BOX, &e))?;
        Ok(names
            .into_iter()
            .filter(|named| named.id == image.id)
            .map(|named| named.reference)
            .collect())
    }

    /// Parses the name and gives it to the image.
    pub(crate) fn tag(&self, name: &str, id: &ImageId) -> Result<(), Failure> {
        self.name(&reference(name)?, id)
    }

    /// Gives the name to the image.
    pub(crate) fn name(&self, name: &Reference, id: &ImageId) -> Result<(), Failure> {
        self.store.tag(name, id).map_err(|e| Failure::of(EXIT_BOX, &e))?;
        self.note_image("tag", id, &name.familiar());
        Ok(())
    }

    /// Notes that something happened to an image of this name.
    pub(crate) fn note_image(&self, action: &str, id: &ImageId, name: &str) {
        events::note(
            &self.store,
            Kind::Image,
            action,
            &id.to_string(),
            &[("name", name)],
        );
    }

    /// Each layer of an image with the bytes of its files.
    pub(crate) fn layer_sizes(&self, image: &Image) -> Result<Vec<(String, u64)>, Failure> {
        let size = |id: &box_store::DiffId| {
            let layer = self.store.layer(id).map_err(|e| Failure::of(EXIT_BOX, &e))?;
            Ok((id.to_string(), layer.map_or(0, |layer| layer.size())))
        };
        image.config.rootfs.diff_ids.iter().map(size).collect()
    }

    /// The bytes of the files of all layers.
    pub(crate) fn image_size(&self, image: &Image) -> Result<u64, Failure> {
        Ok(self.layer_sizes(image)?.iter().map(|(_, size)| size).sum())
    }

    /// An image's id as listings show it.
    pub(crate) fn shown_id(&self, id: &ImageId, whole: bool) -> String {
        if whole {
            id.to_string()
        } else {
            id.hex().chars().take(12).collect()
        }
    }

    /// An image's layers, bottom first.
    pub(crate) fn layers(&self, image: &Image) -> Result<Vec<box_store::Layer>, Failure> {
        self.store
            .image_layers(image)
            .map_err(|e| Failure::of(EXIT_BOX, &e))
    }
}

/// An image's name, checked.
pub(crate) fn reference(name: &str) -> Result<Reference, Failure> {
    Reference::parse(name).map_err(|e| Failure::of(EXIT_BOX, &e))
}

/// `/var/lib/box` for root; `$XDG_DATA_HOME/box`, else `~/.local/share/box`, for others.
fn default_root(rootless: bool) -> Result<PathBuf, Failure> {
    if !rootless {
        return Ok(PathBuf::from("/var/lib/box"));
    }
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let data = absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
    data.map(|data| data.join("box")).ok_or_else(|| {
        Failure::own("neither XDG_DATA_HOME nor HOME is set").hint("give --root, or set BOX_ROOT")
    })
}

/// The systemd that rules this user's cgroups, if there is one: root's where the machine was started by it, an ordinary user's where
/// a bus is said or is where it always is.
fn systemd(rootless: Option<&Rootless>) -> Option<Systemd> {
    let Some(rootless) = rootless else {
        let bus = BusAddress::Path(PathBuf::from("/run/dbus/system_bus_socket"));
        let is_there = Path::new("/run/systemd/system").is_dir();
        return is_there.then_some(Systemd { bus, is_users: false });
    };
    let said = std::env::var("DBUS_SESSION_BUS_ADDRESS").ok();
    let usual = || {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let runtime = runtime.filter(|path| path.is_absolute());
        let bus = runtime
            .unwrap_or_else(|| PathBuf::from(format!("/run/user/{}", rootless.user)))
            .join("bus");
        bus.exists().then_some(BusAddress::Path(bus))
    };
    let bus = said.and_then(|said| BusAddress::parse(&said)).or_else(usual)?;
    Some(Systemd { bus, is_users: true })
}

/// The longest file that is read whole, in bytes.
pub(crate) const MAX_FILE: u64 = 64 << 20;

/// The file's bytes; an error that names it.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |e: &dyn std::fmt::Display| Failure::own(format!("cannot read {}: {e}", path.display()));
    let file = std::fs::File::open(path).map_err(|e| failed(&e))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| failed(&e))?;
    match bytes.len() as u64 > MAX_FILE {
        true => Err(failed(&"it is longer than 64 MiB")),
        false => Ok(bytes),
    }
}
