//! Several nats-servers that hold each stream together.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use async_nats::jetstream;
use futures::future::try_join_all;
use inferq::stack::nats::{NatsOptions, NatsServer};
use inferq::{AssetPlan, Client};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::PATIENCE;

const LOOK: Duration = Duration::from_millis(100);
/// A port that was free may be taken before the server has it.
const STARTS: usize = 3;

/// A running cluster; dropping it kills its servers.
#[derive(Debug)]
pub struct Cluster {
    servers: Vec<NatsServer>,
    _folders: Vec<TempDir>,
}

impl Cluster {
    /// Starts `count` servers that know each other, and waits until each has room for streams.
    ///
    /// # Errors
    /// If one of them does not start, or they do not come together within [`PATIENCE`].
    pub async fn start(count: usize) -> Result<Self> {
        let mut start = 1;
        loop {
            match Self::start_once(count).await {
                Err(error) if start == STARTS => return Err(error),
                Err(_) => start += 1,
                Ok(cluster) => return Ok(cluster),
            }
        }
    }

    async fn start_once(count: usize) -> Result<Self> {
        // Held together until all are known, so that no two are the same.
        let held: Vec<TcpListener> = (0..count)
            .map(|_| TcpListener::bind("127.0.0.1:0"))
            .collect::<Result<_, _>>()?;
        let ports: Vec<u16> = held
            .iter()
            .map(|listener| Ok(listener.local_addr()?.port()))
            .collect::<Result<_>>()?;
        drop(held);
        let folders: Vec<TempDir> = (0..count)
            .map(|_| tempfile::tempdir())
            .collect::<Result<_, _>>()?;
        let servers = folders.iter().enumerate().map(|(index, folder)| {
            NatsServer::start(NatsOptions {
                name: name(index),
                max_memory: plan(count).memory_bytes(),
                more: routes(&ports, ports[index]),
                ..NatsOptions::new(folder.path())
            })
        });
        Ok(Self {
            servers: try_join_all(servers).await?,
            _folders: folders,
        })
    }

    /// What to make in it: as many copies of each stream as it has servers.
    pub fn plan(&self) -> AssetPlan {
        plan(self.servers.len())
    }

    /// A client of its first server, once the streams can be made; they are.
    ///
    /// # Errors
    /// If that takes longer than [`PATIENCE`].
    pub async fn init(&self) -> Result<Client> {
        let client = Client::connect(self.url(0)).await?;
        let until = Instant::now() + PATIENCE;
        // Until the servers have elected one of them nobody can make a stream.
        while let Err(error) = client.admin(self.plan()).init().await {
            if Instant::now() > until {
                return Err(error).context("the servers did not come together");
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(client)
    }

    /// Where a server listens.
    pub fn url(&self, index: usize) -> &str {
        self.servers[index].url()
    }

    /// A server.
    pub fn server(&self, index: usize) -> &NatsServer {
        &self.servers[index]
    }

    /// The server that leads `stream`.
    ///
    /// # Errors
    /// If none does within [`PATIENCE`].
    pub async fn leader(&self, client: &Client, stream: &str) -> Result<usize> {
        let jetstream = jetstream::new(client.nats().clone());
        let until = Instant::now() + PATIENCE;
        loop {
            if let Ok(stream) = jetstream.get_stream(stream).await {
                let cluster = stream.cached_info().cluster.clone();
                let leader = cluster.and_then(|cluster| cluster.leader);
                let servers = 0..self.servers.len();
                if let Some(index) = leader
                    .and_then(|leader| servers.into_iter().find(|index| name(*index) == leader))
                {
                    return Ok(index);
                }
            }
            ensure!(Instant::now() < until, "{stream} has no leader");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until every copy of `stream` is as new as its leader's.
    ///
    /// # Errors
    /// If that takes longer than [`PATIENCE`].
    pub async fn in_step(&self, client: &Client, stream: &str) -> Result<()> {
        let jetstream = jetstream::new(client.nats().clone());
        let until = Instant::now() + PATIENCE;
        loop {
            if let Ok(found) = jetstream.get_stream(stream).await {
                let cluster = found.cached_info().cluster.clone().context("no cluster")?;
                let current = cluster.replicas.iter().filter(|peer| peer.current);
                if current.count() + 1 == self.servers.len() {
                    return Ok(());
                }
            }
            if Instant::now() > until {
                bail!("the copies of {stream} did not come into step");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Stops all servers.
    pub async fn stop(self) {
        for server in &self.servers {
            server.stop().await;
        }
    }
}

fn name(index: usize) -> String {
    format!("node-{}", index + 1)
}

fn plan(count: usize) -> AssetPlan {
    AssetPlan {
        replicas: count.try_into().expect("a cluster has servers"),
        ..AssetPlan::default()
    }
}

/// The lines that make a server one of a cluster.
fn routes(ports: &[u16], own: u16) -> String {
    let routes: Vec<String> = ports
        .iter()
        .map(|port| format!("nats-route://127.0.0.1:{port}"))
        .collect();
    format!(
        "cluster {{ name: inferq, listen: \"127.0.0.1:{own}\", routes: [{}] }}",
        routes.join(", ")
    )
}
