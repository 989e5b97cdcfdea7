//! A TCP proxy between the service and a server, for what networks do: bytes are late, one
//! direction or both fall silent, connections are cut. Between the service and PostgreSQL it also
//! knows a COMMIT when it sees one, and can lose its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What happens to bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    Through,
    Late(Duration),
    /// Nothing arrives any more, and neither side learns of it.
    Silent,
}

/// What becomes of a COMMIT whose answer is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The server never gets it.
    Never,
    /// The server commits and answers; the answer is dropped.
    Answered,
    /// The client's connection is cut first; the server gets the COMMIT after this.
    Later(Duration),
    /// The server commits; its answer is on its way for ever.
    Held,
}

/// What a connection does with answers from now on.
const LOST: usize = 1;
const HELD: usize = 2;

#[derive(Debug)]
struct Shared {
    target: AtomicU16,
    to_server: watch::Sender<Flow>,
    to_client: watch::Sender<Flow>,
    /// New connections and those there are: cut when replaced.
    alive: watch::Sender<CancellationToken>,
    /// Every n-th COMMIT of these sessions is lost; 0: none.
    every: AtomicUsize,
    /// All of them are held, whatever the fates.
    hold: AtomicBool,
    application: &'static str,
    /// PostgreSQL's messages are told apart; else bytes are bytes.
    framed: bool,
    fates: Vec<Fate>,
    commits: AtomicUsize,
    lost: AtomicUsize,
    /// Connections taken so far, and the last of them that is stranded.
    taken: AtomicUsize,
    stranded: AtomicUsize,
}

/// A running proxy; it ends with the test.
#[derive(Debug)]
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl Proxy {
    /// A proxy to a port of the loopback.
    pub async fn start(target: u16) -> Self {
        Self::with_fates(target, "", Vec::new()).await
    }

    /// The same; COMMITs that are lost meet these fates in turn. Only those of sessions whose
    /// application name begins like this.
    pub async fn with_fates(target: u16, application: &'static str, fates: Vec<Fate>) -> Self {
        Self::listen(target, application, fates, true).await
    }

    /// A proxy to a server that does not speak PostgreSQL's protocol.
    pub async fn of_bytes(target: u16) -> Self {
        Self::listen(target, "", Vec::new(), false).await
    }

    async fn listen(
        target: u16,
        application: &'static str,
        fates: Vec<Fate>,
        framed: bool,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            target: AtomicU16::new(target),
            to_server: watch::Sender::new(Flow::Through),
            to_client: watch::Sender::new(Flow::Through),
            alive: watch::Sender::new(CancellationToken::new()),
            every: AtomicUsize::new(0),
            hold: AtomicBool::new(false),
            application,
            framed,
            fates,
            commits: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
            stranded: AtomicUsize::new(0),
        });
        let stop = CancellationToken::new();
        let accepting = accept(listener, Arc::clone(&shared));
        tokio::spawn(stop.clone().run_until_cancelled_owned(accepting));
        Self { port, shared, stop }
    }

    /// The flow towards the server and back.
    pub fn flow(&self, to_server: Flow, to_client: Flow) {
        self.shared.to_server.send_replace(to_server);
        self.shared.to_client.send_replace(to_client);
    }

    /// Connections that were asked for so far.
    pub fn taken(&self) -> usize {
        self.shared.taken.load(Ordering::Relaxed)
    }

    /// New connections go to another port of the loopback: the address of a server has moved.
    pub fn lead_to(&self, port: u16) {
        self.shared.target.store(port, Ordering::Relaxed);
    }

    /// Cuts all connections; new ones are taken.
    pub fn cut(&self) {
        self.shared.alive.send_replace(CancellationToken::new()).cancel();
    }

    /// Nothing comes through the connections there are, ever, and neither side learns of it; new ones work.
    pub fn strand(&self) {
        self.shared.stranded.store(self.shared.taken.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// From now on the answer of every n-th COMMIT is lost; 0 ends it.
    pub fn lose_commits(&self, every: usize) {
        self.shared.every.store(every, Ordering::Relaxed);
    }

    /// While this is on, every COMMIT of these sessions goes through and its answer never comes.
    pub fn hold_commits(&self, hold: bool) {
        self.shared.hold.store(hold, Ordering::Relaxed);
    }

    /// COMMITs whose answer was lost so far.
    pub fn lost(&self) -> usize {
        self.shared.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
        self.cut();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let shared = Arc::clone(&shared);
        let number = shared.taken.fetch_add(1, Ordering::Relaxed) + 1;
        let port = shared.target.load(Ordering::Relaxed);
        tokio::spawn(async move {
            // A server that is down shows as a connection that ends at once.
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let alive = shared.alive.borrow().clone();
            alive.run_until_cancelled(carry(client, server, shared, number)).await;
        });
    }
}

/// Carries both directions until one ends; dropping the halves cuts the other.
async fn carry(client: TcpStream, server: TcpStream, shared: Arc<Shared>, number: usize) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mute = Arc::new(AtomicUsize::new(0));
    tokio::select! {
        () = upstream(from_client, to_server, &shared, &mute, number) => {}
        () = downstream(from_server, to_client, &shared, &mute, number) => {}
    }
}

async fn downstream(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    mute: &AtomicUsize,
    number: usize,
) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        match mute.load(Ordering::Relaxed) {
            // The lost answer: the client sees its connection end instead.
            LOST => return,
            HELD => continue,
            _ => {}
        }
        shared.held(&shared.to_client, number).await;
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

async fn upstream(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    mute: &AtomicUsize,
    number: usize,
) {
    let mut waiting: Vec<u8> = Vec::new();
    let mut bytes = vec![0; 64 * 1024];
    // The first messages (SSLRequest, startup) have no type byte.
    let mut started = false;
    let mut meant = false;
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        if !shared.framed {
            shared.held(&shared.to_server, number).await;
            match to.write_all(&bytes[..read]).await {
                Ok(()) => continue,
                Err(_) => return,
            }
        }
        waiting.extend_from_slice(&bytes[..read]);
        while let Some(length) = message(&waiting, started) {
            let message: Vec<u8> = waiting.drain(..length).collect();
            if !started && length != 8 {
                let name = format!("application_name\0{}", shared.application);
                meant = String::from_utf8_lossy(&message).contains(&name);
                started = true;
            }
            shared.held(&shared.to_server, number).await;
            match shared.fate_of(&message, meant) {
                None => {}
                Some(Fate::Never) => return,
                Some(Fate::Answered) => {
                    mute.store(LOST, Ordering::Relaxed);
                    let _ = to.write_all(&message).await;
                    // `downstream` ends the connection with the answer.
                    return std::future::pending().await;
                }
                Some(Fate::Held) => {
                    mute.store(HELD, Ordering::Relaxed);
                    let _ = to.write_all(&message).await;
                    return std::future::pending().await;
                }
                Some(Fate::Later(delay)) => {
                    tokio::spawn(async move {
                        tokio::time::sleep(delay).await;
                        let _ = to.write_all(&message).await;
                        // Closed at once, the server might not read it any more.
                        tokio::time::sleep(delay).await;
                    });
                    return;
                }
            }
            if to.write_all(&message).await.is_err() {
                return;
            }
        }
    }
}

/// The length of the first message, once it is there whole.
fn message(bytes: &[u8], started: bool) -> Option<usize> {
    let at = usize::from(started);
    let length = u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().unwrap());
    let length = length as usize + at;
    (bytes.len() >= length).then_some(length)
}

impl Shared {
    /// Holds bytes back as the flow asks; what was silent arrives when it speaks again.
    async fn held(&self, flow: &watch::Sender<Flow>, connection: usize) {
        let now = *flow.borrow();
        if let Flow::Late(delay) = now {
            return tokio::time::sleep(delay).await;
        }
        let mut flow = flow.subscribe();
        let _ = flow.wait_for(|flow| *flow != Flow::Silent).await;
        if connection <= self.stranded.load(Ordering::Relaxed) {
            std::future::pending().await
        }
    }

    /// The fate of a message that is a COMMIT, where one is due.
    fn fate_of(&self, message: &[u8], meant: bool) -> Option<Fate> {
        let every = self.every.load(Ordering::Relaxed);
        let commit = message.first() == Some(&b'Q')
            && message.get(5..11).is_some_and(|text| text.eq_ignore_ascii_case(b"commit"));
        if commit && meant && self.hold.load(Ordering::Relaxed) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return Some(Fate::Held);
        }
        if every == 0 || !commit || !meant {
            return None;
        }
        let number = self.commits.fetch_add(1, Ordering::Relaxed) + 1;
        if !number.is_multiple_of(every) {
            return None;
        }
        let lost = self.lost.fetch_add(1, Ordering::Relaxed);
        self.fates.get(lost % self.fates.len()).copied()
    }
}
