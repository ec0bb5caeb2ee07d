//! Options about caches on other machines.

use clap::Args;

use crate::values::{CacheFrom, CacheTo};

/// Options of `box build` about caches elsewhere.
#[derive(Debug, Args)]
pub(crate) struct TravelArgs {
    /// Look for steps in a cache elsewhere, too: type=local,src=DIR, type=registry,ref=NAME or type=s3,bucket=NAME (may be repeated); with
    /// key-file=FILE only in what is signed with that key. Layers are fetched when they are needed.
    #[arg(long = "cache-from", value_name = "CACHE")]
    pub(crate) caches_from: Vec<CacheFrom>,
    /// Put the steps of this build into a cache elsewhere when it has succeeded: type=local,dest=DIR, type=registry,ref=NAME or
    /// type=s3,bucket=NAME, with mode=min|max, cache-mounts=true, max-size=BYTES, key-file=FILE, ignore-error=false (may be repeated).
    #[arg(long = "cache-to", value_name = "CACHE")]
    pub(crate) caches_to: Vec<CacheTo>,
}
