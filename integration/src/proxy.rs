//! Stands between one client and nats-server, and holds the traffic at an exact message: a worker
//! can then be killed right before, or right after, it has written an outcome. Or only the connection that the
//! message came over is held.
//!
//! Only what a client sends is parsed, as far as it takes to find where messages begin.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// On which side of the message the traffic is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The message does not reach the server.
    Before,
    /// The message reaches the server, whose answer does not come back.
    After,
}

/// A proxy in front of a nats-server; dropping it closes its connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    gate: Gate,
    _tasks: JoinSet<()>,
}

/// Where traffic is held, and how much of it.
#[derive(Debug, Clone)]
struct Rule {
    side: Side,
    prefix: String,
    /// Only the connection of the message.
    alone: bool,
}

/// What one connection goes by.
#[derive(Debug, Clone)]
struct Gate {
    rule: Arc<Mutex<Option<Rule>>>,
    /// Nothing passes over any connection.
    closed: Arc<AtomicBool>,
    /// Nothing passes over this one.
    own_closed: Arc<AtomicBool>,
    /// Whether traffic is held, told to whoever waits for it once the message has gone where it should.
    held: Arc<watch::Sender<bool>>,
}

impl Proxy {
    /// Listens on a free port and passes everything on to `server`, such as `nats://127.0.0.1:4222`.
    ///
    /// # Errors
    /// If there is no free port.
    pub async fn start(server: &str) -> Result<Self> {
        let server: SocketAddr = server
            .strip_prefix("nats://")
            .context("a nats:// address")?
            .parse()?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let gate = Gate {
            rule: Arc::default(),
            closed: Arc::default(),
            own_closed: Arc::default(),
            held: Arc::new(watch::Sender::new(false)),
        };
        let mut tasks = JoinSet::new();
        let inside = gate.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                if let Ok(server) = TcpStream::connect(server).await {
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    let own = Gate {
                        own_closed: Arc::default(),
                        ..inside.clone()
                    };
                    connections.spawn(upstream(from_client, to_server, own.clone()));
                    connections.spawn(downstream(from_server, to_client, own));
                }
            }
        });
        Ok(Self {
            address,
            gate,
            _tasks: tasks,
        })
    }

    /// Where the client connects.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// From the next message whose subject starts with `prefix` on nothing passes any more.
    pub fn hold(&self, side: Side, prefix: &str) {
        self.gate.set(side, prefix, false);
    }

    /// The same, but only over the connection that the message came over.
    pub fn hold_connection(&self, side: Side, prefix: &str) {
        self.gate.set(side, prefix, true);
    }

    /// Waits until that message has come.
    ///
    /// # Errors
    /// If it does not within [`PATIENCE`](crate::PATIENCE).
    pub async fn held(&self) -> Result<()> {
        let mut held = self.gate.held.subscribe();
        tokio::time::timeout(crate::PATIENCE, held.wait_for(|held| *held))
            .await
            .context("the message to hold at never came")??;
        Ok(())
    }
}

impl Gate {
    fn set(&self, side: Side, prefix: &str, alone: bool) {
        let prefix = prefix.to_owned();
        *self.rule() = Some(Rule {
            side,
            prefix,
            alone,
        });
    }

    fn rule(&self) -> std::sync::MutexGuard<'_, Option<Rule>> {
        self.rule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self, subject: &str) -> Option<Rule> {
        let rule = self.rule().clone();
        rule.filter(|rule| subject.starts_with(&rule.prefix))
    }

    fn close(&self, rule: &Rule) {
        let closed = if rule.alone {
            &self.own_closed
        } else {
            &self.closed
        };
        closed.store(true, Ordering::SeqCst);
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst) || self.own_closed.load(Ordering::SeqCst)
    }
}

async fn upstream(from: OwnedReadHalf, mut to: OwnedWriteHalf, gate: Gate) {
    let mut from = BufReader::new(from);
    loop {
        let mut frame = Vec::new();
        match from.read_until(b'\n', &mut frame).await {
            Ok(read) if read > 0 => {}
            _ => return,
        }
        let line = String::from_utf8_lossy(&frame).into_owned();
        let mut words = line.split_whitespace();
        let verb = words.next().unwrap_or_default().to_ascii_uppercase();
        let mut rule = None;
        if verb == "PUB" || verb == "HPUB" {
            rule = words.next().and_then(|subject| gate.at(subject));
            let size: usize = words
                .next_back()
                .and_then(|size| size.parse().ok())
                .unwrap_or(0);
            let start = frame.len();
            frame.resize(start + size + 2, 0);
            if from.read_exact(&mut frame[start..]).await.is_err() {
                return;
            }
        }
        if gate.is_closed() {
            return swallow(from).await;
        }
        match rule {
            None => {
                if to.write_all(&frame).await.is_err() {
                    return;
                }
            }
            Some(rule) => {
                // First of all, so that what the server answers from here on stays here.
                gate.close(&rule);
                if rule.side == Side::After {
                    to.write_all(&frame).await.ok();
                }
                gate.held.send_replace(true);
                return swallow(from).await;
            }
        }
    }
}

/// Lets the client believe that it is heard, until it is gone; then the server may know as well.
async fn swallow(mut from: BufReader<OwnedReadHalf>) {
    let mut chunk = vec![0; 64 * 1024];
    while from.read(&mut chunk).await.is_ok_and(|read| read > 0) {}
}

async fn downstream(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, gate: Gate) {
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let Ok(read) = from.read(&mut chunk).await else {
            return;
        };
        if read > 0 && gate.is_closed() {
            continue;
        }
        if read == 0 || to.write_all(&chunk[..read]).await.is_err() {
            return;
        }
    }
}
