//! A blob as a stream: one that breaks off goes on where it stopped. (The blob's digest makes sure that the parts belong together.)

use std::io::{self, Read};

use reqwest::header::RANGE;
use reqwest::{Method, Response, Url};
use tokio::time::{Duration, Instant};

use super::client::{Ask, Client, shown};
use super::error::RegistryError;
use crate::transfer::Progress;
use crate::transfer::http::content_range;

const TICK: Duration = Duration::from_millis(100);

/// The bytes of a blob, as they come.
pub(super) struct Body<'c> {
    client: &'c Client<'c>,
    progress: &'c dyn Progress,
    url: Url,
    size: u64,
    received: u64,
    response: Option<Response>,
    chunk: Vec<u8>,
    at: usize,
    failures: u32,
    attempts: u32,
    /// Bytes in this span of time, for the slowest that is put up with.
    span: (Instant, u64),
    /// Why it failed, since an [`io::Error`] can't say it well.
    pub(super) error: Option<RegistryError>,
}

impl<'c> Body<'c> {
    pub(super) fn new(client: &'c Client<'c>, progress: &'c dyn Progress, url: Url, size: u64) -> Body<'c> {
        Body {
            client,
            progress,
            url,
            size,
            received: 0,
            response: None,
            chunk: Vec::new(),
            at: 0,
            failures: 0,
            attempts: 0,
            span: (Instant::now(), 0),
            error: None,
        }
    }

    /// The next chunk; none at the end.
    fn next(&mut self) -> Result<Option<Vec<u8>>, RegistryError> {
        loop {
            let error = match self.try_next() {
                Ok(Some(chunk)) => {
                    self.failures = 0;
                    return Ok(Some(chunk));
                }
                Ok(None) if self.received == self.size => return Ok(None),
                Ok(None) => RegistryError::Broken {
                    url: shown(&self.url),
                    reason: format!("it ended after {} of {} bytes", self.received, self.size),
                },
                Err(error) => error,
            };
            self.response = None;
            self.failures += 1;
            self.attempts += 1;
            let retries = self.client.session().options.limits.retries;
            if !error.is_temporary() || self.failures > retries || self.attempts > retries.saturating_mul(4) {
                return Err(error);
            }
            let pause = self.client.pause(&error, self.failures);
            self.client.runtime().block_on(pause)?;
        }
    }

    fn try_next(&mut self) -> Result<Option<Vec<u8>>, RegistryError> {
        if self.response.is_none() {
            if self.received == self.size && self.size > 0 {
                return Ok(None);
            }
            self.response = Some(self.open()?);
        }
        let Some(mut response) = self.response.take() else {
            return Ok(None);
        };
        let chunk = self.chunk(&mut response)?;
        self.response = Some(response);
        let Some(chunk) = chunk else { return Ok(None) };
        self.received += chunk.len() as u64;
        if self.received > self.size {
            return Err(self.protocol(format!(
                "the blob is longer than the {} bytes of its descriptor",
                self.size
            )));
        }
        Ok(Some(chunk))
    }

    /// Asks for what is missing. A server that sends everything anew is heard out.
    fn open(&mut self) -> Result<Response, RegistryError> {
        let mut ask = Ask::new(Method::GET, self.url.clone(), &[200, 206]);
        if self.received > 0 {
            ask = ask.header(RANGE, &format!("bytes={}-", self.received));
        }
        let mut response = self.client.ask(&ask)?;
        self.span = (Instant::now(), 0);
        let start = match response.status().as_u16() {
            206 => content_range(response.headers()).map(|(first, _)| first),
            _ => Some(0),
        };
        let Some(mut skip) = start.and_then(|start| self.received.checked_sub(start)) else {
            return Err(self.protocol("it sent another part than it was asked for".to_owned()));
        };
        while skip > 0 {
            let Some(chunk) = self.chunk(&mut response)? else {
                break;
            };
            let extra = (chunk.len() as u64).saturating_sub(skip);
            skip = skip.saturating_sub(chunk.len() as u64);
            if extra > 0 {
                // The first bytes that are new.
                self.chunk = chunk[chunk.len() - usize::try_from(extra).unwrap_or_default()..].to_vec();
                self.at = 0;
                self.received += extra;
            }
        }
        Ok(response)
    }

    fn chunk(&mut self, response: &mut Response) -> Result<Option<Vec<u8>>, RegistryError> {
        let (client, url) = (self.client, self.url.clone());
        let limits = &client.session().options.limits;
        let span = &mut self.span;
        client.runtime().block_on(async move {
            loop {
                let chunk = tokio::select! {
                    chunk = response.chunk() => Some(chunk.map_err(|e| client.unanswered(&url, &e))?),
                    () = tokio::time::sleep(TICK) => None,
                };
                client.check_cancelled()?;
                if let Some(chunk) = &chunk {
                    span.1 += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
                }
                if span.0.elapsed() > limits.patience {
                    if span.1 < limits.min_bytes && !matches!(chunk, Some(None)) {
                        return Err(RegistryError::Broken {
                            url: shown(&url),
                            reason: format!("only {} bytes came in {} s", span.1, limits.patience.as_secs()),
                        });
                    }
                    *span = (Instant::now(), 0);
                }
                if let Some(chunk) = chunk {
                    return Ok(chunk.map(|chunk| chunk.to_vec()));
                }
            }
        })
    }

    fn protocol(&self, problem: String) -> RegistryError {
        RegistryError::Protocol {
            url: shown(&self.url),
            problem,
        }
    }
}

impl Read for Body<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.at == self.chunk.len() {
            match self.next() {
                Ok(Some(chunk)) => {
                    // What a resumed answer brought while it was skipped goes first.
                    if self.at < self.chunk.len() {
                        self.chunk.extend_from_slice(&chunk);
                    } else {
                        self.chunk = chunk;
                        self.at = 0;
                    }
                }
                Ok(None) => return Ok(0),
                Err(error) => {
                    let text = error.to_string();
                    self.error = Some(error);
                    return Err(io::Error::other(text));
                }
            }
        }
        let rest = &self.chunk[self.at..];
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        self.progress.advance(count as u64);
        Ok(count)
    }
}
