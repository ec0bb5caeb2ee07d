//! What ADD fetches, as layers: of one file each, or of a commit.

use std::time::SystemTime;

use box_store::digest::{DiffId, Digest};
use box_store::layer::Layer;
use box_store::record::RecordKind;
use box_store::snapshot::Attrs;
use box_store::transfer::http::Validators;

use crate::error::StepError;
use crate::git::{GitError, Wanted};
use crate::git_ref::GitRef;
use crate::progress::{Event, StepId};
use crate::url::without_credentials;

use super::{Tools, Unpacked, fetch};

/// What nobody but its owner may read, as with Docker.
const MODE: u32 = 0o600;

/// A layer that holds what the URL gives, in its root under this name.
///
/// # Errors
/// When it can't be fetched, or is not what its checksum says.
pub(crate) fn file(
    tools: &Tools<'_>,
    id: StepId,
    source: (&str, Option<&Digest>),
    name: &str,
) -> Result<Layer, StepError> {
    let record = RecordKind::new("file")?;
    let options = tools.options();
    let key = |digest: &Digest, mtime: Option<i64>| {
        let how = (
            name,
            mtime,
            format!("{:?}", options.mtimes),
            options.source_date_epoch,
        );
        let text = serde_json::to_vec(&how).unwrap_or_default();
        Digest::of(&[b"box file 2\n", digest.as_bytes().as_slice(), &text].concat())
    };
    let known = |digest: &Digest, said: Option<&Validators>| {
        // Without it the file's time is not known.
        let Some(said) = said else { return Ok(None) };
        let found = tools.store.get_record(&record, &key(digest, mtime(said)))?;
        let diff_id = found.and_then(|found| serde_json::from_slice::<DiffId>(&found.bytes).ok());
        diff_id.map_or(Ok(None), |diff_id| tools.store.layer(&diff_id))
    };
    let fetched = fetch::layer(tools, id, source, &known, |mut file| {
        let mut writer = tools.store.layer_writer(&[], &options)?;
        let mtime = mtime(&file.validators);
        let attrs = Attrs {
            mode: MODE,
            mtime,
            ..Attrs::default()
        };
        writer.file(name.as_ref(), &attrs, &mut file.file)?;
        let layer = writer.commit()?;
        let diff_id = layer.diff_id()?;
        let bytes = serde_json::to_vec(&diff_id).unwrap_or_default();
        tools
            .store
            .put_record(&record, &key(&file.digest, mtime), &bytes, &[diff_id.0])?;
        Ok(Unpacked {
            layer,
            is_cached: false,
        })
    })?;
    Ok(fetched.layer)
}

/// A layer that holds a commit's files.
///
/// # Errors
/// When they can't be fetched, or are not of the commit that is asked for.
pub(crate) fn repository(
    tools: &Tools<'_>,
    id: StepId,
    address: &GitRef,
    keep_git_dir: bool,
) -> Result<Layer, StepError> {
    if tools.is_forecast {
        let shown = without_credentials(&address.with_fragment(true));
        return Err(StepError::OnlyBuilt {
            what: format!("what {shown} gives: a build asks for it"),
        });
    }
    let wanted = Wanted {
        address,
        keep_git_dir,
    };
    tools.events.event(Event::FetchStarted {
        id,
        what: &format!("fetching {}", without_credentials(&address.with_fragment(true))),
        total: None,
    });
    let checkout = wanted.checkout(tools.store, &tools.options(), tools.cancel);
    tools.events.event(Event::FetchDone { id });
    match checkout {
        Ok(checkout) => Ok(checkout.layer),
        Err(GitError::Cancelled) => Err(StepError::Cancelled),
        Err(error) => Err(error.into()),
    }
}

/// The time of the file, in seconds since 1970, as `Last-Modified` says it.
fn mtime(said: &Validators) -> Option<i64> {
    let time = httpdate::parse_http_date(said.last_modified.as_ref()?).ok()?;
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}
