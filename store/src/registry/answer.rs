//! What a registry answers: whole documents, and what it says is wrong.

use reqwest::{Response, Url};
use serde::Deserialize;
use tokio::time::Instant;

use super::client::{Client, shown};
use super::error::RegistryError;
use crate::transfer::http::{reason, retry_after};

/// How much of an error's text is read, in bytes.
const MESSAGE: u64 = 64 << 10;

impl Client<'_> {
    /// Reads a whole answer of at most `limit` bytes.
    pub(super) async fn read(
        &self,
        mut response: Response,
        limit: u64,
        url: &Url,
    ) -> Result<Vec<u8>, RegistryError> {
        let end = Instant::now() + self.session().options.limits.patience;
        let mut bytes = Vec::new();
        loop {
            let chunk = tokio::select! {
                chunk = response.chunk() => chunk.map_err(|e| self.unanswered(url, &e))?,
                () = tokio::time::sleep_until(end) => {
                    return Err(RegistryError::Broken {
                        url: shown(url),
                        reason: "its answer takes too long".to_owned(),
                    });
                }
            };
            self.check_cancelled()?;
            let Some(chunk) = chunk else { return Ok(bytes) };
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > limit {
                return Err(RegistryError::Protocol {
                    url: shown(url),
                    problem: format!("its answer is longer than {limit} bytes"),
                });
            }
        }
    }

    pub(super) fn unanswered(&self, url: &Url, error: &reqwest::Error) -> RegistryError {
        match error.is_connect() {
            true => RegistryError::Connect {
                host: self.host(url),
                reason: reason(error),
            },
            false => RegistryError::Broken {
                url: shown(url),
                reason: reason(error),
            },
        }
    }

    /// What the registry says is wrong.
    pub(super) async fn failure(&self, response: Response, url: &Url) -> RegistryError {
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers());
        let bytes = self.read(response, MESSAGE, url).await.unwrap_or_default();
        match status {
            401 | 403 => self.denied(&bytes),
            _ => RegistryError::Status {
                url: shown(url),
                status,
                message: message(&bytes),
                retry_after,
            },
        }
    }

    pub(super) fn denied(&self, bytes: &[u8]) -> RegistryError {
        let session = self.session();
        let (action, repository) = match session.repository.as_str() {
            "" => ("log in", ""),
            repository => (session.action.name(), repository),
        };
        RegistryError::Denied {
            registry: session.registry.clone(),
            action,
            repository: repository.to_owned(),
            message: message(bytes),
        }
    }
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<OneError>,
}

#[derive(Deserialize)]
struct OneError {
    code: Option<String>,
    message: Option<String>,
}

/// The registry's own words (OCI distribution spec, "Error Codes"), short and without control characters.
fn message(bytes: &[u8]) -> String {
    let errors = serde_json::from_slice::<Errors>(bytes)
        .map(|all| all.errors)
        .unwrap_or_default();
    let texts = errors
        .into_iter()
        .filter_map(|error| error.message.or(error.code));
    let text = texts.collect::<Vec<_>>().join("; ");
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_short_and_clean() {
        let text = br#"{"errors":[{"code":"DENIED","message":"no\u001b[31m way"},{"code":"X"}]}"#;
        assert_eq!(message(text), "no[31m way; X");
        assert_eq!(message(b"<html>"), "");
        let long = format!(r#"{{"errors":[{{"message":"{}"}}]}}"#, "x".repeat(5000));
        assert_eq!(message(long.as_bytes()).len(), 300);
    }
}
