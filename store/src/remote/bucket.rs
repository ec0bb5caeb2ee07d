//! A cache in a bucket of an object store that speaks S3: `PREFIX/packs/<hex>` and `PREFIX/indexes/<hex>`.
//!
//! There are no locks. Whoever writes puts an index that holds all that it has read, then removes those that it has read: of two at the same
//! time both stay, and the next one makes one of them. Packs that no index needs go when they are an hour old by the server's clock.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, GetOptions, GetRange, ObjectMeta, ObjectStore, PutPayload, RetryConfig,
};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::backend::{Backend, Merge, Object};
use super::error::RemoteError;
use super::seal::{ALL_PACKED_LIMIT, MOST, PACKED_LIMIT};
use crate::digest::Digest;
use crate::transfer::http::Proxies;

/// How long what nobody needs may still be somebody's who is about to need it, in seconds.
const GRACE: i64 = 3600;
/// How much is put up with.
const CONNECT: Duration = Duration::from_secs(10);
const REQUEST: Duration = Duration::from_secs(60);
const RETRIES: usize = 4;
const RETRY: Duration = Duration::from_secs(60);
/// How often indexes may go away while they are read.
const ATTEMPTS: usize = 10;
/// How often cancellation is asked for.
const TICK: Duration = Duration::from_millis(100);

/// A cache in a bucket.
#[derive(Debug)]
pub struct BucketBackend {
    store: Arc<AmazonS3>,
    bucket: String,
    prefix: Path,
    runtime: Worker,
}

/// How a bucket is reached.
#[derive(Clone, Default)]
pub struct BucketOptions {
    /// Its name.
    pub bucket: String,
    /// What the objects' names begin with.
    pub prefix: String,
    /// Options by the names of their variables in lower case (`aws_region`), the first of each meaning counts. Those of variables that
    /// mean nothing here are passed over.
    pub options: Vec<(String, String)>,
    /// Through whom.
    pub proxies: Proxies,
}

/// An index, and its bytes if they are whole.
type Found = (Path, Option<Vec<u8>>);

impl BucketBackend {
    /// The cache in this bucket. Nothing is asked before something is needed.
    ///
    /// # Errors
    /// When an option makes no sense.
    pub fn new(
        options: &BucketOptions,
        cancelled: Arc<dyn Fn() -> bool + Send + Sync>,
    ) -> Result<BucketBackend, RemoteError> {
        let wrong = |e: &dyn std::fmt::Display| RemoteError::Server(e.to_string());
        let mut seen = HashSet::new();
        let mut builder = AmazonS3Builder::new();
        let mut is_plain = false;
        for (name, value) in &options.options {
            let Ok(key) = name.parse::<AmazonS3ConfigKey>() else {
                continue;
            };
            if seen.insert(key) {
                is_plain |= matches!(key, AmazonS3ConfigKey::Endpoint) && value.starts_with("http://");
                builder = builder.with_config(key, value);
            }
        }
        let mut client = ClientOptions::new()
            .with_connect_timeout(CONNECT)
            .with_timeout(REQUEST)
            // Who writes http:// wants that.
            .with_allow_http(is_plain);
        let proxy = if is_plain {
            &options.proxies.http
        } else {
            &options.proxies.https
        };
        if let Some(proxy) = proxy {
            client = client.with_proxy_url(proxy);
            if let Some(excludes) = &options.proxies.no_proxy {
                client = client.with_proxy_excludes(excludes);
            }
        }
        let retry = RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: RETRIES,
            retry_timeout: RETRY,
        };
        let builder = builder
            .with_bucket_name(&options.bucket)
            .with_client_options(client)
            .with_retry(retry);
        Ok(BucketBackend {
            store: Arc::new(builder.build().map_err(|e| wrong(&e))?),
            bucket: options.bucket.clone(),
            prefix: Path::parse(&options.prefix).map_err(|e| wrong(&e))?,
            runtime: Worker::start(cancelled).map_err(|e| wrong(&e))?,
        })
    }

    fn path(&self, kind: &str, digest: &Digest) -> Path {
        self.prefix.child(kind).child(digest.hex())
    }

    fn ask<T, F>(&self, work: impl FnOnce(Arc<AmazonS3>) -> F) -> Result<T, RemoteError>
    where
        T: Send + 'static,
        F: Future<Output = object_store::Result<T>> + Send + 'static,
    {
        let answer = self.runtime.run(work(Arc::clone(&self.store)))?;
        answer.map_err(|e| RemoteError::Server(e.to_string()))
    }

    /// An object, or a part of it; none if it is not there, nothing if it has more than `limit` bytes.
    fn get(
        &self,
        path: Path,
        range: Option<std::ops::Range<u64>>,
        limit: u64,
    ) -> Result<Option<Vec<u8>>, RemoteError> {
        self.ask(move |store| async move {
            let options = GetOptions {
                range: range.map(GetRange::Bounded),
                ..GetOptions::default()
            };
            let found = match store.get_opts(&path, options).await {
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                found => found?,
            };
            // What is longer than an index may be is no cache's.
            if found.range.end - found.range.start > limit {
                return Ok(Some(Vec::new()));
            }
            Ok(Some(found.bytes().await?.to_vec()))
        })
    }

    fn put(&self, path: Path, bytes: Vec<u8>) -> Result<(), RemoteError> {
        self.ask(move |store| async move { store.put(&path, PutPayload::from(bytes)).await.map(drop) })
    }

    fn list(&self, kind: &str) -> Result<Vec<ObjectMeta>, RemoteError> {
        let prefix = self.prefix.child(kind);
        let listed = self.ask(move |store| async move { store.list_with_delimiter(Some(&prefix)).await })?;
        Ok(listed.objects)
    }

    /// All indexes, with the bytes of those that are whole.
    fn read_indexes(&self, warn: &mut dyn FnMut(String)) -> Result<Vec<Found>, RemoteError> {
        for _ in 0..ATTEMPTS {
            let (mut found, mut left) = (Vec::new(), ALL_PACKED_LIMIT);
            let mut listed = self.list("indexes")?;
            if listed.len() > MOST {
                warn(format!(
                    "there are more than {MOST} indexes; the others are left out"
                ));
                listed.truncate(MOST);
            }
            let count = listed.len();
            for object in listed {
                let Some(bytes) = self.get(object.location.clone(), None, PACKED_LIMIT.min(left))? else {
                    // There is a newer one.
                    break;
                };
                let is_whole = object.location.filename() == Some(&Digest::of(&bytes).hex());
                if !is_whole {
                    warn(format!("the index {} is damaged, or too long", object.location));
                }
                let bytes = Some(bytes).filter(|_| is_whole);
                left -= bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
                found.push((object.location, bytes));
            }
            if found.len() == count {
                return Ok(found);
            }
        }
        Err(RemoteError::Unstable)
    }

    fn sizes(&self) -> Result<BTreeMap<String, u64>, RemoteError> {
        let objects = self.list("packs")?.into_iter();
        Ok(objects
            .filter_map(|o| Some((o.location.filename()?.to_owned(), o.size)))
            .collect())
    }

    /// Removes packs that no index needs. `now` is when the server took the last index.
    fn sweep(&self, live: &[Object], now: i64) -> Result<(), RemoteError> {
        let live: BTreeSet<String> = live.iter().map(|pack| pack.digest.hex()).collect();
        for object in self.list("packs")? {
            let is_live = object.location.filename().is_some_and(|name| live.contains(name));
            if !is_live && now - object.last_modified.timestamp() > GRACE {
                self.remove(object.location)?;
            }
        }
        Ok(())
    }

    fn remove(&self, path: Path) -> Result<(), RemoteError> {
        self.ask(move |store| async move {
            match store.delete(&path).await {
                Err(object_store::Error::NotFound { .. }) => Ok(()),
                removed => removed,
            }
        })
    }
}

impl Backend for BucketBackend {
    fn describe(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.prefix)
    }

    fn indexes(&self, warn: &mut dyn FnMut(String)) -> Result<Vec<Vec<u8>>, RemoteError> {
        let all = self.read_indexes(warn)?;
        Ok(all.into_iter().filter_map(|(_, bytes)| bytes).collect())
    }

    fn missing(&self, packs: &[Object]) -> Result<Vec<Object>, RemoteError> {
        if packs.is_empty() {
            return Ok(Vec::new());
        }
        let sizes = self.sizes()?;
        let is_there = |pack: &Object| sizes.get(&pack.digest.hex()) == Some(&pack.size);
        Ok(packs.iter().filter(|pack| !is_there(pack)).copied().collect())
    }

    fn read(&self, pack: &Object, at: u64, length: u64) -> Result<Option<Vec<u8>>, RemoteError> {
        match length {
            0 => Ok(Some(Vec::new())),
            _ => self.get(
                self.path("packs", &pack.digest),
                Some(at..at.saturating_add(length)),
                PACKED_LIMIT,
            ),
        }
    }

    fn write(&self, pack: &Object, bytes: Vec<u8>) -> Result<bool, RemoteError> {
        let path = self.path("packs", &pack.digest);
        let head = path.clone();
        let there = self.ask(move |store| async move {
            match store.head(&head).await {
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                head => head.map(|head| Some(head.size)),
            }
        })?;
        if there == Some(pack.size) {
            return Ok(false);
        }
        self.put(path, bytes).map(|()| true)
    }

    fn discard(&self, pack: &Object) -> Result<bool, RemoteError> {
        self.remove(self.path("packs", &pack.digest)).map(|()| true)
    }

    fn publish(&self, merge: &mut Merge<'_>) -> Result<(), RemoteError> {
        let found = self.read_indexes(&mut |_| {})?;
        let indexes: Vec<_> = found.iter().filter_map(|(_, bytes)| bytes.clone()).collect();
        let (bytes, live) = merge(&indexes)?;
        let path = self.path("indexes", &Digest::of(&bytes));
        let head = path.clone();
        self.put(path.clone(), bytes)?;
        let written = self.ask(move |store| async move { store.head(&head).await })?;
        for (old, _) in found.into_iter().filter(|(old, _)| *old != path) {
            self.remove(old)?;
        }
        // What another one has published meanwhile needs its packs, too.
        let all = self.read_indexes(&mut |_| {})?;
        match all.len() {
            1 => self.sweep(&live, written.last_modified.timestamp()),
            _ => Ok(()),
        }
    }
}

/// A thread that drives connections.
struct Worker {
    cancelled: Arc<dyn Fn() -> bool + Send + Sync>,
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Worker")
    }
}

impl Worker {
    fn start(cancelled: Arc<dyn Fn() -> bool + Send + Sync>) -> std::io::Result<Worker> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("box-cache".into());
        let thread = thread.spawn(move || {
            // It ends with the sender, too.
            let _ = runtime.block_on(stopped);
            // A name lookup that hangs is not waited for.
            runtime.shutdown_background();
        })?;
        Ok(Worker {
            cancelled,
            handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, RemoteError> {
        let (answer, answered) = channel();
        self.handle.spawn(async move {
            let _ = answer.send(work.await);
        });
        loop {
            match answered.recv_timeout(TICK) {
                Ok(result) => return Ok(result),
                Err(RecvTimeoutError::Timeout) if (self.cancelled)() => return Err(RemoteError::Cancelled),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(RemoteError::Server("its connections have ended".to_owned()));
                }
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
