//! Listeners that are no brokers.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// What it does with a connection.
#[derive(Debug, Clone, Copy)]
pub enum Way {
    Closes,
    /// It says nothing, and keeps the connection.
    Silent,
    /// It greets whoever comes, and hangs up when it was spoken to.
    Says(&'static [u8]),
}

/// It notes each connection, and ends with the process.
pub struct Fake {
    pub address: String,
    pub taken: Arc<Mutex<Vec<Instant>>>,
}

impl Fake {
    /// On a free port.
    pub fn new(way: Way) -> Self {
        Self::over(TcpListener::bind("127.0.0.1:0").unwrap(), way)
    }

    pub fn over(listener: TcpListener, way: Way) -> Self {
        let address = listener.local_addr().unwrap().to_string();
        let taken: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let noted = Arc::clone(&taken);
        std::thread::spawn(move || {
            let mut kept: Vec<TcpStream> = Vec::new();
            for connection in listener.incoming() {
                noted.lock().unwrap().push(Instant::now());
                let Ok(mut connection) = connection else { continue };
                match way {
                    Way::Closes => {}
                    Way::Silent => kept.push(connection),
                    Way::Says(greeting) => {
                        std::thread::spawn(move || {
                            let mut heard = [0; 1024];
                            let _ = connection.write_all(greeting);
                            let _ = connection.read(&mut heard);
                        });
                    }
                }
            }
        });
        Self { address, taken }
    }

    pub fn taken(&self) -> Vec<Instant> {
        self.taken.lock().unwrap().clone()
    }
}
