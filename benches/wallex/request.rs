//! One request, built once: only wallet ids and keys are rewritten for each operation.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;
use wallex::cli::loadtest::ask::Draw;

/// Wallets of every database: `w-000000` and up.
pub const WALLETS: u64 = 1_000;
pub const WALLET: &str = "{wallet}";
const KEY: &str = "{key}";
const KEY_LENGTH: usize = 36;

/// Which wallets operations touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// All of them, at random.
    Uniform,
    /// Wallet 0; the other side of a transfer is any.
    Hot,
}

#[derive(Debug, Clone)]
pub struct Request {
    bytes: Vec<u8>,
    wallets: Vec<usize>,
    keys: Vec<usize>,
    aim: Aim,
    draw: Draw,
    /// What has been written last into the first wallet's place.
    pub wallet: u64,
}

impl Request {
    pub fn get(path: &str, aim: Aim) -> Self {
        Self::parse(&format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n"), aim)
    }

    /// A command with a key of its own each time.
    pub fn post(path: &str, body: &str, aim: Aim) -> Self {
        let length = body.replace(KEY, &key_text(0)).replace(WALLET, &wallet_text(0)).len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n\
             idempotency-key: {KEY}\r\ncontent-length: {length}\r\n\r\n"
        );
        Self::parse(&(head + body), aim)
    }

    /// Markers are of another length than what stands in their place: offsets count what is sent.
    fn parse(text: &str, aim: Aim) -> Self {
        let (mut bytes, mut wallets, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            let (before, marked) = rest.split_at(at);
            bytes.extend_from_slice(before.as_bytes());
            rest = if let Some(after) = marked.strip_prefix(WALLET) {
                wallets.push(bytes.len());
                bytes.extend_from_slice(wallet_text(0).as_bytes());
                after
            } else if let Some(after) = marked.strip_prefix(KEY) {
                keys.push(bytes.len());
                bytes.extend_from_slice(key_text(0).as_bytes());
                after
            } else {
                bytes.push(b'{');
                &marked[1..]
            };
        }
        bytes.extend_from_slice(rest.as_bytes());
        Self { bytes, wallets, keys, aim, draw: Draw(0), wallet: 0 }
    }

    /// The same request for another connection: with a random sequence of its own.
    pub fn seeded(mut self, number: u64) -> Self {
        self.draw = Draw((number + 1) << 32);
        self
    }

    /// The next operation's bytes.
    pub fn next(&mut self) -> &[u8] {
        let mut last = WALLETS;
        for (i, at) in self.wallets.iter().enumerate() {
            let mut number = match (self.aim, i) {
                (Aim::Hot, 0) => 0,
                _ => self.draw.below(WALLETS),
            };
            // Both sides of a transfer stand next to each other: they must differ.
            if number == last {
                number = (number + 1) % WALLETS;
            }
            last = number;
            if i == 0 {
                self.wallet = number;
            }
            write_decimal(&mut self.bytes[at + 2..at + 8], number);
        }
        for at in &self.keys {
            write_key(&mut self.bytes[*at..at + KEY_LENGTH], fresh_key());
        }
        &self.bytes
    }
}

pub fn wallet_text(number: u64) -> String {
    format!("w-{number:06}")
}

/// A version 7 UUID of now, as callers are told to send them.
fn key_of(number: u64) -> Uuid {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    Uuid::from_u128((now << 80) | (0x7 << 76) | (0x8 << 60) | u128::from(number))
}

fn key_text(number: u64) -> String {
    key_of(number).to_string()
}

fn write_key(place: &mut [u8], number: u64) {
    key_of(number).hyphenated().encode_lower(place);
}

/// Keys count up from the start of the process: no key is ever used twice.
pub fn fresh_key() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn write_decimal(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}
