//! One keep-alive connection to the service, with one request on it at a time.
//!
//! Connection and request are polled by the same task: no channel between tasks, no wake-up across
//! threads. The generator must cost less than what it measures.

use std::fmt;
use std::pin::{Pin, pin};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use http_body_util::BodyExt as _;
use hyper::body::Bytes;
use hyper::client::conn::http1::{Connection as Wire, SendRequest, handshake};
use hyper::{HeaderMap, Method, Request, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Where the service is: `http://host:port`, perhaps with a path before its routes.
#[derive(Debug, Clone)]
pub struct Target {
    authority: String,
    host: String,
    port: u16,
    path: String,
}

/// An answer, read whole.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// No answer.
#[derive(Debug)]
pub enum Failure {
    /// Nothing was sent.
    Unreachable(String),
    /// The service may or may not have done what was asked.
    Unknown(String),
}

/// A client of one connection; connects when first used, and again after a failure.
pub struct Client {
    target: Target,
    patience: Duration,
    connected: Option<Connected>,
}

struct Connected {
    sender: SendRequest<String>,
    wire: Pin<Box<Wire<TokioIo<TcpStream>, String>>>,
}

impl FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let uri: Uri = text.parse().context("no URL")?;
        if uri.scheme_str() != Some("http") {
            bail!("only http:// URLs are spoken");
        }
        let authority = uri.authority().context("no host")?;
        if authority.as_str().contains('@') || uri.query().is_some() {
            bail!("a URL of the form http://host:port is wanted");
        }
        Ok(Self {
            authority: authority.to_string(),
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(80),
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(cause) => write!(f, "unreachable: {cause}"),
            Self::Unknown(cause) => f.write_str(cause),
        }
    }
}

impl Answer {
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, String> {
        serde_json::from_slice(&self.body)
            .map_err(|error| format!("an answer {} that cannot be read: {error}", self.status))
    }

    /// The code of a problem document; of anything else, the status.
    pub fn code(&self) -> String {
        #[derive(serde::Deserialize)]
        struct Problem {
            code: String,
        }
        self.json::<Problem>().map_or_else(|_| format!("status {}", self.status), |p| p.code)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Client {
    pub fn new(target: Target, patience: Duration) -> Self {
        Self { target, patience, connected: None }
    }

    pub async fn get(&mut self, path: &str) -> Result<Answer, Failure> {
        self.call(Method::GET, path, None, String::new()).await
    }

    pub async fn post(
        &mut self,
        path: &str,
        key: Option<&str>,
        body: String,
    ) -> Result<Answer, Failure> {
        self.call(Method::POST, path, key, body).await
    }

    async fn call(
        &mut self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: String,
    ) -> Result<Answer, Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.target.path))
            .header(header::HOST, &self.target.authority);
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let request = request.body(body).map_err(|e| Failure::Unreachable(e.to_string()))?;
        let mut connected = match self.connected.take() {
            Some(connected) if !connected.sender.is_closed() => connected,
            _ => self.connect().await?,
        };
        let answer = timeout(self.patience, connected.exchange(request)).await;
        // Anything but a whole answer leaves the connection unusable.
        let answer = answer
            .map_err(|_| Failure::Unknown("no answer in time".to_owned()))?
            .map_err(|error| Failure::Unknown(format!("connection lost: {error}")))?;
        self.connected = Some(connected);
        Ok(answer)
    }

    async fn connect(&self) -> Result<Connected, Failure> {
        let unreachable = |cause: &dyn fmt::Display| Failure::Unreachable(cause.to_string());
        let connecting = TcpStream::connect((self.target.host.as_str(), self.target.port));
        let stream = timeout(self.patience, connecting)
            .await
            .map_err(|_| unreachable(&"no connection in time"))?
            .map_err(|error| unreachable(&error))?;
        stream.set_nodelay(true).map_err(|error| unreachable(&error))?;
        let (sender, wire) =
            handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(&error))?;
        Ok(Connected { sender, wire: Box::pin(wire) })
    }
}

impl Connected {
    async fn exchange(&mut self, request: Request<String>) -> hyper::Result<Answer> {
        let sender = &mut self.sender;
        let mut exchange = pin!(async move {
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
        });
        tokio::select! {
            biased;
            answer = &mut exchange => answer,
            // It ended, perhaps after the answer's last byte: then that is all there.
            _ = &mut self.wire => exchange.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_plain_http_urls() {
        let target: Target = "http://[::1]:3000/api/".parse().unwrap();
        assert_eq!(
            (target.host.as_str(), target.port, target.path.as_str()),
            ("::1", 3000, "/api")
        );
        assert_eq!("http://wallex".parse::<Target>().unwrap().to_string(), "http://wallex");
        for wrong in ["wallex:3000", "https://wallex", "http://", "ftp://wallex", "http://a@b", ""]
        {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }
}
