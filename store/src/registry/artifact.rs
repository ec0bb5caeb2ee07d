//! An artifact that is no image (OCI image spec, "Guidelines for Artifact Usage"): a manifest under a tag, and blobs. Whoever uses it
//! knows what they mean.

use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, RANGE};
use reqwest::{Body, Method};

use super::client::{Ask, Client, location, shown};
use super::error::RegistryError;
use super::options::RegistryOptions;
use super::push::has;
use super::session::{Action, Session};
use crate::digest::Digest;
use crate::reference::Reference;
use crate::transfer::document::DOCUMENT_LIMIT;
use crate::transfer::http::content_range;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What is known of the artifact's repository; shared by all connections.
pub(crate) struct ArtifactSession<'a> {
    session: Session<'a>,
    tag: String,
}

/// A connection; it belongs to one thread.
pub(crate) struct Artifact<'a> {
    client: Client<'a>,
    tag: &'a str,
}

impl<'a> ArtifactSession<'a> {
    /// Finds the registry. `writes` says whether tokens must be good for writing, too.
    pub(crate) fn open(
        options: &'a RegistryOptions<'a>,
        name: &Reference,
        writes: bool,
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<ArtifactSession<'a>, RegistryError> {
        let action = if writes { Action::Push } else { Action::Pull };
        Ok(ArtifactSession {
            session: Session::open(options, (name.domain(), name.path()), action, cancelled)?,
            tag: name.tag().unwrap_or("latest").to_owned(),
        })
    }

    /// Another connection.
    pub(crate) fn connect(
        &'a self,
        cancelled: &'a (dyn Fn() -> bool + Sync),
    ) -> Result<Artifact<'a>, RegistryError> {
        Ok(Artifact {
            client: Client::new(&self.session, cancelled)?,
            tag: &self.tag,
        })
    }
}

impl Artifact<'_> {
    /// The manifest that the tag names; none if there is no such tag.
    pub(crate) fn manifest(&self) -> Result<Option<Vec<u8>>, RegistryError> {
        let url = self
            .client
            .session()
            .of_repository(&format!("manifests/{}", self.tag));
        let ask = Ask::new(Method::GET, url.clone(), &[200, 404]).header(ACCEPT, MANIFEST);
        let response = self.client.ask(&ask)?;
        if response.status().as_u16() == 404 {
            return Ok(None);
        }
        let bytes = self.client.read(response, DOCUMENT_LIMIT, &url);
        Ok(Some(self.client.runtime().block_on(bytes)?))
    }

    /// Puts the manifest under the tag.
    pub(crate) fn put_manifest(&self, bytes: &[u8]) -> Result<(), RegistryError> {
        let url = self
            .client
            .session()
            .of_repository(&format!("manifests/{}", self.tag));
        let body = || Ok(Body::from(bytes.to_vec()));
        let mut ask = Ask::new(Method::PUT, url, &[200, 201, 202]).header(CONTENT_TYPE, MANIFEST);
        ask.body = Some(&body);
        self.client.ask(&ask).map(drop)
    }

    /// Whether a blob is there.
    pub(crate) fn has_blob(&self, digest: &Digest) -> Result<bool, RegistryError> {
        let url = self.client.session().of_repository(&format!("blobs/{digest}"));
        has(&self.client, &url, "*/*")
    }

    /// `length` bytes of a blob from `at` on; none if it is not there. Of a registry that sends the whole blob instead, at most `whole`
    /// bytes are taken.
    pub(crate) fn blob(
        &self,
        digest: &Digest,
        (at, length): (u64, u64),
        whole: u64,
    ) -> Result<Option<Vec<u8>>, RegistryError> {
        let url = self.client.session().of_repository(&format!("blobs/{digest}"));
        let last = at.saturating_add(length).saturating_sub(1);
        let ask = Ask::new(Method::GET, url.clone(), &[200, 206, 404]);
        let response = self
            .client
            .ask(&ask.header(RANGE, &format!("bytes={at}-{last}")))?;
        let (start, limit) = match response.status().as_u16() {
            404 => return Ok(None),
            206 => (content_range(response.headers()).map(|(first, _)| first), length),
            _ => (Some(0), whole),
        };
        let skip = start
            .and_then(|start| at.checked_sub(start))
            .ok_or_else(|| RegistryError::Protocol {
                url: shown(&url),
                problem: "it sent another part than it was asked for".to_owned(),
            })?;
        let bytes = self.client.read(response, limit, &url);
        let mut bytes = self.client.runtime().block_on(bytes)?;
        let (skip, length) = (
            usize::try_from(skip).unwrap_or(usize::MAX),
            usize::try_from(length).unwrap_or(usize::MAX),
        );
        bytes.drain(..skip.min(bytes.len()));
        bytes.truncate(length);
        Ok(Some(bytes))
    }

    /// Writes a blob; says whether it had to be sent.
    pub(crate) fn put_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<bool, RegistryError> {
        if self.has_blob(digest)? {
            return Ok(false);
        }
        let retries = self.client.session().options.limits.retries;
        let mut failures = 0;
        loop {
            // An upload that broke off is begun anew: it is small.
            let error = match self.upload(digest, bytes) {
                Ok(()) => return Ok(true),
                Err(error) => error,
            };
            failures += 1;
            if !error.is_temporary() || failures > retries {
                return Err(error);
            }
            let pause = self.client.pause(&error, failures);
            self.client.runtime().block_on(pause)?;
        }
    }

    fn upload(&self, digest: &Digest, bytes: &[u8]) -> Result<(), RegistryError> {
        let url = self.client.session().of_repository("blobs/uploads/");
        let nothing = || Ok(Body::from(Vec::new()));
        let mut ask = Ask::new(Method::POST, url.clone(), &[202]).header(CONTENT_LENGTH, "0");
        ask.body = Some(&nothing);
        let response = self.client.ask(&ask)?;
        let mut to = location(&url, &response).ok_or_else(|| RegistryError::Protocol {
            url: shown(&url),
            problem: "it does not say where to send the blob".to_owned(),
        })?;
        to.query_pairs_mut().append_pair("digest", &digest.to_string());
        let body = || Ok(Body::from(bytes.to_vec()));
        let mut ask = Ask::new(Method::PUT, to, &[201, 204])
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, &bytes.len().to_string());
        ask.body = Some(&body);
        self.client.ask_once(&ask).map(drop)
    }
}
