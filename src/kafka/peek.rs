//! A look at what listens at a port, for people who look for what is wrong: it is spoken to as Kafka, in TLS
//! and in HTTP, and the first bytes of an answer tell. Nothing here is used by the service itself.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::hint::Heard;

/// What listens there answers at once, or not at all.
const WAIT: Duration = Duration::from_secs(2);

/// Asks for the versions that a broker knows, which it answers before any login: version 0, without a name.
const VERSIONS: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0x57, 0x4c, 0x4c, 0x58, 0xff, 0xff];
/// The number in it, which the answer begins with behind its length.
const NUMBER: [u8; 4] = [0x57, 0x4c, 0x4c, 0x58];

/// What was heard at `broker`; none: it closes the connection whatever is said.
pub(super) async fn peek(broker: &str) -> Option<Heard> {
    let answer = say(broker, &VERSIONS).await;
    match answer.as_deref() {
        Some([_, _, _, _, number @ ..]) if number.starts_with(&NUMBER) => {
            return Some(Heard::Kafka);
        }
        Some([a, b, c, d, ..]) => return Some(Heard::of([*a, *b, *c, *d])),
        _ => {}
    }
    if let Some([0x15 | 0x16, 3, ..]) = say(broker, &hello()).await.as_deref() {
        return Some(Heard::Tls);
    }
    if let Some([b'H', b'T', b'T', b'P', ..]) =
        say(broker, b"GET / HTTP/1.0\r\n\r\n").await.as_deref()
    {
        return Some(Heard::Http);
    }
    answer.is_none().then_some(Heard::Silence)
}

/// The first bytes of the answer; none of them: it closes. None: it says nothing.
async fn say(broker: &str, words: &[u8]) -> Option<Vec<u8>> {
    let mut heard = [0; 8];
    let mut count = 0;
    let talking = async {
        let mut socket = TcpStream::connect(broker).await?;
        socket.write_all(words).await?;
        while let Some(rest) = heard.get_mut(count..).filter(|rest| !rest.is_empty()) {
            match socket.read(rest).await? {
                0 => break,
                more => count += more,
            }
        }
        Ok::<_, std::io::Error>(())
    };
    let ended = timeout(WAIT, talking).await;
    let heard = heard.get(..count).unwrap_or_default().to_vec();
    (ended.is_ok() || !heard.is_empty()).then_some(heard)
}

/// How a client of TLS begins. No certificate is looked at: the answer is not read on.
fn hello() -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut hello = Vec::new();
    let Ok(versions) =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
    else {
        return hello;
    };
    let config = versions.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    if let Ok(name) = ServerName::try_from("localhost")
        && let Ok(mut client) = ClientConnection::new(Arc::new(config), name)
    {
        // Into memory: it takes everything.
        let _ = client.write_tls(&mut hello);
    }
    hello
}
