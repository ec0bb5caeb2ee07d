//! One attempt: redirects followed, the body read into the sink.

use std::time::Duration;

use reqwest::header::{
    ACCEPT_ENCODING, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    LOCATION, RANGE, USER_AGENT,
};
use reqwest::{Response, StatusCode, Url};
use tokio::time::Instant;

use super::error::FetchError;
use super::fetched::Part;
use super::options::{FetchOptions, Proxies};
use super::response::{Head, content_range, is_unchanged, retry_after};
use super::shown::without_credentials;
use super::sink::Sink;

/// How often a silent connection is looked at, and cancellation asked for.
const TICK: Duration = Duration::from_millis(100);

/// A client for one URL.
pub(super) struct Client<'o> {
    http: reqwest::Client,
    url: Url,
    options: &'o FetchOptions,
}

/// Without credentials; for messages and records.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Neither can fail for a URL that has a host, and nothing else gets here.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

impl<'o> Client<'o> {
    pub(super) fn new(url: &str, options: &'o FetchOptions) -> Result<Client<'o>, FetchError> {
        let bad = |reason: String| FetchError::BadUrl {
            url: without_credentials(url),
            reason,
        };
        let parsed = Url::parse(url).map_err(|e| bad(e.to_string()))?;
        if !is_http(&parsed) {
            return Err(bad("only http: and https: are known".to_owned()));
        }
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(options.limits.connect_timeout)
            .no_proxy();
        for proxy in proxies(&options.proxies)? {
            builder = builder.proxy(proxy);
        }
        let http = builder.build().map_err(|e| FetchError::Setup(reason(&e)))?;
        Ok(Client {
            http,
            url: parsed,
            options,
        })
    }

    /// Asks for what is missing, and reads it. `None`: the server's file is the one that the validators are of.
    pub(super) async fn attempt(&self, sink: &mut Sink<'_>) -> Result<Option<Part>, FetchError> {
        let resume = sink.resumable().map(|(at, head)| (at, head.clone()));
        let headers = self.headers(resume.as_ref(), true);
        let (mut response, mut url) = self.follow(headers, sink).await?;
        if response.status() == StatusCode::NOT_MODIFIED
            && let Some(validators) = &self.options.validators
            && !is_unchanged(validators, response.headers())
        {
            (response, url) = self.follow(self.headers(resume.as_ref(), false), sink).await?;
        }
        let protocol = |problem| FetchError::Protocol {
            url: shown(&url),
            problem,
        };
        match (response.status(), &resume) {
            (StatusCode::OK, _) => sink.restart(Head::of(shown(&url), response.headers()))?,
            (StatusCode::PARTIAL_CONTENT, Some((at, head))) => {
                let first = content_range(response.headers()).map(|(first, _)| first);
                if first != Some(*at) || !head.is_same_file(response.headers()) {
                    return Err(protocol("it sent another part of the file than it was asked for"));
                }
            }
            (StatusCode::NOT_MODIFIED, None) if self.asks() => return Ok(None),
            (StatusCode::NOT_MODIFIED, _) => return Err(protocol("it says 304 though nothing was asked")),
            _ => {
                return Err(protocol(
                    "it sent a part of the file though the whole was asked for",
                ));
            }
        }
        let is_part = response.status() == StatusCode::PARTIAL_CONTENT;
        let total = content_range(response.headers())
            .and_then(|(_, total)| total)
            .filter(|_| is_part);
        self.body(response, sink, &url).await?;
        if total.is_some_and(|total| total != sink.size()) {
            return Err(protocol("the parts do not add up to the length it announced"));
        }
        Ok(Some(Part { url: shown(&url) }))
    }

    /// Whether the answer may be that nothing changed.
    fn asks(&self) -> bool {
        self.options
            .validators
            .as_ref()
            .is_some_and(|validators| !validators.is_empty())
    }

    fn headers(&self, resume: Option<&(u64, Head)>, may_be_known: bool) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        insert(&mut headers, USER_AGENT, &self.options.user_agent);
        match (resume, self.options.validators.as_ref().filter(|_| may_be_known)) {
            (Some((at, head)), _) => {
                insert(&mut headers, RANGE, &format!("bytes={at}-"));
                if let Some(tag) = head.validators.strong_etag() {
                    insert(&mut headers, IF_RANGE, tag);
                }
            }
            (None, Some(validators)) => {
                if let Some(tag) = &validators.etag {
                    insert(&mut headers, IF_NONE_MATCH, tag);
                } else if let Some(date) = validators.date() {
                    insert(&mut headers, IF_MODIFIED_SINCE, date);
                }
            }
            (None, None) => {}
        }
        headers
    }

    /// Follows redirects to an answer that is one.
    async fn follow(&self, headers: HeaderMap, sink: &Sink<'_>) -> Result<(Response, Url), FetchError> {
        let limit = self.options.limits.max_redirects;
        let mut url = self.url.clone();
        for _ in 0..=limit {
            let response = self.send(&url, headers.clone(), sink).await?;
            let status = response.status();
            match status.as_u16() {
                301 | 302 | 303 | 307 | 308 => url = redirect(&url, response.headers())?,
                200 | 206 | 304 => return Ok((response, url)),
                // The part that was asked for does not exist: the file changed, or is whole already.
                416 => {
                    return Err(FetchError::Protocol {
                        url: shown(&url),
                        problem: "it has no more of the file",
                    });
                }
                status => {
                    let retry_after = retry_after(response.headers());
                    return Err(FetchError::Status {
                        url: shown(&url),
                        status,
                        retry_after,
                    });
                }
            }
        }
        Err(FetchError::Redirects {
            url: shown(&self.url),
            limit,
        })
    }

    async fn send(&self, url: &Url, headers: HeaderMap, sink: &Sink<'_>) -> Result<Response, FetchError> {
        let request = self.http.get(url.clone()).headers(headers).send();
        tokio::pin!(request);
        let limit = self.options.limits.connect_timeout + self.options.limits.patience;
        let end = Instant::now() + limit;
        loop {
            tokio::select! {
                answer = &mut request => return answer.map_err(|e| unanswered(url, &e)),
                () = tokio::time::sleep(TICK) => sink.check_cancelled()?,
            }
            if Instant::now() > end {
                let reason = format!("no answer in {} s", limit.as_secs());
                return Err(FetchError::Broken {
                    url: shown(url),
                    received: sink.size(),
                    reason,
                });
            }
        }
    }

    async fn body(&self, mut response: Response, sink: &mut Sink<'_>, url: &Url) -> Result<(), FetchError> {
        let limits = &self.options.limits;
        let mut span = Span {
            end: Instant::now() + limits.patience,
            bytes: 0,
        };
        loop {
            let chunk = tokio::select! {
                chunk = response.chunk() => Some(chunk),
                () = tokio::time::sleep(TICK) => None,
            };
            sink.check_cancelled()?;
            match chunk {
                None => {}
                Some(Ok(None)) => return Ok(()),
                Some(Ok(Some(bytes))) => {
                    span.bytes += bytes.len() as u64;
                    sink.take(&bytes, &shown(url))?;
                }
                Some(Err(e)) => {
                    let received = sink.size();
                    return Err(FetchError::Broken {
                        url: shown(url),
                        received,
                        reason: reason(&e),
                    });
                }
            }
            self.check_speed(&mut span, sink, url)?;
        }
    }

    fn check_speed(&self, span: &mut Span, sink: &Sink<'_>, url: &Url) -> Result<(), FetchError> {
        let limits = &self.options.limits;
        let now = Instant::now();
        if now < span.end {
            return Ok(());
        }
        if span.bytes < limits.min_bytes {
            return Err(FetchError::Slow {
                url: shown(url),
                received: sink.size(),
                min_bytes: limits.min_bytes,
                seconds: limits.patience.as_secs(),
            });
        }
        *span = Span {
            end: now + limits.patience,
            bytes: 0,
        };
        Ok(())
    }
}

/// What came since the last look at the speed.
struct Span {
    end: Instant,
    bytes: u64,
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // What cannot be a header's value is not sent: the answer is then a whole one.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn is_http(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https") && url.has_host()
}

/// The place that a redirect leads to. A redirect's own credentials are not used.
fn redirect(from: &Url, headers: &HeaderMap) -> Result<Url, FetchError> {
    let location = headers.get(LOCATION).and_then(|l| l.to_str().ok());
    let to = location.and_then(|l| from.join(l).ok()).filter(is_http);
    let problem = "it redirects, but not to a URL";
    let mut to = to.ok_or_else(|| FetchError::Protocol {
        url: shown(from),
        problem,
    })?;
    if from.scheme() == "https" && to.scheme() == "http" {
        let reason = "it leads from HTTPS to HTTP";
        return Err(FetchError::BadRedirect {
            url: shown(from),
            to: shown(&to),
            reason,
        });
    }
    if to.origin() != from.origin() {
        let _ = to.set_username("");
        let _ = to.set_password(None);
    } else if to.username().is_empty() && to.password().is_none() {
        let _ = to.set_username(from.username());
        let _ = to.set_password(from.password());
    }
    Ok(to)
}

fn unanswered(url: &Url, error: &reqwest::Error) -> FetchError {
    match error.is_connect() {
        true => FetchError::Connect {
            host: host(url),
            reason: reason(error),
        },
        false => FetchError::Broken {
            url: shown(url),
            received: 0,
            reason: reason(error),
        },
    }
}

fn host(url: &Url) -> String {
    let port = url.port_or_known_default().unwrap_or_default();
    format!("{}:{port}", url.host_str().unwrap_or_default())
}

/// The innermost cause says what happened; what is around it repeats the URL, with credentials.
pub(crate) fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// The proxies as the client takes them.
pub(crate) fn proxies(proxies: &Proxies) -> Result<Vec<reqwest::Proxy>, FetchError> {
    let direct = || {
        proxies
            .no_proxy
            .as_deref()
            .and_then(reqwest::NoProxy::from_string)
    };
    let bad = |proxy: &str, e: reqwest::Error| FetchError::BadProxy {
        proxy: without_credentials(proxy),
        reason: reason(&e),
    };
    let http = proxies
        .http
        .as_deref()
        .map(|p| reqwest::Proxy::http(p).map_err(|e| bad(p, e)));
    let https = proxies
        .https
        .as_deref()
        .map(|p| reqwest::Proxy::https(p).map_err(|e| bad(p, e)));
    http.into_iter()
        .chain(https)
        .map(|p| Ok(p?.no_proxy(direct())))
        .collect()
}
