//! A network between a client and nats-server that fails when a test says so: it delays what passes,
//! swallows it, or ends every connection.
//!
//! It knows nothing of messages; `proxy.rs` does.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Bytes read at a time.
const CHUNK: usize = 16 * 1024;
/// Chunks on their way in one direction: what the buffers of a real network hold.
const IN_FLIGHT: usize = 64;

/// How the network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Everything arrives, after so long, in each direction.
    Open(Duration),
    /// Nothing arrives, as if every packet were lost; connections stay, and go on once it is open again.
    Silent,
    /// Every connection ends, with what was on its way, and a new one ends at once.
    Cut,
}

/// A listener that passes connections on; dropping it ends them.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    server: Arc<OnceLock<SocketAddr>>,
    wire: watch::Sender<Wire>,
    _tasks: JoinSet<()>,
}

impl Link {
    /// Listens on a free port. Connections end at once until [`towards`](Self::towards) says where to.
    ///
    /// # Errors
    /// If there is no free port.
    pub async fn listen() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = Arc::new(OnceLock::new());
        let wire = watch::Sender::new(Wire::Open(Duration::ZERO));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, server.clone(), wire.subscribe()));
        Ok(Self {
            address,
            server,
            wire,
            _tasks: tasks,
        })
    }

    /// Listens on a free port, before `server`, such as `nats://127.0.0.1:4222`.
    ///
    /// # Errors
    /// If there is no free port, or `server` is no such address.
    pub async fn before(server: &str) -> Result<Self> {
        let link = Self::listen().await?;
        link.towards(server)?;
        Ok(link)
    }

    /// Passes connections on to `server` from now on; the first call decides.
    ///
    /// # Errors
    /// If that is no address such as `nats://127.0.0.1:4222`.
    pub fn towards(&self, server: &str) -> Result<()> {
        let address = server
            .strip_prefix("nats://")
            .context("a nats:// address")?
            .parse()?;
        self.server.get_or_init(|| address);
        Ok(())
    }

    /// Where the client connects.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Makes the network so.
    pub fn set(&self, wire: Wire) {
        self.wire.send_replace(wire);
    }

    /// Swallows everything for `silent`, then ends every connection, and lets new ones in after `away`.
    pub async fn fail(&self, silent: Duration, away: Duration) {
        self.set(Wire::Silent);
        tokio::time::sleep(silent).await;
        self.set(Wire::Cut);
        tokio::time::sleep(away).await;
        self.set(Wire::Open(Duration::ZERO));
    }
}

async fn accept(
    listener: TcpListener,
    server: Arc<OnceLock<SocketAddr>>,
    wire: watch::Receiver<Wire>,
) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        if *wire.borrow() == Wire::Cut {
            continue;
        }
        if let Some(server) = server.get()
            && let Ok(server) = TcpStream::connect(server).await
        {
            connections.spawn(connect(client, server, wire.clone()));
        }
    }
}

/// Passes on both directions until one of them ends, or the wire is cut.
async fn connect(client: TcpStream, server: TcpStream, mut wire: watch::Receiver<Wire>) {
    for end in [&client, &server] {
        // By default TCP holds small packets back until the one before is acknowledged, for up to 40 ms. Where that cannot
        // be turned off the link is slower, and still one.
        let _ = end.set_nodelay(true);
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = pass(from_client, to_server, wire.clone()) => {}
        () = pass(from_server, to_client, wire.clone()) => {}
        _ = wire.wait_for(|wire| *wire == Wire::Cut) => {}
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut wire: watch::Receiver<Wire>) {
    let (depart, mut arrive) = mpsc::channel::<(Instant, Vec<u8>)>(IN_FLIGHT);
    let delays = wire.clone();
    let reading = async move {
        loop {
            let mut chunk = vec![0; CHUNK];
            match from.read(&mut chunk).await {
                Ok(read) if read > 0 => chunk.truncate(read),
                _ => return,
            }
            let delay = match *delays.borrow() {
                Wire::Open(delay) => delay,
                Wire::Silent | Wire::Cut => Duration::ZERO,
            };
            if depart.send((Instant::now() + delay, chunk)).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((at, chunk)) = arrive.recv().await {
            tokio::time::sleep_until(at).await;
            let opened = wire.wait_for(|wire| matches!(wire, Wire::Open(_)));
            let opened = opened.await.is_ok();
            if !opened || to.write_all(&chunk).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(reading, writing);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends back what it gets, and a connection to it over a link.
    async fn echo() -> Result<(Link, TcpStream, JoinSet<()>)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mut server = JoinSet::new();
        server.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await.ok();
            }
        });
        let link = Link::before(&format!("nats://{address}")).await?;
        let client = TcpStream::connect(link.address).await?;
        Ok((link, client, server))
    }

    async fn round_trip(client: &mut TcpStream) -> Result<Duration> {
        let begun = Instant::now();
        client.write_all(b"x").await?;
        let mut answer = [0];
        client.read_exact(&mut answer).await?;
        Ok(begun.elapsed())
    }

    #[tokio::test]
    async fn a_delay_is_added_in_each_direction() -> Result<()> {
        const DELAY: Duration = Duration::from_millis(30);
        let (link, mut client, _server) = echo().await?;
        round_trip(&mut client).await?;
        link.set(Wire::Open(DELAY));
        assert!(round_trip(&mut client).await? >= 2 * DELAY);
        Ok(())
    }

    #[tokio::test]
    async fn what_a_silent_wire_holds_arrives_once_it_is_open_again() -> Result<()> {
        let (link, mut client, _server) = echo().await?;
        round_trip(&mut client).await?;
        link.set(Wire::Silent);
        let waiting = Duration::from_millis(50);
        let silence = tokio::time::timeout(waiting, round_trip(&mut client)).await;
        assert!(silence.is_err());
        link.set(Wire::Open(Duration::ZERO));
        let mut answer = [0];
        client.read_exact(&mut answer).await?;
        assert_eq!(answer, *b"x");
        Ok(())
    }

    #[tokio::test]
    async fn a_cut_ends_connections_and_new_ones_until_it_is_mended() -> Result<()> {
        let (link, mut client, _server) = echo().await?;
        round_trip(&mut client).await?;
        link.set(Wire::Cut);
        assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0);
        let mut refused = TcpStream::connect(link.address).await?;
        assert!(round_trip(&mut refused).await.is_err());
        link.set(Wire::Open(Duration::ZERO));
        let mut again = TcpStream::connect(link.address).await?;
        round_trip(&mut again).await?;
        Ok(())
    }
}
