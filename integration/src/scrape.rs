//! What a worker shows at `/metrics`.

use anyhow::{Context, Result};
use inferq::Client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::PATIENCE;

/// The value of one series of the worker `id`, such as `inferq_jobs_total{model="digits"}`; 0 for one
/// that has not begun.
///
/// # Errors
/// If there is no such worker, or it does not answer.
pub async fn metric(client: &Client, id: &str, series: &str) -> Result<f64> {
    let workers = client.workers().await?;
    let worker = workers.iter().find(|worker| worker.id == id);
    let address = worker.and_then(|worker| worker.http.clone());
    let address = address.with_context(|| format!("no worker {id} with an HTTP port"))?;
    let mut stream = TcpStream::connect(&address).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let value = text.lines().find_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        (name == series).then(|| value.to_owned())
    });
    value.map_or(Ok(0.0), |value| {
        value.parse().with_context(|| format!("{series} {value}"))
    })
}

/// Waits until a series of the worker `id` has this value. Who does not answer for a while is asked again.
///
/// # Errors
/// If it has another one after [`PATIENCE`].
pub async fn wait_for_metric(client: &Client, id: &str, series: &str, value: f64) -> Result<()> {
    let mut seen = metric(client, id, series).await;
    let reached = async {
        while !matches!(seen, Ok(seen) if seen == value) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            seen = metric(client, id, series).await;
        }
    };
    match tokio::time::timeout(PATIENCE, reached).await {
        Ok(()) => Ok(()),
        Err(_) => anyhow::bail!("{series} of {id} never became {value}: {seen:?}"),
    }
}
