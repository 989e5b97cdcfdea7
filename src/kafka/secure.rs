//! TLS and SASL for both clients alike. Certificates are always checked; secrets are read again for
//! each connection, since their files may have changed, and appear in no error.

use std::path::Path;
use std::sync::Arc;

use krafka::auth::{AuthConfig, TlsConfig};
use rskafka::client::{ClientBuilder, Credentials, SaslConfig};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use super::error::{Class, Error};
use crate::config::{KafkaSettings, SaslMechanism, Secret, SecretSource};

/// How to get in, as of now.
pub(super) struct Access {
    tls: Option<Tls>,
    login: Option<Login>,
}

struct Tls {
    /// The authorities' file; none: the system's authorities.
    pem: Option<Vec<u8>>,
    client: Arc<ClientConfig>,
}

struct Login {
    mechanism: SaslMechanism,
    username: String,
    password: Secret,
}

impl Access {
    /// Reads what the settings point to.
    pub(super) async fn read(settings: &KafkaSettings) -> Result<Self, Error> {
        let tls = match &settings.tls {
            None => None,
            Some(tls) => Some(read_tls(tls.ca_file.as_deref()).await?),
        };
        let login = match &settings.sasl {
            None => None,
            Some(sasl) => Some(Login {
                mechanism: sasl.mechanism,
                username: sasl.username.clone(),
                password: read_secret("KAFKA_SASL_PASSWORD_FILE", &sasl.password).await?,
            }),
        };
        Ok(Self { tls, login })
    }

    pub(super) fn krafka(&self) -> AuthConfig {
        let auth = match &self.login {
            None => AuthConfig::plaintext(),
            Some(Login { mechanism, username, password }) => {
                let (user, password) = (username.as_str(), password.expose());
                match mechanism {
                    SaslMechanism::Plain => AuthConfig::sasl_plain(user, password),
                    SaslMechanism::ScramSha256 => AuthConfig::sasl_scram_sha256(user, password),
                    SaslMechanism::ScramSha512 => AuthConfig::sasl_scram_sha512(user, password),
                }
            }
        };
        match &self.tls {
            None => auth,
            Some(Tls { pem: Some(pem), .. }) => {
                auth.with_tls(TlsConfig::new().with_ca_cert_pem(pem.as_slice()))
            }
            Some(Tls { pem: None, .. }) => auth.with_tls(TlsConfig::new().with_native_roots()),
        }
    }

    pub(super) fn rskafka(&self, mut builder: ClientBuilder) -> ClientBuilder {
        if let Some(tls) = &self.tls {
            builder = builder.tls_config(Arc::clone(&tls.client));
        }
        if let Some(Login { mechanism, username, password }) = &self.login {
            let login = Credentials::new(username.clone(), password.expose().to_owned());
            builder = builder.sasl_config(match mechanism {
                SaslMechanism::Plain => SaslConfig::Plain(login),
                SaslMechanism::ScramSha256 => SaslConfig::ScramSha256(login),
                SaslMechanism::ScramSha512 => SaslConfig::ScramSha512(login),
            });
        }
        builder
    }

    /// For a handshake of our own; none: TLS is off.
    pub(super) fn tls(&self) -> Option<Arc<ClientConfig>> {
        self.tls.as_ref().map(|tls| Arc::clone(&tls.client))
    }
}

async fn read_tls(file: Option<&Path>) -> Result<Tls, Error> {
    let mut roots = RootCertStore::empty();
    let pem = match file {
        Some(file) => {
            let pem = read_file("KAFKA_SSL_CA_FILE", file).await?;
            for found in CertificateDer::pem_slice_iter(&pem) {
                let added = found.map_err(|error| format!("{error:?}")).and_then(|certificate| {
                    roots.add(certificate).map_err(|error| error.to_string())
                });
                added.map_err(|error| no_authority(file, &error))?;
            }
            if roots.is_empty() {
                return Err(no_authority(file, "no certificate is in it"));
            }
            Some(pem)
        }
        None => {
            // Many files, read one after the other.
            let reading = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs);
            let found =
                reading.await.map_err(|error| Error::new(Class::Auth, error.to_string()))?;
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                let text = "KAFKA_SSL_CA_FILE is not set, and this system has no certificate \
                            authorities of its own";
                return Err(Error::new(Class::Auth, text));
            }
            None
        }
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(Class::Auth, error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Tls { pem, client: Arc::new(client) })
}

fn no_authority(file: &Path, problem: &str) -> Error {
    Error::new(Class::Auth, format!("KAFKA_SSL_CA_FILE={}: {problem}", file.display()))
}

async fn read_secret(name: &str, source: &SecretSource) -> Result<Secret, Error> {
    match source {
        SecretSource::Value(secret) => Ok(secret.clone()),
        SecretSource::File(path) => {
            let bytes = read_file(name, path).await?;
            let text = String::from_utf8(bytes)
                .map_err(|_| Error::new(Class::Auth, format!("{name}: not UTF-8")))?;
            Ok(Secret::new(text.trim_end_matches(['\n', '\r'])))
        }
    }
}

async fn read_file(name: &str, path: &Path) -> Result<Vec<u8>, Error> {
    let read = tokio::fs::read(path).await;
    read.map_err(|error| Error::new(Class::Auth, format!("{name}={}: {error}", path.display())))
}
