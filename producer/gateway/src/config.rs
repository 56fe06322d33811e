//! The flags of `inferq-gateway`.

use std::{net::SocketAddr, path::PathBuf};

use inferq::ByteSize;

/// HTTP door onto the queue: TensorFlow Serving v1 and Open Inference Protocol v2, JSON.
///
/// Anyone who reaches the port can use every model.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "inferq-gateway", version)]
pub struct Config {
    /// The NATS server; several may be given with commas.
    #[arg(
        long,
        env = "INFERQ_NATS",
        default_value = "nats://127.0.0.1:4222",
        hide_env_values = true
    )]
    pub nats: String,
    /// A NATS credentials file.
    #[arg(long, env = "INFERQ_NATS_CREDS", value_name = "FILE")]
    pub nats_creds: Option<PathBuf>,
    /// The prefix of all subjects of the deployment.
    #[arg(long, env = "INFERQ_PREFIX", default_value = "infer")]
    pub prefix: String,
    /// Where to listen; port 0 takes a free one, which the log names.
    #[arg(
        long,
        env = "INFERQ_GATEWAY_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:8080"
    )]
    pub listen: SocketAddr,
    /// Largest body that is read, such as 8MiB. A worker gets at most 75 % of the NATS server's max_payload.
    #[arg(
        long,
        env = "INFERQ_GATEWAY_MAX_BODY",
        value_name = "SIZE",
        default_value = "8MiB"
    )]
    pub max_body: ByteSize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    #[test]
    fn the_flags_do_not_contradict_each_other() {
        Config::command().debug_assert();
    }

    #[test]
    fn it_listens_on_this_machine_only_unless_told() {
        let config = Config::try_parse_from(["inferq-gateway"]).expect("all flags have defaults");
        assert!(config.listen.ip().is_loopback());
    }
}
