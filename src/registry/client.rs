//! Requests to the registry, a connection each: they are few, and come once at a start.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::RegistryError;
use crate::config::RegistrySettings;

/// A registry that is silent for longer is away.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 4 << 20;
const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

#[derive(Debug)]
pub(super) struct Client {
    settings: RegistrySettings,
}

/// An answer, read whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    body: Bytes,
    registry: String,
    what: String,
}

/// Any of what can go wrong with a connection, in words.
type Cause = Box<dyn std::error::Error + Send + Sync>;

impl Client {
    pub fn new(settings: RegistrySettings) -> Self {
        Self { settings }
    }

    pub fn settings(&self) -> &RegistrySettings {
        &self.settings
    }

    pub async fn get(&self, path: &str) -> Result<Answer, RegistryError> {
        self.call(Method::GET, path, String::new()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer, RegistryError> {
        self.call(Method::POST, path, body.to_string()).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Result<Answer, RegistryError> {
        self.call(Method::PUT, path, body.to_string()).await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<Answer, RegistryError> {
        let what = format!("{method} {path}");
        let away =
            |cause: String| RegistryError::Away { registry: self.settings.to_string(), cause };
        let exchange = Box::pin(self.exchange(method, path, body));
        let answer = timeout(ANSWER_TIMEOUT, exchange).await;
        let answer = answer.map_err(|_| away(format!("nothing within {ANSWER_TIMEOUT:?}")))?;
        let (status, body) = answer.map_err(|cause| away(cause.to_string()))?;
        Ok(Answer { status, body, registry: self.settings.to_string(), what })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<(u16, Bytes), Cause> {
        let RegistrySettings { https, host, port, path: base, authorization } = &self.settings;
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{base}{path}"))
            .header(header::HOST, format!("{host}:{port}"))
            .header(header::ACCEPT, MEDIA_TYPE);
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, MEDIA_TYPE);
        }
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization.expose());
        }
        let request = request.body(body)?;
        let bare = host.trim_matches(['[', ']']);
        let stream = TcpStream::connect((bare, *port)).await?;
        if !https {
            return send(stream, request).await;
        }
        let name = ServerName::try_from(bare.to_owned())?;
        let connector = TlsConnector::from(Arc::new(tls().await?));
        send(connector.connect(name, stream).await?, request).await
    }
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    request: Request<String>,
) -> Result<(u16, Bytes), Cause> {
    let (mut sender, wire) = handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes();
        Ok((head.status.as_u16(), body))
    };
    let (mut exchange, wire) = (std::pin::pin!(exchange), std::pin::pin!(wire));
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // It ended, perhaps after the answer's last byte: then that is all there.
        _ = wire => exchange.await,
    }
}

/// The system's authorities, read again as for every other client; `SSL_CERT_FILE` names others.
async fn tls() -> Result<ClientConfig, Cause> {
    // Many files, read one after the other.
    let found = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

impl Answer {
    /// Itself, where it is a yes.
    pub fn ok(self) -> Result<Self, RegistryError> {
        if (200..300).contains(&self.status) { Ok(self) } else { Err(self.refused()) }
    }

    /// None: there is no such thing.
    pub fn unless_missing(self) -> Result<Option<Self>, RegistryError> {
        if self.status == 404 { Ok(None) } else { self.ok().map(Some) }
    }

    pub fn json<T: DeserializeOwned>(self) -> Result<T, RegistryError> {
        serde_json::from_slice(&self.body).map_err(|_| self.refused())
    }

    /// What it says is wrong.
    pub fn message(&self) -> String {
        #[derive(Deserialize)]
        struct Problem {
            message: String,
        }
        match serde_json::from_slice(&self.body) {
            Ok(Problem { message }) => message,
            Err(_) => String::from_utf8_lossy(&self.body).chars().take(200).collect(),
        }
    }

    fn refused(&self) -> RegistryError {
        RegistryError::Refused {
            registry: self.registry.clone(),
            status: self.status,
            what: self.what.clone(),
            message: self.message(),
        }
    }
}
