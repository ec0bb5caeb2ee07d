//! Tokens: who may what, from the server that the registry names.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use serde::Deserialize;

use super::challenge::{self, Challenge};
use super::client::{Client, shown};
use super::error::RegistryError;
use super::options::Credential;
use super::session::{Token, is_loopback};

/// How long a token is good if its server does not say (the token spec's default).
const DEFAULT_LIFE: u64 = 60;
/// It is renewed so long before its end.
const MARGIN: Duration = Duration::from_secs(5);
/// The largest answer of a token server, in bytes.
const LIMIT: u64 = 1 << 20;

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Client<'_> {
    /// The `Authorization` of a request to the registry, as far as it is known what it wants.
    pub(super) fn authorization(&self) -> Result<Option<HeaderValue>, RegistryError> {
        let session = self.session();
        if let Some(Credential::RegistryToken(token)) = session.credential()? {
            return Ok(header(format!("Bearer {token}")));
        }
        Ok(match session.challenge() {
            None => None,
            Some(Challenge::Basic) => session.credential()?.and_then(basic),
            Some(Challenge::Bearer { .. }) => session
                .token()
                .and_then(|token| header(format!("Bearer {token}"))),
        })
    }

    /// Gets what a registry that said 401 wants to see. False if it has seen that already, or there is nothing to show.
    pub(super) async fn authenticate(
        &self,
        response: &reqwest::Response,
        sent: Option<&HeaderValue>,
    ) -> Result<bool, RegistryError> {
        let session = self.session();
        let values = response.headers().get_all(WWW_AUTHENTICATE).iter();
        let challenge = challenge::parse(values.filter_map(|value| value.to_str().ok()));
        let Some(challenge) = challenge else {
            return Ok(false);
        };
        session.set_challenge(challenge.clone());
        let is_new = |now: Option<HeaderValue>| now.is_some() && now.as_ref() != sent;
        let (realm, service) = match challenge {
            Challenge::Basic => return Ok(is_new(self.authorization()?)),
            Challenge::Bearer { realm, service } => (realm, service),
        };
        if matches!(session.credential()?, Some(Credential::RegistryToken(_))) {
            return Ok(is_new(self.authorization()?));
        }
        if let Some(refused) = sent.and_then(|sent| sent.to_str().ok()?.strip_prefix("Bearer ")) {
            session.forget_token(refused);
        }
        // One connection gets it, the others wait for that.
        let _one = session.getting.lock().await;
        if session.token().is_none() {
            let token = self.get_token(&realm, service.as_deref()).await?;
            session.set_token(token);
        }
        Ok(is_new(self.authorization()?))
    }

    async fn get_token(&self, realm: &str, service: Option<&str>) -> Result<Token, RegistryError> {
        let session = self.session();
        let bad = |problem: &str| RegistryError::Protocol {
            url: shown(&session.base),
            problem: format!("{problem} ({realm:?})"),
        };
        let mut url = Url::parse(realm).map_err(|_| bad("its token server has no URL"))?;
        let may_be_plain = session.base.scheme() == "http" || is_loopback(&url);
        if url.scheme() != "https" && !(url.scheme() == "http" && may_be_plain) {
            return Err(bad("its token server is not reached by HTTPS"));
        }
        let mut pairs: Vec<(String, String)> = Vec::new();
        pairs.extend(service.map(|service| ("service".to_owned(), service.to_owned())));
        let scopes = session.scopes();
        let request = match session.credential()? {
            Some(Credential::IdentityToken(token)) => {
                pairs.push(("grant_type".to_owned(), "refresh_token".to_owned()));
                pairs.push(("client_id".to_owned(), "box".to_owned()));
                pairs.push(("scope".to_owned(), scopes.join(" ")));
                pairs.push(("refresh_token".to_owned(), token.clone()));
                let mut form = Url::parse("form:").map_err(|_| bad("no form"))?;
                form.query_pairs_mut().extend_pairs(&pairs);
                let body = form.query().unwrap_or_default().to_owned();
                self.http()
                    .post(url.clone())
                    .header("content-type", "application/x-www-form-urlencoded")
                    .body(body)
            }
            other => {
                pairs.extend(scopes.into_iter().map(|scope| ("scope".to_owned(), scope)));
                url.query_pairs_mut().extend_pairs(&pairs);
                let request = self.http().get(url.clone());
                match other.and_then(basic) {
                    Some(value) => request.header(AUTHORIZATION, value),
                    None => request,
                }
            }
        };
        let response = self.answer(request, &url).await?;
        let status = response.status().as_u16();
        let bytes = self.read(response, LIMIT, &url).await?;
        if matches!(status, 400 | 401 | 403) {
            return Err(self.denied(&bytes));
        }
        let answer = serde_json::from_slice::<Answer>(&bytes)
            .ok()
            .filter(|_| status == 200);
        let answer = answer.ok_or_else(|| bad(&format!("its token server answered {status}")))?;
        let value = answer
            .token
            .or(answer.access_token)
            .filter(|token| !token.is_empty());
        let life = Duration::from_secs(
            answer
                .expires_in
                .unwrap_or(DEFAULT_LIFE)
                .clamp(DEFAULT_LIFE, 1 << 30),
        );
        Ok(Token {
            value: value.ok_or_else(|| bad("its token server gave no token"))?,
            until: Instant::now() + life.saturating_sub(MARGIN),
        })
    }
}

/// `Basic` for a name and a password.
fn basic(credential: &Credential) -> Option<HeaderValue> {
    match credential {
        Credential::Basic { username, password } => header(format!(
            "Basic {}",
            STANDARD.encode(format!("{username}:{password}"))
        )),
        Credential::IdentityToken(_) | Credential::RegistryToken(_) => None,
    }
}

/// A header that is not shown in any log.
fn header(text: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
