//! One connection to a registry: requests with authorization, redirects, retries.

use std::time::Duration;

use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, USER_AGENT};
use reqwest::{Certificate, Method, Response, Url};
use tokio::runtime::Runtime;
use tokio::time::Instant;

use super::error::RegistryError;
use super::session::{Session, is_loopback};
use crate::transfer::http::{proxies, reason};

/// How often a silent connection is looked at, and cancellation asked for.
const TICK: Duration = Duration::from_millis(100);
/// How long a registry on this machine has to answer whether it speaks TLS.
const PROBE: Duration = Duration::from_secs(5);

/// A connection; it belongs to one thread.
pub(super) struct Client<'a> {
    session: &'a Session<'a>,
    http: reqwest::Client,
    runtime: Runtime,
    cancelled: &'a (dyn Fn() -> bool + Sync),
}

/// What is asked.
pub(super) struct Ask<'b> {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    /// Makes the body, for each attempt anew.
    pub(super) body: Option<&'b dyn Fn() -> Result<reqwest::Body, RegistryError>>,
    /// Is called every now and then while the body is sent.
    pub(super) watch: Option<&'b dyn Fn() -> Result<(), RegistryError>>,
    /// Statuses that are an answer.
    pub(super) expected: &'b [u16],
}

impl Ask<'_> {
    /// A request without a body.
    pub(super) fn new(method: Method, url: Url, expected: &[u16]) -> Ask<'_> {
        Ask {
            method,
            url,
            headers: HeaderMap::new(),
            body: None,
            watch: None,
            expected,
        }
    }

    pub(super) fn header(mut self, name: reqwest::header::HeaderName, value: &str) -> Self {
        // What can't be a header's value is not sent.
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.append(name, value);
        }
        self
    }
}

/// Without credentials; for messages.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Neither can fail for a URL that has a host. The query of a redirect may hold a signature.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.to_string()
}

impl<'a> Client<'a> {
    pub(super) fn new(
        session: &'a Session<'a>,
        cancelled: &'a (dyn Fn() -> bool + Sync),
    ) -> Result<Client<'a>, RegistryError> {
        let options = session.options;
        let setup = |e: String| RegistryError::Setup(e);
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(options.limits.connect_timeout)
            .danger_accept_invalid_certs(!options.tls_verify)
            .no_proxy();
        for proxy in proxies(&options.proxies).map_err(|e| setup(e.to_string()))? {
            builder = builder.proxy(proxy);
        }
        if let Some(pem) = &options.ca_bundle {
            for certificate in Certificate::from_pem_bundle(pem).map_err(|e| setup(reason(&e)))? {
                builder = builder.add_root_certificate(certificate);
            }
        }
        let http = builder.build().map_err(|e| setup(reason(&e)))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Client {
            session,
            http,
            runtime: runtime.map_err(|e| setup(e.to_string()))?,
            cancelled,
        })
    }

    pub(super) fn session(&self) -> &'a Session<'a> {
        self.session
    }

    pub(super) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    pub(super) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Whether HTTPS is spoken at all.
    pub(super) fn answers(&self) -> Result<bool, RegistryError> {
        let request = self.http.get(self.session.base.clone()).timeout(PROBE);
        // Its timer needs the runtime when it is made.
        let probe = async { request.send().await };
        match self.runtime.block_on(probe) {
            Ok(_) => Ok(true),
            // A wrong certificate is no reason to do without.
            Err(e) if reason(&e).contains("certificate") => Err(RegistryError::Connect {
                host: self.host(&self.session.base),
                reason: reason(&e),
            }),
            Err(_) => Ok(false),
        }
    }

    /// Asks the registry whether the credentials are good.
    pub(super) fn check_login(&self) -> Result<(), RegistryError> {
        let ask = Ask::new(Method::GET, self.session.base.clone(), &[200]);
        self.ask(&ask).map(drop)
    }

    /// Asks until there is an answer, or a failure that stays.
    pub(super) fn ask(&self, ask: &Ask<'_>) -> Result<Response, RegistryError> {
        self.runtime.block_on(self.asked(ask))
    }

    /// Asks without a second attempt.
    pub(super) fn ask_once(&self, ask: &Ask<'_>) -> Result<Response, RegistryError> {
        self.runtime.block_on(self.attempt(ask))
    }

    async fn asked(&self, ask: &Ask<'_>) -> Result<Response, RegistryError> {
        let retries = self.session.options.limits.retries;
        let (mut failures, mut attempts) = (0, 0);
        loop {
            match self.attempt(ask).await {
                Err(error) if error.is_temporary() && failures < retries => {
                    // Who can't be reached at all gets one more chance: it is rarely another a little later.
                    failures += if matches!(error, RegistryError::Connect { .. }) {
                        retries
                    } else {
                        1
                    };
                    attempts += 1;
                    self.pause(&error, attempts).await?;
                }
                done => return done,
            }
        }
    }

    /// As long as the registry asks for, or longer each time.
    pub(super) async fn pause(&self, error: &RegistryError, failures: u32) -> Result<(), RegistryError> {
        let limits = &self.session.options.limits;
        let own = limits
            .retry_delay
            .saturating_mul(1 << failures.saturating_sub(1).min(6));
        let wait = error.retry_after().unwrap_or(own).min(limits.max_delay);
        let end = Instant::now() + wait;
        while Instant::now() < end {
            self.check_cancelled()?;
            tokio::time::sleep_until(end.min(Instant::now() + TICK)).await;
        }
        Ok(())
    }

    /// One attempt: authorization and redirects included.
    async fn attempt(&self, ask: &Ask<'_>) -> Result<Response, RegistryError> {
        let mut url = ask.url.clone();
        let mut redirects = 0;
        let mut refusals = 0;
        loop {
            let authorization = match self.session.is_own(&url) {
                true => self.authorization()?,
                false => None,
            };
            let response = self.send(ask, &url, authorization.as_ref()).await?;
            let status = response.status().as_u16();
            if ask.expected.contains(&status) {
                return Ok(response);
            }
            match status {
                401 if refusals < 2 && self.session.is_own(&url) => {
                    refusals += 1;
                    if !self.authenticate(&response, authorization.as_ref()).await? {
                        return Err(self.failure(response, &url).await);
                    }
                }
                301 | 302 | 303 | 307 | 308 => {
                    redirects += 1;
                    let limit = self.session.options.limits.max_redirects;
                    if redirects > limit {
                        return Err(RegistryError::Protocol {
                            url: shown(&ask.url),
                            problem: format!("more than {limit} redirects"),
                        });
                    }
                    url = self.redirect(&url, &response)?;
                }
                _ => return Err(self.failure(response, &url).await),
            }
        }
    }

    async fn send(
        &self,
        ask: &Ask<'_>,
        url: &Url,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, RegistryError> {
        let mut request = self
            .http
            .request(ask.method.clone(), url.clone())
            .headers(ask.headers.clone());
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value.clone());
        }
        if let Some(body) = ask.body {
            request = request.body(body()?);
        }
        match ask.watch {
            None => self.answer(request, url).await,
            // How long it takes depends on the body's length.
            Some(watch) => self.wait(request, url, None, watch).await,
        }
    }

    /// An answer in time.
    pub(super) async fn answer(
        &self,
        request: reqwest::RequestBuilder,
        url: &Url,
    ) -> Result<Response, RegistryError> {
        let limits = &self.session.options.limits;
        let limit = limits.connect_timeout + limits.patience;
        self.wait(request, url, Some(limit), &|| Ok(())).await
    }

    async fn wait(
        &self,
        request: reqwest::RequestBuilder,
        url: &Url,
        limit: Option<Duration>,
        watch: &dyn Fn() -> Result<(), RegistryError>,
    ) -> Result<Response, RegistryError> {
        let request = request
            .header(USER_AGENT, concat!("box/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT_ENCODING, "identity")
            .send();
        tokio::pin!(request);
        let end = limit.map(|limit| Instant::now() + limit);
        loop {
            tokio::select! {
                answer = &mut request => return answer.map_err(|e| self.unanswered(url, &e)),
                () = tokio::time::sleep(TICK) => {
                    self.check_cancelled()?;
                    watch()?;
                }
            }
            if end.is_some_and(|end| Instant::now() > end) {
                return Err(RegistryError::Broken {
                    url: shown(url),
                    reason: format!("no answer in {} s", limit.unwrap_or_default().as_secs()),
                });
            }
        }
    }

    /// Where a redirect leads. From HTTPS it never leads to HTTP.
    fn redirect(&self, from: &Url, response: &Response) -> Result<Url, RegistryError> {
        let to = location(from, response).ok_or_else(|| RegistryError::Protocol {
            url: shown(from),
            problem: "it redirects, but not to a URL".to_owned(),
        })?;
        if from.scheme() == "https" && to.scheme() != "https" {
            return Err(RegistryError::Protocol {
                url: shown(from),
                problem: format!("it redirects from HTTPS to {}", shown(&to)),
            });
        }
        // A server elsewhere has no say over what is on this machine.
        if is_loopback(&to) && !is_loopback(from) {
            return Err(RegistryError::Protocol {
                url: shown(from),
                problem: format!("it redirects to this machine ({})", shown(&to)),
            });
        }
        Ok(to)
    }

    /// Asks and reads the whole answer.
    pub(super) fn get(
        &self,
        url: Url,
        accept: &[&str],
        limit: u64,
    ) -> Result<(HeaderMap, Vec<u8>), RegistryError> {
        let mut ask = Ask::new(Method::GET, url.clone(), &[200]);
        for accept in accept {
            ask = ask.header(ACCEPT, accept);
        }
        let response = self.ask(&ask)?;
        let headers = response.headers().clone();
        let bytes = self.runtime.block_on(self.read(response, limit, &url))?;
        Ok((headers, bytes))
    }

    pub(super) fn check_cancelled(&self) -> Result<(), RegistryError> {
        match (self.cancelled)() {
            true => Err(RegistryError::Cancelled),
            false => Ok(()),
        }
    }

    pub(super) fn host(&self, url: &Url) -> String {
        let port = url.port_or_known_default().unwrap_or_default();
        format!("{}:{port}", url.host_str().unwrap_or_default())
    }
}

/// Where an answer says to go on; none if that is no URL.
pub(super) fn location(from: &Url, response: &Response) -> Option<Url> {
    let text = response.headers().get(LOCATION)?.to_str().ok()?;
    let is_http = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    from.join(text).ok().filter(is_http)
}
