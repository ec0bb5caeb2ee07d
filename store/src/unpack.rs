//! Archives become layers of the store.
//!
//! A root file system's archive is known by what is in it: its layer's digest is that of the canonical tar, so that the
//! same tree gives the same layer however it was packed. A layer of an image has its digest given: the bytes must
//! hash to it, and its tree is kept beside it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::beneath;
use crate::digest::{DiffId, Digest, Hasher};
use crate::error::{IoContext, StoreError};
use crate::layer::ahead::read_ahead;
use crate::layer::apply::{ApplyError, Extract, Extracted, Limits, Retime, RootAttrs, Source, Time, extract};
use crate::layer::decompress::Decompressor;
use crate::layer::survey::survey;
use crate::layer::{DirAttrs, Draft, Layer, LayerTimes};
use crate::stamp::Stamp;
use crate::store::Store;
use crate::trash::TempDir;

/// What an archive may ask for.
#[derive(Debug, Clone, Default)]
pub struct ApplyOptions {
    /// How much of everything.
    pub limits: Limits,
}

/// An archive that became a layer.
#[derive(Debug)]
pub struct AppliedArchive {
    /// Its layer.
    pub layer: Layer,
    /// Directories that it has entries below but does not list, sorted; relative to the root. The layer has them, 0755 and root's.
    pub implied: Vec<PathBuf>,
}

/// What an image says of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerBlob {
    /// The digest of the uncompressed archive (the config's `diff_ids`).
    pub diff_id: DiffId,
    /// The digest of the bytes as they are (the manifest's descriptor); checked where it is given.
    pub digest: Option<Digest>,
    /// For a layer that box made (its history entry says so): its logical time, in seconds since 1970. Its entries of
    /// that time get the time of the import on disk, so that later layers stay newer than earlier ones.
    pub logical_time: Option<i64>,
}

impl Store {
    /// Makes a layer of a root file system's archive: tar, plain or as gzip, xz, zstd or bzip2, told by its first bytes.
    ///
    /// # Errors
    /// See [`ApplyError`]; nothing is left of the archive then.
    pub fn apply_archive(&self, archive: impl Read, options: &ApplyOptions) -> Result<Layer, ApplyError> {
        Ok(self.apply_archive_listing(archive, options)?.layer)
    }

    /// The same, and tells which directories the archive does not list.
    ///
    /// # Errors
    /// As [`Store::apply_archive`].
    pub fn apply_archive_listing(
        &self,
        archive: impl Read,
        options: &ApplyOptions,
    ) -> Result<AppliedArchive, ApplyError> {
        let how = Extract {
            is_into_users: false,
            source: Source::Rootfs,
            limits: &options.limits,
            retime: None,
        };
        let place = Place::new(self)?;
        let mut plain = Decompressor::new(archive).map_err(unreadable)?;
        let mut extracted = extract_beside(&mut plain, &how, &place)?;
        // There is nothing below: what is implied, or is as it would be anyway, is as good as listed.
        let implied = std::mem::take(&mut extracted.implied).into_iter().map(path);
        let implied = implied.collect();
        extracted.root = extracted.root.filter(|root| !is_default(root));
        let layer = place.adopt(self, LayerTimes::kept(), extracted, None)?;
        Ok(AppliedArchive { layer, implied })
    }

    /// Makes a layer of an image's layer archive. Nothing is read if the layer is here already.
    ///
    /// # Errors
    /// See [`ApplyError`]; in particular if the bytes have another digest than they should. Nothing is left then.
    pub fn apply_blob(
        &self,
        blob: impl Read,
        about: &LayerBlob,
        options: &ApplyOptions,
    ) -> Result<Layer, ApplyError> {
        self.apply_blob_at(blob, about, options, Stamp::now())
    }

    /// The same; entries of the layer's logical time get this time on disk.
    pub(crate) fn apply_blob_at(
        &self,
        blob: impl Read,
        about: &LayerBlob,
        options: &ApplyOptions,
        time: Stamp,
    ) -> Result<Layer, ApplyError> {
        let _once = self.lock("apply", &about.diff_id.0)?;
        if let Some(layer) = self.layer(&about.diff_id)? {
            return Ok(layer);
        }
        let opaque_xattr = self.overlay_xattrs().opaque();
        let retime = about.logical_time.map(|logical| retime(logical, time));
        let how = Extract {
            is_into_users: false,
            source: Source::Layer { opaque_xattr },
            limits: &options.limits,
            retime,
        };
        let place = Place::new(self)?;
        let extracted = extract_checked(blob, about, &how, &place)?;
        let times = retime.map_or_else(LayerTimes::kept, |retime| imported(&retime, &extracted));
        let layer = place.adopt(self, times, extracted, Some(about.diff_id))?;
        layer.diff_id()?;
        Ok(layer)
    }
}

/// Extracts while both streams are hashed, and compares.
fn extract_checked(
    blob: impl Read,
    about: &LayerBlob,
    how: &Extract<'_>,
    place: &Place,
) -> Result<Extracted, ApplyError> {
    let mut packed = Hashed::new(blob);
    let mut plain = Hashed::new(Decompressor::new(&mut packed).map_err(unreadable)?);
    let extracted = extract_beside(&mut plain, how, place)?;
    let found = DiffId(plain.hasher.finish());
    plain.inner.drain_input().map_err(unreadable)?;
    let digest = packed.hasher.finish();
    match about.digest {
        Some(expected) if expected != digest => Err(ApplyError::Blob {
            expected,
            found: digest,
        }),
        _ if about.diff_id != found => Err(ApplyError::DiffId {
            expected: about.diff_id,
            found,
        }),
        _ => Ok(extracted),
    }
}

/// Extracts on another thread what is decompressed on this one.
fn extract_beside(plain: &mut impl Read, how: &Extract<'_>, place: &Place) -> Result<Extracted, ApplyError> {
    let dir = place.dir.as_fd();
    let extracted = read_ahead(plain, |plain| {
        extract(dir, plain, how).map(|(extracted, _)| extracted)
    });
    // A panic there is one here.
    extracted.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn unreadable(source: io::Error) -> ApplyError {
    ApplyError::Read { offset: 0, source }
}

/// A stream that is hashed as it is read.
struct Hashed<R> {
    inner: R,
    hasher: Hasher,
}

impl<R> Hashed<R> {
    fn new(inner: R) -> Hashed<R> {
        Hashed {
            inner,
            hasher: Hasher::new(),
        }
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hasher.update(&buf[..n]);
        Ok(n)
    }
}

/// An empty tree in the temporary directory; gone with the handle unless it was adopted.
struct Place {
    temp: TempDir,
    tree: PathBuf,
    dir: std::os::fd::OwnedFd,
}

impl Place {
    fn new(store: &Store) -> Result<Place, StoreError> {
        let (root, _) = store.parts();
        let temp = root.temp_dir()?;
        let tree = temp.path().join("tree");
        root.disk.make_dir(&tree)?;
        let dir = beneath::open_root(&tree).at("open", &tree)?;
        Ok(Place { temp, tree, dir })
    }

    fn adopt(
        self,
        store: &Store,
        times: LayerTimes,
        extracted: Extracted,
        diff_id: Option<DiffId>,
    ) -> Result<Layer, ApplyError> {
        let implied = extracted.implied.into_iter().map(path).collect();
        let mut facts = survey(&self.dir, times, extracted.root.map(dir_attrs), implied)?;
        facts.opaque = Some(extracted.opaque.iter().filter(|path| !path.is_empty()).count() as u64);
        facts.hides_below = extracted.opaque.iter().any(Vec::is_empty);
        let draft = Draft {
            temp: self.temp,
            tree: self.tree,
            facts,
            diff_id,
        };
        Ok(store.parts().1.adopt(draft)?)
    }
}

fn retime(logical: i64, now: Stamp) -> Retime {
    Retime {
        from: Time {
            seconds: logical,
            nanoseconds: 0,
        },
        to: Time {
            seconds: now.sec,
            nanoseconds: now.nsec,
        },
    }
}

/// What the entries of the layer's own time got becomes that time again in the canonical tar, and nothing else does.
fn imported(retime: &Retime, extracted: &Extracted) -> LayerTimes {
    let start = stamp(&retime.to);
    let kept = extracted.late.iter().map(|time| (stamp(time), time.seconds));
    LayerTimes {
        logical: retime.from.seconds,
        threshold: Some(start.sec),
        start,
        clamp: None,
        exceptions: kept.collect::<BTreeMap<_, _>>(),
    }
}

fn stamp(time: &Time) -> Stamp {
    Stamp::new(time.seconds, time.nanoseconds)
}

fn is_default(root: &RootAttrs) -> bool {
    dir_attrs(root.clone()) == DirAttrs::default()
}

fn dir_attrs(root: RootAttrs) -> DirAttrs {
    let RootAttrs {
        mode,
        uid,
        gid,
        xattrs,
    } = root;
    let xattrs = xattrs
        .into_iter()
        .map(|(name, value)| (OsString::from_vec(name), value));
    DirAttrs {
        mode,
        uid,
        gid,
        xattrs: xattrs.collect(),
    }
}

fn path(bytes: Vec<u8>) -> PathBuf {
    Path::new(&OsString::from_vec(bytes)).to_owned()
}

mod order;

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;
    use crate::layer::apply::archive::{Archive, Head};
    use crate::root::StoreOptions;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store"), StoreOptions::default()).unwrap();
        (dir, store)
    }

    fn tree() -> Vec<u8> {
        Archive::default()
            .dir("etc")
            .head(Head {
                name: b"etc/passwd",
                data: b"root",
                mode: 0o600,
                mtime: 5,
                ..Head::default()
            })
            .hard("etc/passwd-", "etc/passwd")
            .sym("bin", "usr/bin")
            .end()
    }

    fn packed(tar: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(tar).unwrap();
        let mut xz = xz2::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(tar).unwrap();
        let mut bz = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bz.write_all(tar).unwrap();
        vec![
            ("tar", tar.to_vec()),
            ("gz", gz.finish().unwrap()),
            ("xz", xz.finish().unwrap()),
            ("bz2", bz.finish().unwrap()),
            ("zst", zstd::encode_all(tar, 1).unwrap()),
        ]
    }

    fn is_clean(store: &Store) -> bool {
        let tmp = store.layout().tmp();
        fs::read_dir(tmp)
            .unwrap()
            .all(|entry| match entry.unwrap().path() {
                path if path.is_dir() => fs::read_dir(path).unwrap().next().is_none(),
                _ => true,
            })
    }

    #[test]
    fn one_tree_is_one_layer_however_it_is_packed() {
        let (_dir, store) = store();
        let first = store
            .apply_archive(&tree()[..], &ApplyOptions::default())
            .unwrap()
            .diff_id()
            .unwrap();
        for (kind, bytes) in packed(&tree()) {
            let (_dir, other) = self::store();
            let layer = other.apply_archive(&bytes[..], &ApplyOptions::default()).unwrap();
            assert_eq!(layer.diff_id().unwrap(), first, "{kind}");
            assert!(layer.path().join("etc/passwd").is_file());
        }
        // In another order, with other names for the same things, and with the root listed.
        let other = Archive::default()
            .dir("./")
            .sym("./bin", "usr/bin")
            .dir("/etc/")
            .head(Head {
                name: b"etc/passwd-",
                data: b"root",
                mode: 0o600,
                mtime: 5,
                ..Head::default()
            })
            .hard("/etc/passwd", "./etc/passwd-")
            .end();
        let layer = store.apply_archive(&other[..], &ApplyOptions::default()).unwrap();
        assert_eq!(layer.diff_id().unwrap(), first);
        drop(layer);
        assert!(is_clean(&store));
    }

    #[test]
    fn what_fails_leaves_nothing() {
        let (_dir, store) = store();
        let bad = Archive::default()
            .dir("d")
            .file("d/f", b"x")
            .file("../x", b"")
            .end();
        for (kind, bytes) in packed(&bad) {
            assert!(
                store.apply_archive(&bytes[..], &ApplyOptions::default()).is_err(),
                "{kind}"
            );
            assert!(
                store
                    .apply_archive(&bytes[..bytes.len() / 2], &ApplyOptions::default())
                    .is_err(),
                "{kind}"
            );
            assert!(is_clean(&store), "{kind}");
        }
        assert_eq!(
            fs::read_dir(store.layout().root().join("layers"))
                .unwrap()
                .count(),
            0
        );
    }

    #[test]
    fn a_bomb_is_stopped_by_its_limit() {
        let (_dir, store) = store();
        let zeros = vec![0; 8 << 20];
        let tar = Archive::default().file("bomb", &zeros).end();
        let options = ApplyOptions {
            limits: Limits {
                max_expanded: 1 << 20,
                ..Limits::default()
            },
        };
        for (kind, bytes) in packed(&tar) {
            let error = store.apply_archive(&bytes[..], &options).unwrap_err();
            assert!(
                matches!(error, ApplyError::TooMuch { limit: 1_048_576, .. }),
                "{kind}: {error}"
            );
            assert!(is_clean(&store));
        }
    }

    fn blob(tar: &[u8]) -> LayerBlob {
        LayerBlob {
            diff_id: DiffId(Digest::of(tar)),
            digest: None,
            logical_time: None,
        }
    }

    #[test]
    fn a_layer_must_be_the_one_that_was_promised() {
        let (_dir, store) = store();
        let options = ApplyOptions::default();
        for (kind, bytes) in packed(&tree()) {
            let (_dir, store) = self::store();
            let wrong = LayerBlob {
                diff_id: DiffId(Digest::of(b"x")),
                ..blob(&tree())
            };
            let error = store.apply_blob(&bytes[..], &wrong, &options).unwrap_err();
            assert!(matches!(error, ApplyError::DiffId { .. }), "{kind}: {error}");
            let wrong = LayerBlob {
                digest: Some(Digest::of(b"x")),
                ..blob(&tree())
            };
            let error = store.apply_blob(&bytes[..], &wrong, &options).unwrap_err();
            assert!(matches!(error, ApplyError::Blob { .. }), "{kind}: {error}");
            assert!(is_clean(&store));
            let right = LayerBlob {
                digest: Some(Digest::of(&bytes)),
                ..blob(&tree())
            };
            let layer = store.apply_blob(&bytes[..], &right, &options).unwrap();
            assert_eq!(layer.diff_id().unwrap(), right.diff_id);
        }
        let layer = store.apply_blob(&tree()[..], &blob(&tree()), &options).unwrap();
        drop(layer);
        // It is here: nothing is read.
        store
            .apply_blob(&b"garbage"[..], &blob(&tree()), &options)
            .unwrap();
    }

    #[test]
    fn what_follows_the_archive_is_part_of_the_digest() {
        let (_dir, store) = store();
        let tar = [tree(), vec![0; 10240], b"trailing".to_vec()].concat();
        store
            .apply_blob(&tar[..], &blob(&tar), &ApplyOptions::default())
            .unwrap();
    }

    #[test]
    fn layers_of_box_are_newer_than_what_is_below_them() {
        let (_dir, store) = store();
        let logical = 1_000_000_000;
        let far = 8_000_000_000u64;
        let tar = Archive::default()
            .file("new", b"")
            .head(Head {
                name: b"old",
                mtime: 7,
                ..Head::default()
            })
            .head(Head {
                name: b"z-future",
                mtime: far,
                ..Head::default()
            })
            .end();
        let about = LayerBlob {
            logical_time: Some(logical),
            ..blob(&tar)
        };
        let before = Stamp::now();
        let layer = store
            .apply_blob(&tar[..], &about, &ApplyOptions::default())
            .unwrap();
        let mtime = |name: &str| {
            use std::os::unix::fs::MetadataExt;
            let meta = fs::metadata(layer.path().join(name)).unwrap();
            Stamp::new(meta.mtime(), u32::try_from(meta.mtime_nsec()).unwrap())
        };
        assert!(mtime("new") >= before && mtime("new") <= Stamp::now());
        assert_eq!(mtime("old"), Stamp::new(7, 0));
        assert_eq!(layer.logical_time(), logical);
        let times = &layer.facts().times;
        assert_eq!(times.canonical(mtime("new")), logical);
        assert_eq!(times.canonical(mtime("old")), 7);
        assert_eq!(times.canonical(mtime("z-future")), i64::try_from(far).unwrap());
        // The canonical tar is the one that came in (this one is written as ours are).
        let mut out = Vec::new();
        layer.write_tar(&mut out).unwrap();
        assert_eq!(Digest::of(&out), about.diff_id.0);
    }

    #[test]
    fn implied_parents_are_recorded_for_layers_and_real_in_a_rootfs() {
        let (_dir, store) = store();
        let tar = Archive::default().file("a/b/c", b"").end();
        let layer = store
            .apply_blob(&tar[..], &blob(&tar), &ApplyOptions::default())
            .unwrap();
        assert_eq!(
            layer.facts().implied_parents,
            [PathBuf::from("a"), PathBuf::from("a/b")]
        );
        let layer = store.apply_archive(&tar[..], &ApplyOptions::default()).unwrap();
        assert!(layer.facts().implied_parents.is_empty());
    }

    /// Root cannot try what an ordinary user may not: the test starts itself again as one.
    #[test]
    fn an_ordinary_user_is_told_what_it_cannot_make() {
        let inner = "unpack::tests::as_an_ordinary_user";
        let out = std::process::Command::new("setpriv")
            .args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "--inh-caps=-all",
            ])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", inner, "--ignored"])
            .env("TMPDIR", "/tmp")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success() && text.contains("1 passed"), "{text}");
    }

    #[test]
    #[ignore = "started by an_ordinary_user_is_told_what_it_cannot_make, as an ordinary user"]
    fn as_an_ordinary_user() {
        let dir = tempfile::tempdir().unwrap();
        let overlay_xattrs = crate::root::OverlayXattrs::User;
        let options = StoreOptions {
            overlay_xattrs,
            ..StoreOptions::default()
        };
        let store = Store::open(&dir.path().join("store"), options).unwrap();
        let mine = |name: &'static str, flag| Head {
            name: name.as_bytes(),
            flag,
            mode: 0o755,
            uid: 65534,
            gid: 65534,
            ..Head::default()
        };
        let tar = Archive::default().head(mine("dev", b'5'));
        let fine = tar
            .clone()
            .head(mine("dev/file", b'0'))
            .head(mine("dev/pipe", b'6'))
            .end();
        store.apply_archive(&fine[..], &ApplyOptions::default()).unwrap();
        for (flag, device) in [(b'3', (1, 3)), (b'4', (8, 0))] {
            let bad = tar
                .clone()
                .head(Head {
                    device,
                    ..mine("dev/null", flag)
                })
                .end();
            let error = store
                .apply_archive(&bad[..], &ApplyOptions::default())
                .unwrap_err()
                .to_string();
            assert!(
                error.contains("`dev/null`") && error.contains("ordinary user"),
                "{error}"
            );
        }
        let other = tar
            .clone()
            .head(Head {
                uid: 5,
                ..mine("x", b'0')
            })
            .end();
        let error = store
            .apply_archive(&other[..], &ApplyOptions::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("`x`: cannot set the owner"), "{error}");
        assert!(is_clean(&store));
        // Whiteouts and opaque directories need no privilege.
        let tar = tar
            .head(mine("dev/.wh.gone", b'0'))
            .head(mine("dev/.wh..wh..opq", b'0'));
        let tar = tar.head(mine(".wh.gone", b'0')).end();
        let layer = store
            .apply_blob(&tar[..], &blob(&tar), &ApplyOptions::default())
            .unwrap();
        let mut out = Vec::new();
        layer.write_tar(&mut out).unwrap();
        let names = String::from_utf8_lossy(&out).into_owned();
        assert!(names.contains(".wh.gone") && names.contains("dev/.wh..wh..opq"));
    }
}
